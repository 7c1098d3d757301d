//! Makes an OSTree system of a tree: an empty one, without a deployment.
//!
//! Calls `ostree` of the build root.
//!
//! ```json
//! { "type": "org.osbuild.ostree.init-fs" }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::sysroot;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.init-fs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"modern": true}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let tree = cx.tree.path_for_tools("/")?;
        cx.tool("ostree")?.args(["admin", "init-fs", "--modern"]).arg(tree).arg(sysroot(&cx.tree)?).run()
    }),
};

/// None.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}
