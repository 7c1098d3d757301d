//! Enables, disables and masks units of systemd, and sets the default target.
//!
//! `systemctl` of the build root does it. Generators are masked by links to `/dev/null`. Beyond osbuild's there is `tools`:
//! `tree` takes the tree's own `systemctl`, so that the build root needs none and what comes out does not hang on it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd",
//!   "options": {
//!     "enabled_services": ["sshd"],
//!     "disabled_services": ["bluetooth"],
//!     "masked_services": ["systemd-networkd"],
//!     "default_target": "multi-user.target"
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::trees::rooted::Tools;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("systemctl"), Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"enabled_services": "sshd"}}"#,
        r#"{"options": {"disabled_services": [1]}}"#,
        r#"{"options": {"default_target": ["a"]}}"#,
        r#"{"options": {"other": []}}"#,
        r#"{"options": {"tools": "host"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Units that start by themselves
    #[serde(default)]
    enabled_services: Vec<String>,
    /// Units that do not
    #[serde(default)]
    disabled_services: Vec<String>,
    /// Units that cannot be started at all
    #[serde(default)]
    masked_services: Vec<String>,
    /// Generators that are not run
    #[serde(default)]
    masked_generators: Vec<String>,
    /// What the system starts to
    #[serde(default)]
    default_target: String,
    /// Whose `systemctl` does it
    #[serde(default)]
    tools: Tools,
}

const GENERATORS: &str = "etc/systemd/system-generators";

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let systemctl = |arguments: &[&str]| options.tools.run(cx, "systemctl", arguments);
    let Options { enabled_services, disabled_services, masked_services, .. } = &options;
    for (verb, units) in [("enable", enabled_services), ("disable", disabled_services), ("mask", masked_services)] {
        for unit in units {
            systemctl(&[verb, "--", unit])?;
        }
    }
    if !options.masked_generators.is_empty() {
        cx.tree.create_dir_all(GENERATORS, 0o777)?;
        for generator in &options.masked_generators {
            cx.tree.symlink("/dev/null", format!("{GENERATORS}/{generator}"))?;
        }
    }
    if options.default_target.is_empty() { Ok(()) } else { systemctl(&["set-default", &options.default_target]) }
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    fn case() -> Case {
        let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
        let units = "usr/lib/systemd/system";
        Case::new(&MODULE)
            .file(&format!("{units}/a.service"), unit)
            .file(&format!("{units}/b.service"), unit)
            .file(&format!("{units}/multi-user.target"), "[Unit]\n")
            .link("etc/systemd/system/multi-user.target.wants/b.service", "/usr/lib/systemd/system/b.service")
    }

    #[test]
    fn units_are_enabled_disabled_and_masked() {
        if !has_tool("systemctl") {
            return;
        }
        let done = case().run(json!({
            "enabled_services": ["a"],
            "disabled_services": ["b.service"],
            "masked_services": ["b"],
            "default_target": "multi-user.target",
        }));
        let done = done.ok();
        assert_eq!(done.tree.read_dir("etc/systemd/system/multi-user.target.wants").unwrap(), ["a.service"]);
        assert_eq!(done.link("etc/systemd/system/b.service"), "/dev/null");
        assert!(done.link("etc/systemd/system/default.target").ends_with("/usr/lib/systemd/system/multi-user.target"));
    }

    #[test]
    fn the_trees_own_tool_is_taken_where_that_is_wanted() {
        let script = "echo \"$0 $*\" >>/etc/said";
        let Some(case) = with_script(&MODULE, "usr/bin/systemctl", script) else { return };
        let done = case.run(json!({"enabled_services": ["a"], "default_target": "b.target", "tools": "tree"})).ok();
        let tool = "/usr/bin/systemctl --root /";
        assert_eq!(done.text("etc/said"), format!("{tool} enable -- a\n{tool} set-default b.target\n"));
        let done = Case::new(&MODULE).dir("usr/bin").run(json!({"enabled_services": ["a"], "tools": "tree"}));
        assert!(done.err().contains("systemctl"), "{}", done.err());
    }

    #[test]
    fn an_unknown_unit_is_an_error() {
        if !has_tool("systemctl") {
            return;
        }
        let done = case().run(json!({"enabled_services": ["missing"]}));
        assert!(done.err().contains("enable -- missing"), "{}", done.err());
    }

    #[test]
    fn generators_are_masked_once() {
        let done = case().run(json!({"masked_generators": ["gen"]})).ok();
        assert_eq!(done.link("etc/systemd/system-generators/gen"), "/dev/null");
        let done = case().run(json!({"masked_generators": ["gen", "gen"]}));
        assert!(done.err().contains("File exists"));
    }
}
