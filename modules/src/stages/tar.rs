//! Archives a tree.
//!
//! The input `tree` becomes the tar archive `filename`, by default with access control lists, SELinux contexts and all
//! extended attributes, and compressed as its name says. The options are those of GNU tar, but no tool is called
//! (except `lzip`, `lzop` and `compress` for names that ask for them). The members of a directory come sorted, and the
//! times of the last access and the last change of attributes stay out, so that the same tree gives the same archive.
//!
//! `paths` are taken inside the tree: a path that a link or `..` leads out of it is refused.
//!
//! ```json
//! {
//!   "type": "org.osbuild.tar",
//!   "inputs": {
//!     "tree": {
//!       "type": "org.osbuild.tree",
//!       "origin": "org.osbuild.pipeline",
//!       "references": ["name:os"]
//!     }
//!   },
//!   "options": { "filename": "os.tar.zst", "root-node": "omit", "numeric-owner": true }
//! }
//! ```

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use osbc_module_api::*;

use crate::archives::archive::{self, Settings, header, names::Names, transform::Transform};
use crate::archives::compression;
use crate::archives::tarball::{self, Packing};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.tar",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[
        Requirement::ToolFor("compress", |options| tarball::packer(options) == Some("compress")),
        Requirement::ToolFor("lzip", |options| tarball::packer(options) == Some("lzip")),
        Requirement::ToolFor("lzop", |options| tarball::packer(options) == Some("lzop")),
    ],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x.tar", "root-node": "include", "paths": ["a"]}}"#,
        r#"{"options": {"filename": "x.tar", "root-node": "keep"}}"#,
        r#"{"options": {"filename": "x.tar", "transform": ["s/a/b/"]}}"#,
        r#"{"options": {"filename": "x.tar", "compression": "bzip2"}}"#,
        r#"{"options": {"filename": "x.tar", "format": "pax"}}"#,
        r#"{"options": {"filename": "x.tar", "extra": 1}}"#,
        r#"{"options": {"filename": "x.tar"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(extend("not" = {"required": ["root-node", "paths"]}))]
struct Options {
    /// The archive
    filename: String,
    /// Its format, where attributes do not make it `posix`
    #[serde(default)]
    format: Format,
    /// How it is compressed; `auto` as its name says
    #[serde(default)]
    compression: Compression,
    /// Whether it has POSIX access control lists
    #[serde(default = "yes")]
    acls: bool,
    /// Whether it has SELinux contexts
    #[serde(default = "yes")]
    selinux: bool,
    /// Whether it has extended attributes
    #[serde(default = "yes")]
    xattrs: bool,
    /// Whether the tree's root is a member; not with `paths`
    #[serde(default)]
    root_node: RootNode,
    /// The only members, in this order; all when there are none
    #[serde(default)]
    paths: Vec<String>,
    /// Whether holes of files are left out
    #[serde(default)]
    sparse: bool,
    /// Commands of sed that rewrite the members' names
    transform: Option<String>,
    /// Whether owners have numbers only
    #[serde(default)]
    numeric_owner: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Gnu,
    OldGnu,
    Posix,
    Ustar,
    V7,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    #[default]
    Auto,
    Xz,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RootNode {
    #[default]
    Include,
    Omit,
}

fn yes() -> bool {
    true
}

impl Options {
    fn settings(&self) -> Result<Settings, Error> {
        Ok(Settings {
            format: match self.format {
                Format::Gnu => header::Format::Gnu,
                Format::OldGnu => header::Format::OldGnu,
                Format::Posix => header::Format::Posix,
                Format::Ustar => header::Format::Ustar,
                Format::V7 => header::Format::V7,
            },
            xattrs: if self.xattrs { Some(|_| true) } else { None },
            acls: self.acls,
            selinux: self.selinux,
            sparse: self.sparse,
            transform: self.transform.as_deref().map(Transform::parse).transpose()?,
            names: if self.numeric_owner { Names::default() } else { Names::read(Path::new("/etc"))? },
        })
    }

    fn packing(&self) -> Packing {
        match self.compression {
            Compression::Auto => Packing::of_name(&self.filename),
            Compression::Xz => Packing::Own(compression::Format::Xz),
            Compression::Gzip => Packing::Own(compression::Format::Gzip),
            Compression::Zstd => Packing::Own(compression::Format::Zstd),
        }
    }

