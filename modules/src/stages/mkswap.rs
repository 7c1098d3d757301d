//! Makes a swap area on a device.
//!
//! Calls `mkswap` of the build root on the device `device`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.mkswap",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048, "size": 65536 } }
//!   },
//!   "options": { "uuid": "8a1cd9f6-3c2a-4b56-9f17-0d2a4c4e6f10", "label": "swap" }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkswap",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mkswap")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"uuid": 1}}"#,
        r#"{"options": {"uuid": "u", "label": "1234567890123"}}"#,
        r#"{"options": {"uuid": "u", "extra": 1}}"#,
        r#"{"options": {"uuid": "u"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Identifier of the swap area
    uuid: String,
    /// Label of the swap area
    #[schemars(length(max = 12))]
    label: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let mut tool = cx.tool("mkswap")?.args(["--uuid", &options.uuid]);
    if let Some(label) = options.label.as_deref().filter(|label| !label.is_empty()) {
        tool = tool.args(["--label", label]);
    }
    tool.arg(&cx.device("device")?.path).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_tool_makes_the_swap_area() {
        if !has_tool("mkswap") || !has_tool("blkid") {
            return;
        }
        const UUID: &str = "8a1cd9f6-3c2a-4b56-9f17-0d2a4c4e6f10";
        for (label, expected) in [("swap", "LABEL=swap"), ("", "VERSION=1")] {
            let disk = tempfile::NamedTempFile::new().unwrap();
            disk.as_file().set_len(2 << 20).unwrap();
            let options = json!({"uuid": UUID, "label": label});
            Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
            let report = Command::new("blkid").args(["-p", "-o", "export"]).arg(disk.path()).output().unwrap();
            let report = String::from_utf8(report.stdout).unwrap();
            for line in ["TYPE=swap", &format!("UUID={UUID}"), expected] {
                assert!(report.lines().any(|found| found == line), "{line} is not in {report}");
            }
            assert_eq!(report.contains("LABEL="), !label.is_empty());
        }
    }

    #[test]
    fn what_is_too_small_fails_with_the_tool() {
        if !has_tool("mkswap") {
            return;
        }
        let disk = tempfile::NamedTempFile::new().unwrap();
        let done = Case::new(&MODULE).device("device", disk.path(), json!({})).run(json!({"uuid": "not one"}));
        assert!(done.err().contains("mkswap --uuid not one"), "{}", done.err());
    }
}
