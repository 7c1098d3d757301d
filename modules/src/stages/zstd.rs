//! Compresses a file to zstd.
//!
//! The one file of the input `file` becomes `filename` in the tree, compressed at level 1 with a checksum, on all
//! cores; their number does not show in the result. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.zstd",
//!   "inputs": {
//!     "file": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:image": { "file": "disk.img" } }
//!     }
//!   },
//!   "options": { "filename": "disk.img.zst" }
//! }
//! ```

use osbc_module_api::*;

use crate::archives::compression::Format;
use crate::archives::single_file;

/// Fast rather than small.
const LEVEL: u32 = 1;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.zstd",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["file"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": 1}}"#,
        r#"{"options": {"filename": "x.zst", "level": 1}}"#,
        r#"{"options": {"filename": "x.zst"}, "inputs": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The compressed file
    filename: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    single_file::compress(cx, Format::Zstd, LEVEL, &options.filename)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use osbc_module_api::testing::Case;

    use super::*;
    use crate::archives::compression::decoder;

    fn content() -> Vec<u8> {
        (0..300_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    fn case() -> Case {
        Case::new(&MODULE).input("file", json!({"files": {"sha256:0": {}}}), |tree| {
            tree.write("sha256:0", content()).unwrap();
        })
    }

    #[test]
    fn the_file_can_be_decompressed_and_is_the_same_each_time() {
        let packed = || {
            case().file("out", "old".repeat(1_000_000)).run(json!({"filename": "/out"})).ok().tree.read("out").unwrap()
        };
        let first = packed();
        assert!(first.starts_with(b"\x28\xb5\x2f\xfd"));
        assert!(first == packed());
        let mut plain = Vec::new();
        decoder(&first[..]).unwrap().unwrap().read_to_end(&mut plain).unwrap();
        assert!(plain == content());
    }
}
