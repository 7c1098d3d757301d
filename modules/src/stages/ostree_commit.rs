//! Makes an OSTree commit of a tree.
//!
//! Calls `rpm-ostree` of the build root on a copy of the input `tree`. The commit goes to the repository `/repo` of the
//! tree, which must be there, and what is known of it to `/compose.json` and to the stage's metadata.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.commit",
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:ostree-tree"] }
//!   },
//!   "options": { "ref": "os/stable", "os_version": "1.0" }
//! }
//! ```

use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::ostrees::treefile::{CAPABILITIES, Commit};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.commit",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("rpm-ostree"), Requirement::OwnId],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"ref": 1}}"#,
        r#"{"options": {"ref": "r", "selinux-label-version": "1"}}"#,
        r#"{"options": {"ref": "r", "tmp-is-dir": true}}"#,
        r#"{"options": {"ref": "r"}, "inputs": {}}"#,
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
    /// The commit that it follows
    parent: Option<String>,
    /// The version of its SELinux labels
    #[serde(rename = "selinux-label-version", default)]
    label_version: i64,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let input = Tree::open(&cx.input("tree")?.path)?;
    // In the tree, so that files need not be copied where the file system can share them.
    let place = cx.tree.path_for_tools("/")?;
    let root = tempfile::tempdir_in(&place).map_err(Error::io("create a directory in", place))?;
    Copy::default().run(&input, ".", &Tree::open(root.path())?, ".")?;
    let commit = Commit {
        root: root.path(),
        reference: &options.reference,
        parent: options.parent.as_deref(),
        version: options.os_version.as_deref(),
        label_version: Some(options.label_version).filter(|version| *version != 0),
    };
    commit.make(cx)
}
