//! Creates groups.
//!
//! `groupadd` of the build root does it, in the manifest's order. A `gid` of 0 counts as none. With `force` a group that is
//! there is fine, and a number that is taken is replaced by another.
//!
//! ```json
//! { "type": "org.osbuild.groups", "options": { "groups": { "app": { "gid": 1500 }, "other": {} } } }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::options::{Entries, required};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.groups",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("groupadd")],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"groups": {"-a": {}}}}"#,
        r#"{"options": {"groups": {"a": {"gid": "1"}}}}"#,
        r#"{"options": {"groups": [], "force": true}}"#,
        r#"{"options": {"groups": {}, "force": 1}}"#,
        r#"{"options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The groups, by name
    groups: Option<Entries<Name, Group>>,
    /// Whether a group may be there already
    #[serde(default)]
    force: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct Name(#[schemars(regex(pattern = "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
struct Group {
    /// Its number
    #[schemars(with = "Option<f64>")]
    gid: Option<Number>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { groups, force } = cx.options()?;
    let Entries(groups) = required(groups, "groups")?;
    let root = cx.tree.path_for_tools("/")?;
    for (Name(name), Group { gid }) in groups {
        let mut tool = cx.tool("groupadd")?.arg("--root").arg(&root);
        if let Some(gid) = gid.filter(|gid| gid.as_f64() != Some(0.0)) {
            tool = tool.args(["--gid", &gid.to_string()]);
        }
        if force {
            tool = tool.arg("--force");
        }
        tool.arg(name).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn create(options: Value) -> Option<Done> {
        if !has_root() || !has_tool("groupadd") {
            return None;
        }
        let case =
            Case::new(&MODULE).file("etc/group", "root:x:0:\nold:x:1000:\n").file("etc/gshadow", "root:*::\nold:*::\n");
        Some(case.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n").run(options))
    }

    #[test]
    fn groups_get_their_numbers_in_order() {
        let groups = json!({"z": {"gid": 1500}, "b": {}, "a": {"gid": 0}});
        let Some(done) = create(json!({ "groups": groups })) else { return };
        let text = "root:x:0:\nold:x:1000:\nz:x:1500:\nb:x:1501:\na:x:1502:\n";
        assert_eq!(done.ok().text("etc/group"), text);
    }

    #[test]
    fn a_group_that_is_there_is_an_error_unless_forced() {
        let Some(done) = create(json!({"groups": {"old": {}}})) else { return };
        assert!(done.err().contains("groupadd"), "{}", done.err());
        let Some(done) = create(json!({"groups": {"old": {}}, "force": true})) else { return };
        assert_eq!(done.ok().text("etc/group"), "root:x:0:\nold:x:1000:\n");
    }

    #[test]
    fn groups_must_be_given() {
        assert_eq!(Case::new(&MODULE).run(json!({})).err(), "the option `groups` is missing");
    }
}
