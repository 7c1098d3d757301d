//! Writes a file to a device.
//!
//! The file is written from the device's first byte on, and is on it when the stage ends. It must not be larger than
//! the device. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.write-device",
//!   "options": { "from": "input://tree/efi.img" },
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:efi"] }
//!   },
//!   "devices": { "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048 } } }
//! }
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use osbc_module_api::*;
use rustix::fs::OFlags;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.write-device",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().devices(&["device"]).any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {}, "devices": {"device": {}}}"#,
        r#"{"options": {"from": "tree:///a"}, "devices": {"device": {}}}"#,
        r#"{"options": {"from": "input://tree"}, "devices": {"device": {}}}"#,
        r#"{"options": {"from": "input://tree/a"}, "devices": {}}"#,
        r#"{"options": {"from": "input://tree/a", "other": 1}, "devices": {"device": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file: `input://NAME/path`
    #[schemars(regex(pattern = r"^input:\/\/[^\/]+\/"))]
    from: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { from } = cx.options()?;
    let Location { tree, path, .. } = cx.location(&from)?;
    let node = &cx.device("device")?.path;
    let mut source = tree.open_file(&path, OFlags::RDONLY, 0)?;
    let mut device = File::options().write(true).open(node).map_err(Error::io("open the device", node))?;
    let size = source.metadata().map_err(Error::io("inspect", &path))?.len();
    let room = device.seek(SeekFrom::End(0)).map_err(Error::io("find the size of", node))?;
    if size > room {
        return Err(Error::failed(format!(
            "{} has {size} bytes, but the device {} has room for {room}",
            path.display(),
            node.display()
        )));
    }
    let write = |device: &mut File, source: &mut File| -> io::Result<()> {
        device.seek(SeekFrom::Start(0))?;
        io::copy(source, device)?;
        device.sync_all()
    };
    write(&mut device, &mut source).map_err(Error::io("write to the device", node))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_module_api::testing::{Case, Done};

    use super::*;

    /// With a file for a device.
    fn write(content: &str) -> (Done, String) {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("disk");
        fs::write(&node, "0123456789").unwrap();
        let case = Case::new(&MODULE).input("in", json!({}), |tree| tree.write("image", content).unwrap());
        let done = case.device("device", &node, json!({})).run(json!({"from": "input://in/image"}));
        (done, fs::read_to_string(node).unwrap())
    }

    #[test]
    fn the_file_comes_first_and_the_rest_stays() {
        let (done, content) = write("abc");
        done.ok();
        assert_eq!(content, "abc3456789");
        write("abcdefghij").0.ok();
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_before_anything_is_written() {
        let (done, content) = write("abcdefghijk");
        assert!(done.err().contains("has 11 bytes") && done.err().contains("room for 10"), "{}", done.err());
        assert_eq!(content, "0123456789");
    }
}
