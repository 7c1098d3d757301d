//! Enables, disables and masks units of systemd, and sets the default target.
//!
//! `systemctl` of the build root does it. Generators are masked by links to `/dev/null`.
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

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd",
    revision: 1,
    capabilities: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"enabled_services": "sshd"}}"#,
        r#"{"options": {"disabled_services": [1]}}"#,
        r#"{"options": {"default_target": ["a"]}}"#,
        r#"{"options": {"other": []}}"#,
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
}

const GENERATORS: &str = "etc/systemd/system-generators";

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let systemctl = |verb: &str, arguments: &[&str]| -> Result<(), Error> {
        let root = cx.tree.path_for_tools("/")?;
        cx.tool("systemctl")?.arg("--root").arg(root).arg(verb).args(arguments).run()
    };
    let Options { enabled_services, disabled_services, masked_services, .. } = &options;
    for (verb, units) in [("enable", enabled_services), ("disable", disabled_services), ("mask", masked_services)] {
        for unit in units {
            systemctl(verb, &["--", unit])?;
        }
    }
    if !options.masked_generators.is_empty() {
        cx.tree.create_dir_all(GENERATORS, 0o777)?;
        for generator in &options.masked_generators {
            cx.tree.symlink("/dev/null", format!("{GENERATORS}/{generator}"))?;
        }
    }
    if options.default_target.is_empty() { Ok(()) } else { systemctl("set-default", &[&options.default_target]) }
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

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
