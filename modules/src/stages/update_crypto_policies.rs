//! Sets the crypto policy of the system.
//!
//! The tree's own `update-crypto-policies --set` does it, in a chroot of the tree.
//!
//! ```json
//! { "type": "org.osbuild.update-crypto-policies", "options": { "policy": "FIPS" } }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::Program;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.update-crypto-policies",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"policy": ""}}"#,
        r#"{"options": {"policy": 1}}"#,
        r#"{"options": {"policy": "FIPS", "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The policy, with subpolicies after `:`
    #[schemars(length(min = 1))]
    policy: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { policy } = cx.options()?;
    Program::find(&cx.tree, "/usr/bin/update-crypto-policies")?.args(["--set", &policy]).run()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    #[test]
    fn the_policy_is_set_by_the_trees_program() {
        let Some(case) = with_script(&MODULE, "usr/bin/update-crypto-policies", "echo \"$@\" >/etc/said") else {
            return;
        };
        let done = case.run(json!({"policy": "DEFAULT:SHA1"})).ok();
        assert_eq!(done.text("etc/said"), "--set DEFAULT:SHA1\n");
    }

    #[test]
    fn a_tree_without_the_program_fails_with_the_package_that_has_it() {
        let done = Case::new(&MODULE).run(json!({"policy": "FIPS"}));
        let error = "the tool `update-crypto-policies` is not in the tree; install the package \
                     `crypto-policies-scripts` (Fedora) or `crypto-policies` (Debian, Ubuntu) there";
        assert_eq!(done.err(), error);
    }
}
