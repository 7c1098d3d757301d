//! Makes an XFS file system on a device.
//!
//! Calls `mkfs.xfs` of the build root on the device `device`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.mkfs.xfs",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048, "size": 819200 } }
//!   },
//!   "options": { "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root" }
//! }
//! ```

use std::ffi::OsString;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkfs.xfs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mkfs.xfs")],
    schema: || Schema::stage::<Options>().devices(&["device"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"uuid": 123}}"#,
        r#"{"options": {"uuid": "u", "label": "1234567890123"}}"#,
        r#"{"options": {"uuid": "u", "agcount": "4"}}"#,
        r#"{"options": {"uuid": "u", "extra": 1}}"#,
        r#"{"options": {"uuid": "u"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Identifier of the file system
    uuid: String,
    /// Label of the file system
    #[schemars(length(max = 12))]
    label: Option<String>,
    /// Number of allocation groups; 0 leaves it to the tool
    agcount: Option<i64>,
}

/// Returns the arguments of `mkfs.xfs` other than the device.
fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments = vec!["-m".to_owned(), format!("uuid={}", options.uuid)];
    if let Some(label) = options.label.as_deref().filter(|label| !label.is_empty()) {
        arguments.extend(["-L".to_owned(), label.to_owned()]);
    }
    if let Some(count) = options.agcount.filter(|count| *count != 0) {
        arguments.extend(["-d".to_owned(), format!("agcount={count}")]);
    }
    arguments.into_iter().map(OsString::from).collect()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    cx.tool("mkfs.xfs")?.args(arguments(&options)).arg(&cx.device("device")?.path).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    fn arguments_of(options: Value) -> Vec<OsString> {
        arguments(&Options::deserialize(options).expect("valid options"))
    }

    #[test]
    fn only_what_is_given_is_said() {
        assert_eq!(arguments_of(json!({"uuid": "u"})), ["-m", "uuid=u"]);
        assert_eq!(arguments_of(json!({"uuid": "u", "label": "", "agcount": 0})), ["-m", "uuid=u"]);
    }

    #[test]
    fn label_and_groups_follow_the_identifier() {
        let options = json!({"uuid": "u", "label": "data", "agcount": 8});
        assert_eq!(arguments_of(options), ["-m", "uuid=u", "-L", "data", "-d", "agcount=8"]);
    }

    #[test]
    fn the_tool_makes_the_file_system() {
        if !has_tool("mkfs.xfs") || !has_tool("blkid") {
            return;
        }
        const UUID: &str = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75";
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(320 << 20).unwrap();
        let options = json!({"uuid": UUID, "label": "root"});
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("blkid").args(["-p", "-o", "export"]).arg(disk.path()).output().unwrap();
        let report = String::from_utf8(report.stdout).unwrap();
        for line in ["TYPE=xfs", "LABEL=root", &format!("UUID={UUID}")] {
            assert!(report.lines().any(|found| found == line), "{line} is not in {report}");
        }
    }

    #[test]
    fn a_device_is_wanted() {
        let done = Case::new(&MODULE).run(json!({"uuid": "7b7795e7"}));
        assert!(
            done.err().contains("needs a device called `device`") || done.err().contains("is not in the build root")
        );
    }
}
