//! Makes an OSTree commit of a tree that has OSTree's layout.
//!
//! Calls `ostree` and `rpm-ostree` of the build root. The commit goes to the repository `/repo`, and what is known of
//! it to `/compose.json` and to the metadata; with `tar` both go into an archive, packed as its name says. Of the tree,
//! `usr`, `boot`, `var` and the links to `usr` are taken. Without `tmp-is-dir`, `/tmp` becomes a link to
//! `/sysroot/tmp`, where osbuild makes a link to `tmp` there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.commit",
//!   "options": { "ref": "os/stable", "os_version": "1.0", "tar": { "filename": "commit.tar" } }
//! }
//! ```

use std::path::Path;

use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::archives::archive::{Settings, names::Names};
use crate::archives::tarball::{self, Packing};
use crate::ostrees::ostree_layout::{MERGED, make_top};
use crate::ostrees::ostree_tool::{option, ostree};
use crate::ostrees::treefile::{CAPABILITIES, COMPOSE, Commit, REPOSITORY};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.ostree.commit",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[
        Requirement::Tool("ostree"),
        Requirement::Tool("rpm-ostree"),
        Requirement::OwnId,
        Requirement::MayCall("compress"),
        Requirement::MayCall("lzip"),
        Requirement::MayCall("lzop"),
    ],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"ref": 1}}"#,
        r#"{"options": {"ref": "r", "tmp-is-dir": "yes"}}"#,
        r#"{"options": {"ref": "r", "tar": {}}}"#,
        r#"{"options": {"ref": "r", "tar": {"filename": "x", "compression": "xz"}}}"#,
        r#"{"options": {"ref": "r", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The ref of the commit
    #[serde(rename = "ref")]
    reference: String,
    /// The version of the system
    os_version: Option<String>,
    /// Whether `/tmp` is a directory
    #[serde(rename = "tmp-is-dir", default = "yes")]
    tmp_is_dir: bool,
    /// The commit that it follows
    parent: Option<String>,
    /// To get an archive
    tar: Option<Archive>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Archive {
    /// The archive
    filename: String,
}

fn yes() -> bool {
    true
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let place = cx.tree.path_for_tools("/")?;
    let root = tempfile::tempdir_in(&place).map_err(Error::io("create a directory in", &place))?;
    lay_out(&Tree::open(&cx.input("tree")?.path)?, &Tree::open(root.path())?, options.tmp_is_dir)?;
    ostree(cx, &["init", "--mode=archive", &option("repo", cx.tree.path_for_tools(REPOSITORY)?)?])?;
    let commit = Commit {
        root: root.path(),
        reference: &options.reference,
        parent: options.parent.as_deref(),
        version: options.os_version.as_deref(),
        label_version: None,
    };
    commit.make(cx)?;
    drop(root);
    let Some(Archive { filename }) = options.tar else { return Ok(()) };
    let settings = Settings { names: Names::read(Path::new("/etc"))?, ..Settings::default() };
    let members = [REPOSITORY.into(), COMPOSE.into()];
    tarball::write(cx, &place, &members, &settings, Packing::of_name(&filename), &filename)?;
    cx.tree.remove_dir_all(REPOSITORY)?;
    cx.tree.remove_file(COMPOSE)
}

/// Copies what is taken of a tree to an empty one.
fn lay_out(from: &Tree, to: &Tree, tmp_is_directory: bool) -> Result<(), Error> {
    make_top(to, tmp_is_directory)?;
    let merged = MERGED.into_iter().map(|name| (name, from.symlink_metadata(name).is_ok()));
    let all = [("usr", true), ("boot", true), ("var", true)].into_iter().chain(merged);
    all.filter(|(_, there)| *there).try_for_each(|(name, _)| Copy::default().run(from, name, to, "/"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_the_layout_has_no_place_for_is_left_behind() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for directory in ["usr/etc", "boot", "var/lib", "opt/vendor"] {
            fs::create_dir_all(from.path().join(directory)).unwrap();
        }
        symlink("usr/bin", from.path().join("bin")).unwrap();
        lay_out(&Tree::open(from.path()).unwrap(), &Tree::open(to.path()).unwrap(), true).unwrap();
        for path in ["usr/etc", "boot", "var/lib", "sysroot"] {
            assert!(to.path().join(path).is_dir(), "{path}");
        }
        assert_eq!(fs::read_link(to.path().join("bin")).unwrap().to_str(), Some("usr/bin"));
        assert_eq!(fs::read_link(to.path().join("opt")).unwrap().to_str(), Some("var/opt"));
        assert!(!to.path().join("var/opt").exists());
        let other = tempfile::tempdir().unwrap();
        let nothing = lay_out(&Tree::open(other.path()).unwrap(), &Tree::open(to.path()).unwrap(), true);
        assert!(nothing.is_err());
    }
}
