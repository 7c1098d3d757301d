//! Compresses a file to gzip.
//!
//! The one file of the input `file` becomes `filename` in the tree. Neither its name nor its time is recorded, so the
//! same data gives the same result. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.gzip",
//!   "inputs": {
//!     "file": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:image": { "file": "disk.img" } }
//!     }
//!   },
//!   "options": { "filename": "disk.img.gz", "level": 9 }
//! }
//! ```

use osbc_module_api::*;

use crate::archives::compression::Format;
use crate::archives::single_file;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.gzip",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["file"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x.gz", "level": 0}}"#,
        r#"{"options": {"filename": "x.gz", "level": 10}}"#,
        r#"{"options": {"filename": "x.gz", "extra": true}}"#,
        r#"{"options": {"filename": "x.gz"}, "inputs": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The compressed file
    filename: String,
    /// From 1, fast, to 9, small
    #[serde(default = "fastest")]
    #[schemars(range(min = 1, max = 9))]
    level: u32,
}

fn fastest() -> u32 {
    1
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    single_file::compress(cx, Format::Gzip, options.level, &options.filename)
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
        assert!(first.starts_with(b"\x1f\x8b"));
        assert!(first == packed());
        let mut plain = Vec::new();
        decoder(&first[..]).unwrap().unwrap().read_to_end(&mut plain).unwrap();
        assert!(plain == content());
    }

    #[test]
    fn the_level_is_heeded() {
        let size = |level: u8| {
            let options = json!({"filename": "out", "level": level});
            case().run(options).ok().tree.metadata("out").unwrap().len()
        };
        assert!(size(9) < size(1));
    }
}
