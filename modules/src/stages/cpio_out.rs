//! Archives a tree with cpio.
//!
//! The input `tree` becomes the archive `filename`, by `cpio` of the build root. The names are sorted within each
//! directory: its files, the directory itself, then its directories. By default the archive is reproducible: no device
//! numbers, inodes counted anew. With `append` the archive is there already and gets more members.
//!
//! A directory has as many links as it would have in a plain tree, two and one for each directory in it, since the
//! layers that an input may consist of do not count them.
//!
//! Links to directories are archived too; osbuild leaves them out.
//!
//! ```json
//! {
//!   "type": "org.osbuild.cpio.out",
//!   "options": { "filename": "rootfs.img", "owner": { "user": "root", "group": "root" } },
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:rootfs"] }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::archives::cpio;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.cpio.out",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Tool("cpio")],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "format": "zip"}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "root-node": "skip"}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "owner": {"group": "root"}}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "append": 1}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a", "level": 1}, "inputs": {"tree": {}}}"#,
        r#"{"options": {"filename": "a"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The archive
    filename: String,
    /// Whether it is there and gets more members
    #[serde(default)]
    append: bool,
    /// The format
    #[serde(default = "newc")]
    #[schemars(extend("enum" = ["bin", "odc", "newc", "crc", "tar", "ustar"]))]
    format: String,
    /// Whether the tree's root is a member
    #[serde(default)]
    root_node: RootNode,
    /// Whether the same tree gives the same archive
    #[serde(default = "yes")]
    reproducible: bool,
    /// Whom all members belong to, instead of their owners
    owner: Option<Owner>,
}

fn newc() -> String {
    "newc".to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RootNode {
    #[default]
    Include,
    Omit,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Owner {
    /// The user, by name or number
    user: String,
    /// The group, by name or number
    #[serde(default)]
    group: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, append, format, root_node, reproducible, owner } = cx.options()?;
    let source = &cx.input("tree")?.path;
    let mut members = Members::default();
    members.collect(&Tree::open(source)?, Path::new(""), root_node == RootNode::Include)?;
    let mut tool = cx.tool("cpio")?.args(["-v", "-o", "--null"]).arg(format!("--format={format}"));
    if reproducible {
        tool = tool.arg("--reproducible");
    }
    if append {
        tool = tool.arg("--append");
    }
    if let Some(Owner { user, group }) = owner {
        let group = if group.is_empty() { String::new() } else { format!(":{group}") };
        tool = tool.arg(format!("--owner={user}{group}"));
    }
    let archive = filename.trim_start_matches('/');
    let target = cx.tree.path_for_tools(archive)?;
    tool.arg("-O").arg(target).arg("-D").arg(source).stdin(members.names.join(&b'\0')).run()?;
    if ["tar", "ustar"].contains(&format.as_str()) {
        return Ok(());
    }
    let file = cx.tree.open_file(archive, OFlags::RDWR, 0)?;
    cpio::set_links(&file, members.names.len(), &members.links).map_err(Error::io("write", archive))
}

/// What is archived.
#[derive(Default)]
struct Members {
    /// In order.
    names: Vec<Vec<u8>>,
    /// How many links each directory has.
    links: BTreeMap<Vec<u8>, u64>,
}

impl Members {
    /// Lists a directory's files, the directory, and what its directories hold.
    fn collect(&mut self, tree: &Tree, directory: &Path, itself: bool) -> Result<(), Error> {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let mut directories = Vec::new();
        let place = if directory == Path::new("") { Path::new("/") } else { directory };
        for name in tree.read_dir(place)? {
            let path = directory.join(name);
            if tree.symlink_metadata(&path)?.is_dir() {
                directories.push(path);
            } else {
                self.names.push(bytes(&path));
            }
        }
        if itself {
            let name = if directory.as_os_str() == OsStr::new("") { b".".to_vec() } else { bytes(directory) };
            self.links.insert(name.clone(), 2 + directories.len() as u64);
            self.names.push(name);
        }
        directories.iter().try_for_each(|directory| self.collect(tree, directory, true))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).input("tree", json!({}), |tree| {
            tree.create_dir_all("b/c", 0o755).unwrap();
            tree.write("b/file", "x").unwrap();
            tree.write("z", "y").unwrap();
            tree.symlink("b", "a").unwrap();
        })
    }

    fn members(done: &Done, archive: &str) -> String {
        let place = done.tree.path_for_tools(archive).unwrap();
        let output = Command::new("cpio").args(["-t", "--quiet", "-F"]).arg(place).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn members_are_sorted_and_links_to_directories_are_among_them() {
        if !has_tool("cpio") {
            return;
        }
        let done = case().run(json!({"filename": "/x.cpio"})).ok();
        assert_eq!(members(&done, "x.cpio"), "a\nz\n.\nb/file\nb\nb/c\n");
        let again = case().run(json!({"filename": "/x.cpio"})).ok();
        assert_eq!(done.tree.read("x.cpio").unwrap().len(), again.tree.read("x.cpio").unwrap().len());
        let done = case().run(json!({"filename": "x", "root-node": "omit", "format": "ustar"})).ok();
        assert_eq!(members(&done, "x"), "a\nz\nb/file\nb/\nb/c/\n");
    }

    #[test]
    fn members_are_appended_and_get_an_owner() {
        if !has_tool("cpio") {
            return;
        }
        let first = case().run(json!({"filename": "x", "root-node": "omit"})).ok().tree.read("x").unwrap();
        let options = json!({"filename": "x", "append": true, "owner": {"user": "7", "group": "8"}});
        let done = case().file("x", first).run(options).ok();
        assert_eq!(members(&done, "x"), "a\nz\nb/file\nb\nb/c\na\nz\n.\nb/file\nb\nb/c\n");
        let place = done.tree.path_for_tools("x").unwrap();
        let output = Command::new("cpio").args(["-t", "-v", "-n", "--quiet", "-F"]).arg(place).output().unwrap();
        let list = String::from_utf8(output.stdout).unwrap();
        assert!(list.lines().last().is_some_and(|line| line.contains(" 7 ") && line.contains(" 8 ")), "{list}");
        assert!(!case().run(json!({"filename": "missing", "append": true})).err().is_empty());
    }
}
