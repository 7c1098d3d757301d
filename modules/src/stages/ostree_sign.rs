//! Signs a commit of an OSTree repository in the tree.
//!
//! Calls `ostree` of the build root with the secret key in a file of the tree, as `org.osbuild.ostree.genkey` makes it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.sign",
//!   "options": { "repo": "/repo", "ref": "os/stable", "key": "/secret.key" }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{option, ostree, repository};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.sign",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"repo": "/repo", "ref": "r"}}"#,
        r#"{"options": {"repo": "/repo", "key": "/key"}}"#,
        r#"{"options": {"ref": "r", "key": "/key"}}"#,
        r#"{"options": {"repo": "/repo", "ref": "r", "key": "key"}}"#,
        r#"{"options": {"repo": "/repo", "ref": "r", "key": "/../key"}}"#,
        r#"{"options": {"repo": "/repo", "ref": "r", "key": "/key", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The repository
    repo: String,
    /// The branch or commit
    #[serde(rename = "ref")]
    reference: String,
    /// The file that has the secret key
    #[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))]
    key: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let key = option("keys-file", cx.tree.path_for_tools(&options.key)?)?;
    ostree(cx, &["sign", &options.reference, &repository(&cx.tree, &options.repo)?, &key])
}