    fn members(&self, root: &Path) -> Result<Vec<OsString>, Error> {
        match (self.paths.as_slice(), self.root_node) {
            ([], RootNode::Include) => Ok(vec![".".into()]),
            ([], RootNode::Omit) => archive::top_level(root),
            (paths, _) => {
                let tree = Tree::open(root)?;
                paths.iter().map(|path| member(&tree, root, path)).collect()
            }
        }
    }
}

/// The name of a path of the tree as a member.
fn member(tree: &Tree, root: &Path, path: &str) -> Result<OsString, Error> {
    let name = match path.trim_matches('/') {
        "" => ".",
        name => name,
    };
    let inside = tree.symlink_metadata(name)?;
    let place = root.join(name);
    let reached = fs::symlink_metadata(&place).map_err(Error::io("inspect", &place))?;
    if (inside.dev(), inside.ino()) != (reached.dev(), reached.ino()) {
        return Err(Error::failed(format!("the path `{path}` leads out of the tree")));
    }
    Ok(name.into())
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let root = &cx.input("tree")?.path;
    let members = options.members(root)?;
    tarball::write(cx, root, &members, &options.settings()?, options.packing(), &options.filename)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).input("tree", json!({}), |tree| {
            tree.write("file2", "two").unwrap();
            tree.write("file1", "one").unwrap();
            tree.create_dir("directory", 0o755).unwrap();
            tree.write("directory/inner", "three").unwrap();
            tree.symlink("/etc", "outside").unwrap();
        })
    }

    /// The members of an archive by tar(1), which finds out the compression by itself.
    fn listed(done: &Done, name: &str) -> Vec<String> {
        let path = done.tree.path_for_tools(name).unwrap();
        let output = Command::new("tar").arg("-tf").arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_root_comes_first_or_not_at_all() {
        if !has_tool("tar") {
            return;
        }
        let done = case().run(json!({"filename": "/out.tar"})).ok();
        assert_eq!(
            listed(&done, "out.tar"),
            ["./", "./directory/", "./directory/inner", "./file1", "./file2", "./outside"]
        );
        let done = case().run(json!({"filename": "out.tar", "root-node": "omit"})).ok();
        assert_eq!(listed(&done, "out.tar"), ["directory/", "directory/inner", "file1", "file2", "outside"]);
    }

    #[test]
    fn an_empty_tree_without_its_root_is_an_empty_archive() {
        if !has_tool("tar") {
            return;
        }
        let case = Case::new(&MODULE).input("tree", json!({}), |_| ());
        let done = case.run(json!({"filename": "out.tar", "root-node": "omit"})).ok();
        assert_eq!(listed(&done, "out.tar"), [""; 0]);
    }

    #[test]
    fn paths_come_in_their_order_and_as_often_as_they_are_named() {
        if !has_tool("tar") {
            return;
        }
        let options = json!({"filename": "out.tar", "paths": ["file2", "/file1", "file1", "file2", "directory/"]});
        let done = case().run(options).ok();
        assert_eq!(listed(&done, "out.tar"), ["file2", "file1", "file1", "file2", "directory/", "directory/inner"]);
    }

    #[test]
    fn paths_that_lead_out_of_the_tree_are_refused() {
        for path in ["outside/passwd", "../../../../../../etc", "missing"] {
            let done = case().run(json!({"filename": "out.tar", "paths": [path]}));
            assert!(!done.err().is_empty(), "{path}");
        }
        let done = case().run(json!({"filename": "out.tar", "paths": ["../../../../../../../../.."]}));
        assert!(done.err().contains("leads out of the tree"), "{}", done.err());
    }

    #[test]
    fn names_are_transformed() {
        if !has_tool("tar") {
            return;
        }
        let options = json!({
            "filename": "out.tar", "paths": ["file1", "file2"], "transform": "s/file1/foo99/;s/file2/bar11/",
        });
        assert_eq!(listed(&case().run(options).ok(), "out.tar"), ["foo99", "bar11"]);
        let options = json!({"filename": "out.tar", "paths": ["file1"], "transform": "s/file1/date/e"});
        assert!(case().run(options).err().contains("unknown flag `e`"));
    }

    #[test]
    fn name_or_option_choose_the_compression() {
        for (options, magic) in [
            (json!({"filename": "out.tar.gz"}), &b"\x1f\x8b"[..]),
            (json!({"filename": "out.tar.bz2"}), b"BZh"),
            (json!({"filename": "out.tar.xz"}), b"\xfd7zXZ"),
            (json!({"filename": "out.tar.gz", "compression": "zstd"}), b"\x28\xb5\x2f\xfd"),
            (json!({"filename": "out", "compression": "xz"}), b"\xfd7zXZ"),
            (json!({"filename": "out", "compression": "gzip"}), b"\x1f\x8b"),
            (json!({"filename": "out"}), b"./PaxHeaders/"),
        ] {
            let name = options["filename"].as_str().unwrap().to_owned();
            let done = case().run(options.clone()).ok();
            let packed = done.tree.read(&name).unwrap();
            assert!(packed.starts_with(magic), "{options}");
            if has_tool("tar") {
                assert_eq!(listed(&done, &name).len(), 6, "{options}");
            }
        }
    }

    #[test]
    fn the_same_tree_gives_the_same_archive() {
        let archive = |_| {
            let case = Case::new(&MODULE).input("tree", json!({}), |tree| {
                tree.create_dir("a", 0o755).unwrap();
                tree.write("a/b", "x").unwrap();
                for path in ["a/b", "a", "/"] {
                    let times = rustix::fs::Timestamps {
                        last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
                        last_modification: rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 7 },
                    };
                    let path = tree.path_for_tools(path).unwrap();
                    let flags = rustix::fs::AtFlags::empty();
                    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
                }
            });
            case.run(json!({"filename": "a.tar.zst"})).ok().tree.read("a.tar.zst").unwrap()
        };
        assert!(archive(1) == archive(2));
    }
}
