//! Rebuilds the stores of certificate authorities that the system trusts.
//!
//! The tree's own `update-ca-trust extract` does it, in a chroot of the tree.
//!
//! ```json
//! { "type": "org.osbuild.pki.update-ca-trust" }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::Program;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pki.update-ca-trust",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"other": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options {} = cx.options()?;
    Program::find(&cx.tree, "/usr/bin/update-ca-trust")?.arg("extract").run()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    #[test]
    fn the_trees_program_extracts() {
        let Some(case) = with_script(&MODULE, "usr/bin/update-ca-trust", "echo \"$@\" >/etc/said") else { return };
        assert_eq!(case.run(json!({})).ok().text("etc/said"), "extract\n");
        let Some(case) = with_script(&MODULE, "usr/bin/update-ca-trust", "exit 3") else { return };
        assert!(case.run(json!({})).err().contains("`/usr/bin/update-ca-trust extract` failed"));
    }

    #[test]
    fn a_tree_without_the_program_fails_with_the_package_that_has_it() {
        let done = Case::new(&MODULE).run(json!({}));
        assert!(done.err().contains("`update-ca-trust` is not in the tree; install the package `ca-certificates`"));
    }
}
