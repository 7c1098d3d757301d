//! Fills `/var` of a deployment in an OSTree tree with the directories that its system expects.
//!
//! Calls `systemd-tmpfiles` of the build root with the deployment's own rules.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.fillvar",
//!   "options": { "deployment": { "osname": "fedora", "ref": "fedora/x86_64/iot" } }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree::Deployment;
use crate::ostrees::ostree_tool::populate_var;
use crate::trees::bound::Bound;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.fillvar",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("systemd-tmpfiles")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"deployment": {"osname": "os"}}}"#,
        r#"{"options": {"deployment": {"default": true, "ref": "r"}}}"#,
        r#"{"options": {"deployment": {"osname": "os", "ref": "r", "serial": "0"}}}"#,
        r#"{"options": {"deployment": {"default": true}, "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let options: Options = cx.options()?;
        let deployment = options.deployment.find(&cx.tree)?;
        let mut bound = Bound::default();
        bound.bind(&cx.tree, &deployment.var(), &cx.tree, &format!("{}/var", deployment.path()))?;
        populate_var(cx, &cx.tree.subtree(deployment.path())?)
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Which deployment
    #[schemars(schema_with = "Deployment::schema_of_any_type")]
    deployment: Deployment,
}
