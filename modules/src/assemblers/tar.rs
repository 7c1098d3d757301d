//! Archives the tree.
//!
//! The tree becomes the tar archive `filename`, by default with access control lists, SELinux contexts and all extended
//! attributes. It is compressed only when `compression` says so, whatever its name: `bzip2`, `gzip`, `lzma` and `xz`
//! without a tool, `lzip` and `lzop` by those of the build root. Members of a directory come sorted.
//!
//! ```json
//! { "type": "org.osbuild.tar", "options": { "filename": "os.tar.xz", "compression": "xz" } }
//! ```

use std::path::Path;

use osbc_module_api::*;

use crate::archives::archive::{Settings, names::Names};
use crate::archives::compression::Format;
use crate::archives::tarball::{self, Packing};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.tar",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[
        Requirement::ToolFor("lzip", |options| options["compression"] == "lzip"),
        Requirement::ToolFor("lzop", |options| options["compression"] == "lzop"),
    ],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x.tar", "compression": "zstd"}}"#,
        r#"{"options": {"filename": "x.tar", "acls": "no"}}"#,
        r#"{"options": {"filename": "x.tar", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The archive
    filename: String,
    /// How it is compressed
    compression: Option<Compression>,
    /// Whether it has POSIX access control lists
    #[serde(default = "yes")]
    acls: bool,
    /// Whether it has SELinux contexts
    #[serde(default = "yes")]
    selinux: bool,
    /// Whether it has extended attributes
    #[serde(default = "yes")]
    xattrs: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    Bzip2,
    Xz,
    Lzip,
    Lzma,
    Lzop,
    Gzip,
}

fn yes() -> bool {
    true
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let packing = match options.compression {
        None => Packing::Plain,
        Some(Compression::Bzip2) => Packing::Own(Format::Bzip2),
        Some(Compression::Xz) => Packing::Own(Format::Xz),
        Some(Compression::Lzip) => Packing::Tool("lzip"),
        Some(Compression::Lzma) => Packing::Own(Format::Lzma),
        Some(Compression::Lzop) => Packing::Tool("lzop"),
        Some(Compression::Gzip) => Packing::Own(Format::Gzip),
    };
    let settings = Settings {
        xattrs: if options.xattrs { Some(|_| true) } else { None },
        acls: options.acls,
        selinux: options.selinux,
        names: Names::read(Path::new("/etc"))?,
        ..Settings::default()
    };
    tarball::write(cx, &cx.input("tree")?.path, &[".".into()], &settings, packing, &options.filename)
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    fn archive(options: Value) -> Vec<u8> {
        let case = Case::new(&MODULE).input("tree", json!({}), |tree| tree.write("file", "content").unwrap());
        case.run(options).ok().tree.read("tree.tar.gz").unwrap()
    }

    #[test]
    fn the_option_alone_chooses_the_compression() {
        let plain = archive(json!({"filename": "tree.tar.gz", "acls": false, "selinux": false, "xattrs": false}));
        assert!(plain.starts_with(b"./\0"));
        for (compression, magic) in
            [("gzip", &b"\x1f\x8b"[..]), ("bzip2", b"BZh"), ("xz", b"\xfd7zXZ\0"), ("lzma", b"\x5d\0\0")]
        {
            let packed = archive(json!({"filename": "/tree.tar.gz", "compression": compression}));
            assert!(packed.starts_with(magic), "{compression}");
        }
    }

    #[test]
    fn other_packers_are_the_build_roots() {
        if has_tool("lzop") {
            assert!(archive(json!({"filename": "tree.tar.gz", "compression": "lzop"})).starts_with(b"\x89LZO"));
        }
    }
}
