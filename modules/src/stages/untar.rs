//! Extracts an archive.
//!
//! The one file of the input `file` is extracted to the directory `prefix` of the tree, which must be there. `tar` of
//! the build root does it, with owners, modes, capabilities and access control lists as they are in the archive; what
//! is compressed with gzip, bzip2, lzip, lzma, xz or zstd is decompressed without further tools. osbuild drops
//! capabilities and access control lists.
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

use crate::archives::single_file;
use crate::archives::tarball;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.untar",
    revision: 2,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[Requirement::Tool("tar")],
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
    /// The directory to extract to
    #[serde(default = "root")]
    prefix: String,
}

fn root() -> String {
    "/".to_owned()
}

/// What `tar` sets beyond owners and modes.
const OPTIONS: [&str; 3] = ["--acls", "--xattrs", "--xattrs-include=security.capability"];

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let source = single_file::path(cx, "file")?;
    let target = cx.tree.path_for_tools(&options.prefix)?;
    tarball::extract(cx, &source, &OPTIONS, &target)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::archives::archive::{self, Settings};
    use crate::archives::compression::Format;

    const NAME: &str = "sha256:0000";

    fn case(packed: &[u8]) -> Case {
        Case::new(&MODULE).input("file", json!({"files": {NAME: {}}}), |tree| tree.write(NAME, packed).unwrap())
    }

    fn archive() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/b"), "content").unwrap();
        let large: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(directory.path().join("a/large"), large).unwrap();
        archive::write(directory.path(), &[".".into()], &Settings::default(), Vec::new()).unwrap()
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
    fn root_capabilities_and_access_control_lists_are_kept() {
        if !has_root() || !has_tool("tar") {
            return;
        }
        let from = tempfile::tempdir().unwrap();
        let file = from.path().join("ping");
        std::fs::write(&file, "").unwrap();
        // Version 2: CAP_NET_RAW, permitted and effective. Then: the user 1234 reads, beside owner, group, mask,
        // others.
        let capability: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        let entries =
            [(1_u16, 6_u16, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)];
        let entry = |(tag, mode, id): (u16, u16, u32)| {
            [tag.to_le_bytes().as_slice(), &mode.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(entries.into_iter().flat_map(entry)).collect();
        let attributes = [("security.capability", &capability), ("system.posix_acl_access", &list)];
        for (name, value) in attributes {
            rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
        }
        let settings = Settings { acls: true, xattrs: Some(|_| true), ..Settings::default() };
        let packed = archive::write(from.path(), &[".".into()], &settings, Vec::new()).unwrap();
        let case = case(&packed);
        let path = case.path().join("ping");
        let _done = case.run(json!({})).ok();
        for (name, value) in attributes {
            let mut buffer = [0; 256];
            let length = rustix::fs::getxattr(&path, name, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], value.as_slice(), "{name}");
        }
    }

    #[test]
    fn the_directory_must_be_there_and_is_looked_for_inside_the_tree() {
        if !has_tool("tar") {
            return;
        }
        assert!(!case(&archive()).run(json!({"prefix": "/missing/directory"})).err().is_empty());
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
