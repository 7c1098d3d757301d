//! Takes a passphrase from a LUKS 2 container, which another key opens from then on.
//!
//! Calls `cryptsetup` of the build root on the device `device`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.luks2.remove-key",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048 } }
//!   },
//!   "options": { "passphrase": "osbuild" }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.luks2.remove-key",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("cryptsetup")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"passphrase": 1}}"#,
        r#"{"options": {"passphrase": "p", "extra": 1}}"#,
        r#"{"options": {"passphrase": "p"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The passphrase to take away
    passphrase: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let device = &cx.device("device")?.path;
    cx.tool("cryptsetup")?.args(["-q", "luksRemoveKey"]).arg(device).stdin(options.passphrase).run()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_passphrase_no_longer_opens_the_container() {
        if !has_tool("cryptsetup") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (disk, keep, drop) =
            (directory.path().join("disk"), directory.path().join("keep"), directory.path().join("drop"));
        fs::write(&keep, "keep").unwrap();
        fs::write(&drop, "drop").unwrap();
        fs::File::create(&disk).unwrap().set_len(32 << 20).unwrap();
        let cryptsetup = |arguments: &[&str]| {
            let mut command = Command::new("cryptsetup");
            command.args(["-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]).args(arguments);
            command.output().unwrap()
        };
        let [disk_path, keep_path, drop_path] = [&disk, &keep, &drop].map(|path| path.to_str().unwrap());
        let made = cryptsetup(&["luksFormat", "--type", "luks2", disk_path, drop_path]);
        assert!(made.status.success(), "{made:?}");
        let added = cryptsetup(&["luksAddKey", "--key-file", drop_path, disk_path, keep_path]);
        assert!(added.status.success(), "{added:?}");
        let run = |passphrase: &str| {
            Case::new(&MODULE).device("device", &disk, json!({})).run(json!({"passphrase": passphrase}))
        };
        run("drop").ok();
        assert!(run("drop").err().contains("luksRemoveKey"));
        let opens = |key: &str| {
            let arguments = ["open", "--test-passphrase", "--key-file", key, disk_path];
            Command::new("cryptsetup").args(arguments).status().unwrap().success()
        };
        assert!(opens(keep_path));
        assert!(!opens(drop_path));
    }
}
