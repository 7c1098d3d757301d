//! Configures the Windows Subsystem for Linux.
//!
//! Changes `/etc/wsl.conf`, or creates it; comments and order stay. Without settings it does nothing.
//!
//! ```json
//! { "type": "org.osbuild.wsl.conf", "options": { "boot": { "systemd": true } } }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Document;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.wsl.conf",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"boot": {}}}"#,
        r#"{"options": {"boot": {"systemd": "true"}}}"#,
        r#"{"options": {"boot": {"systemd": true}, "network": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/wsl.conf";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Options {
    /// The section `[boot]`
    boot: Option<Boot>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Boot {
    /// Whether systemd is started
    #[serde(default)]
    systemd: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { boot: Some(Boot { systemd }) } = cx.options()? else { return Ok(()) };
    let mut file = Document::read_or_new(&cx.tree, FILE)?;
    file.ensure_section("boot");
    file.set("boot", "systemd", &systemd.to_string())?;
    cx.tree.write(FILE, file.text())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_file_is_changed_or_created() {
        let done = Case::new(&MODULE).dir("etc").run(json!({"boot": {"systemd": true}})).ok();
        assert_eq!(done.text(FILE), "[boot]\nsystemd = true");
        let case = Case::new(&MODULE).file(FILE, "[boot]\n# why\nSystemd=true\n[user]\ndefault=a\n");
        let done = case.run(json!({"boot": {"systemd": false}})).ok();
        assert_eq!(done.text(FILE), "[boot]\n# why\nSystemd=false\n[user]\ndefault=a\n");
        assert!(Case::new(&MODULE).run(json!({"boot": {"systemd": true}})).err().contains("No such file"));
    }
}
