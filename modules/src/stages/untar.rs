//! Extracts an archive.
//!
//! The one file of the input `file` is extracted to the folder `prefix` of the tree, which must be there. `tar` of the
//! build root does it, with owners and modes as they are in the archive; what is compressed with gzip, bzip2, lzip,
//! lzma, xz or zstd is decompressed without further tools.
//!
//! ```json
//! {
//!   "type": "org.osbuild.untar",
//!   "inputs": {
//!     "file": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
//!     }
//!   },
//!   "options": { "prefix": "/usr/local" }
//! }
//! ```

use osbc_module_api::*;

use crate::single_file;
use crate::tarball;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.untar",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    schema: || Schema::stage::<Options>().inputs(&["file"]).done(),
    rejects: &[
        r#"{"options": {"prefix": 1}}"#,
        r#"{"options": {"extra": 1}}"#,
        r#"{"options": {}, "inputs": {}}"#,
        r#"{"options": {}, "inputs": {"file": {}, "other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The folder to extract to
    #[serde(default = "root")]
    prefix: String,
}

fn root() -> String {
    "/".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let source = single_file::path(cx, "file")?;
    let target = cx.tree.path_for_tools(&options.prefix)?;
    tarball::extract(cx, &source, &[], &target)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::archive::{self, Settings};
    use crate::compression::Format;

    const NAME: &str = "sha256:0000";

    fn case(packed: &[u8]) -> Case {
        Case::new(&MODULE).input("file", json!({"files": {NAME: {}}}), |tree| tree.write(NAME, packed).unwrap())
    }

    fn archive() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), "content").unwrap();
        let large: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(folder.path().join("a/large"), large).unwrap();
        archive::write(folder.path(), &[".".into()], &Settings::default(), Vec::new()).unwrap()
    }

    fn packed(format: Format) -> Vec<u8> {
        let mut encoder = format.encoder(1, None, Vec::new()).unwrap();
        encoder.write_all(&archive()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_of_all_kinds_are_extracted_by_content() {
        if !has_tool("tar") {
            return;
        }
        let done = case(&archive()).run(json!({})).ok();
        assert_eq!(done.text("a/b"), "content");
        for format in [Format::Gzip, Format::Bzip2, Format::Lzma, Format::Xz, Format::Zstd] {
            let done = case(&packed(format)).dir("usr").run(json!({"prefix": "/usr"})).ok();
            assert_eq!(done.text("usr/a/b"), "content", "{format:?}");
            assert_eq!(done.tree.metadata("usr/a/large").unwrap().len(), 800_000, "{format:?}");
        }
    }

    #[test]
    fn the_folder_must_be_there_and_is_looked_for_inside_the_tree() {
        if !has_tool("tar") {
            return;
        }
        assert!(!case(&archive()).run(json!({"prefix": "/missing/folder"})).err().is_empty());
        let done = case(&archive()).dir("tmp").link("out", "/tmp").run(json!({"prefix": "out"})).ok();
        assert_eq!(done.text("tmp/a/b"), "content");
    }

    #[test]
    fn damaged_data_is_an_error() {
        if !has_tool("tar") {
            return;
        }
        let packed = packed(Format::Xz);
        let done = case(&packed[..packed.len() / 2]).run(json!({}));
        assert!(done.err().contains("cannot decompress"), "{}", done.err());
        assert!(!case(b"no archive").run(json!({})).err().is_empty());
    }

    #[test]
    fn one_file_is_wanted() {
        let case = Case::new(&MODULE).input("file", json!({"files": {"a": {}, "b": {}}}), |_| ());
        assert!(case.run(json!({})).err().contains("must have exactly one file, but has 2"));
    }
}
