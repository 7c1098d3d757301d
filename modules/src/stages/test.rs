//! Makes the image run a script when it boots, report to the host, and power off.
//!
//! Writes the unit `osbuild-test.service`, whose output goes to the virtual serial port `/dev/vport0p1`, and enables it
//! for `multi-user.target`. `/etc/systemd/system/multi-user.target.wants` must be there.
//!
//! ```json
//! { "type": "org.osbuild.test", "options": { "script": "/usr/bin/self-test" } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.test",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"script": 1}}"#, r#"{"options": {"script": "a", "b": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Path in the image of a script that ends with 0 if the image booted well.
    script: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { script } = cx.options()?;
    let lines = [
        "",
        "[Unit]",
        "Description=Boot Test",
        "Wants=dev-vport0p1.device",
        "After=dev-vport0p1.device",
        "",
        "[Service]",
        "StandardOutput=file:/dev/vport0p1",
        &format!("ExecStart={script}"),
        "ExecStopPost=/usr/bin/systemctl poweroff",
        "",
    ];
    cx.tree.write("etc/systemd/system/osbuild-test.service", lines.join("\n"))?;
    cx.tree.symlink("../osbuild-test.service", "etc/systemd/system/multi-user.target.wants/osbuild-test.service")
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_unit_is_written_and_enabled() {
        let wants = "etc/systemd/system/multi-user.target.wants";
        let done = Case::new(&MODULE).dir(wants).run(json!({"script": "/bin/check"})).ok();
        let unit = done.text("etc/systemd/system/osbuild-test.service");
        assert!(unit.starts_with("\n[Unit]\nDescription=Boot Test\n"));
        assert!(unit.ends_with("\nExecStart=/bin/check\nExecStopPost=/usr/bin/systemctl poweroff\n"));
        assert_eq!(done.link(&format!("{wants}/osbuild-test.service")), "../osbuild-test.service");
    }

    #[test]
    fn the_directory_of_the_target_must_be_there() {
        let done = Case::new(&MODULE).dir("etc/systemd/system").run(json!({"script": "/bin/check"}));
        assert!(done.err().contains("multi-user.target.wants"));
    }
}
