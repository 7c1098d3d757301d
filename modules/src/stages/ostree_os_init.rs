//! Makes the stateroot of a system in an OSTree tree.
//!
//! Calls `ostree` of the build root.
//!
//! ```json
//! { "type": "org.osbuild.ostree.os-init", "options": { "osname": "fedora" } }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{ostree, sysroot};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.os-init",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"osname": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let options: Options = cx.options()?;
        ostree(cx, &["admin", "os-init", &options.osname, &sysroot(&cx.tree)?])
    }),
};

/// What there is besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// Name of the stateroot
    osname: String,
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn a_tree_that_is_no_ostree_system_is_refused_by_the_tool() {
        if has_tool("ostree") {
            let done = Case::new(&MODULE).run(json!({"osname": "os", "note": "does not count"}));
            assert!(done.err().contains("ostree admin os-init os --sysroot="), "{}", done.err());
        }
    }
}
