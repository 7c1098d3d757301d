//! Creates the users and groups that the tree's sysusers.d files declare.
//!
//! `systemd-sysusers` of the build root does it.
//!
//! ```json
//! { "type": "org.osbuild.systemd-sysusers" }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd-sysusers",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("systemd-sysusers")],
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
    cx.tool("systemd-sysusers")?.arg("--root").arg(cx.tree.path_for_tools("/")?).run()
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn declared_users_are_created() {
        if !has_root() || !has_tool("systemd-sysusers") {
            return;
        }
        let case = Case::new(&MODULE)
            .dir("etc")
            .file("usr/lib/sysusers.d/a.conf", "u app 400 \"The app\" /var/app\ng own 401\n");
        let done = case.run(json!({})).ok();
        assert!(done.text("etc/passwd").contains("app:x:400:400:The app:/var/app:"));
        assert!(done.text("etc/group").contains("own:x:401:"));
    }

    #[test]
    fn a_table_that_is_none_is_an_error() {
        if !has_root() || !has_tool("systemd-sysusers") {
            return;
        }
        let case = Case::new(&MODULE).dir("etc/passwd").file("usr/lib/sysusers.d/a.conf", "u app 400\n");
        assert!(case.run(json!({})).err().contains("systemd-sysusers"));
    }
}
