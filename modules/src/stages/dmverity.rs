//! Protects the content of a device by dm-verity.
//!
//! Calls `veritysetup` of the build root: it writes the tree of hashes of the device `data_device` to the device
//! `hash_device` and the root hash to a file of the tree, and checks both. `root_hash_file` is a path in the tree, also
//! where it begins with `/`, which leads osbuild out of it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dmverity",
//!   "devices": {
//!     "data_device": { "type": "org.osbuild.loopback", "options": { "filename": "root.img" } },
//!     "hash_device": { "type": "org.osbuild.loopback", "options": { "filename": "hash.img" } }
//!   },
//!   "options": { "root_hash_file": "root.hash", "blocksize": 4096 }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dmverity",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("veritysetup")],
    schema: || Schema::stage::<Options>().devices(&["data_device", "hash_device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"root_hash_file": 1}}"#,
        r#"{"options": {"root_hash_file": "h", "blocksize": "4k"}}"#,
        r#"{"options": {"root_hash_file": "h", "salt": "00"}}"#,
        r#"{"options": {"root_hash_file": "h"}, "devices": {"data_device": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Bytes in a block of the data
    #[serde(default = "usual_size")]
    #[schemars(with = "f64")]
    blocksize: u64,
    /// The file that gets the root hash
    root_hash_file: String,
}

fn usual_size() -> u64 {
    512
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let (data, hashes) = (&cx.device("data_device")?.path, &cx.device("hash_device")?.path);
    let root_hash = cx.tree.path_for_tools(&options.root_hash_file)?;
    let tool = |act| Ok(cx.tool("veritysetup")?.arg(act).arg(data).arg(hashes));
    let size = options.blocksize.to_string();
    tool("format")?.args(["--data-block-size", &size]).arg("--root-hash-file").arg(&root_hash).run()?;
    tool("verify")?.arg("--root-hash-file").arg(&root_hash).run()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_root_hash_lies_in_the_tree_and_detects_changed_data() {
        if !has_tool("veritysetup") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (data, hashes) = (directory.path().join("data"), directory.path().join("hashes"));
        for path in [&data, &hashes] {
            fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
        }
        let case = Case::new(&MODULE).device("data_device", &data, json!({})).device("hash_device", &hashes, json!({}));
        let done = case.run(json!({"root_hash_file": "/root.hash", "blocksize": 4096})).ok();
        let hash = done.text("root.hash");
        assert_eq!(hash.trim().len(), 64);
        let verify = || Command::new("veritysetup").arg("verify").args([&data, &hashes]).arg(hash.trim()).output();
        assert!(verify().unwrap().status.success());
        fs::File::options().write(true).open(&data).unwrap().write_all_at(b"x", 4096).unwrap();
        assert!(!verify().unwrap().status.success());
    }

    #[test]
    fn both_devices_are_wanted() {
        let done = Case::new(&MODULE).device("data_device", "/nowhere", json!({})).run(json!({"root_hash_file": "h"}));
        assert_eq!(done.err(), "the stage needs a device called `hash_device`");
    }
}
