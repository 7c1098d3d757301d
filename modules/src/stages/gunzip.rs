//! Decompresses a gzip file.
//!
//! The one file of the input `file` is written to `path` in the tree. Several members in a row are one stream. No tool is
//! needed; what gunzip(1) also reads besides gzip (`compress`, `pack`) is refused.
//!
//! ```json
//! {
//!   "type": "org.osbuild.gunzip",
//!   "inputs": {
//!     "file": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
//!     }
//!   },
//!   "options": { "path": "/disk.img" }
//! }
//! ```

use std::fs::File;
use std::io;

use osbc_module_api::*;

use crate::archives::compression;
use crate::archives::single_file;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.gunzip",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["file"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {"file": {}}}"#,
        r#"{"options": {"path": 1}, "inputs": {"file": {}}}"#,
        r#"{"options": {"path": "a", "level": 1}, "inputs": {"file": {}}}"#,
        r#"{"options": {"path": "a"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The decompressed file
    path: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { path } = cx.options()?;
    let source = single_file::path(cx, "file")?;
    let mut target = single_file::create(&cx.tree, &path)?;
    let input = File::open(&source).map_err(Error::io("open", &source))?;
    let mut input = compression::gunzip(input).map_err(Error::io("read", &source))?;
    io::copy(&mut input, &mut target).map(drop).map_err(Error::io("decompress", &source))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use osbc_module_api::testing::{Case, Done};

    use super::*;
    use crate::archives::compression::Format;

    fn packed(format: Format, data: &[u8]) -> Vec<u8> {
        let mut encoder = format.encoder(1, None, Vec::new()).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> Done {
        let case = Case::new(&MODULE).file("out", "longer than what comes");
        case.input("file", json!({"files": {"a": {}}}), |tree| tree.write("a", packed).unwrap())
            .run(json!({"path": "/out"}))
    }

    #[test]
    fn members_are_one_stream() {
        let two = [packed(Format::Gzip, b"one"), packed(Format::Gzip, b"two")].concat();
        assert_eq!(unpack(&two).ok().text("out"), "onetwo");
    }

    #[test]
    fn other_and_damaged_data_is_refused() {
        let gzip = packed(Format::Gzip, &[7; 5000]);
        let damaged = &gzip[..gzip.len() - 4];
        for data in [packed(Format::Xz, b"x").as_slice(), b"", b"plain", damaged, &[&gzip[..], b"garbage"].concat()] {
            assert!(unpack(data).result.is_err(), "{data:?}");
        }
    }
}
