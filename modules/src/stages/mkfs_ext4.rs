//! Makes an ext4 file system on a device.
//!
//! Calls `mkfs.ext4` of the build root on the device `device`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.mkfs.ext4",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048, "size": 204800 } }
//!   },
//!   "options": { "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root", "orphan_file": false }
//! }
//! ```

use std::ffi::OsString;

use osbc_module_api::*;

use crate::disks::ext4;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkfs.ext4",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mkfs.ext4"), Requirement::File(ext4::CONFIGURATION)],
    schema: || Schema::stage::<Options>().devices(&["device"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"uuid": 123}}"#,
        r#"{"options": {"uuid": "u", "label": "12345678901234567"}}"#,
        r#"{"options": {"uuid": "u", "verity": "please"}}"#,
        r#"{"options": {"uuid": "u", "extra": 1}}"#,
        r#"{"options": {"uuid": "u"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Identifier of the volume
    uuid: String,
    /// Label of the file system
    #[schemars(length(max = 16))]
    label: Option<String>,
    /// Whether inode tables and journal are left to be initialized when the file system is first mounted
    lazy_init: Option<bool>,
    /// Whether the file system has fs-verity
    verity: Option<bool>,
    /// Whether the file system has an orphan file
    orphan_file: Option<bool>,
    /// Whether the seed of the metadata's checksums is kept apart from the UUID
    metadata_csum_seed: Option<bool>,
}

/// Returns the arguments of `mkfs.ext4` other than the device.
fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments = vec!["-U".to_owned(), options.uuid.clone()];
    if let Some(label) = options.label.as_deref().filter(|label| !label.is_empty()) {
        arguments.extend(["-L".to_owned(), label.to_owned()]);
    }
    if let Some(lazy) = options.lazy_init {
        let lazy = u8::from(lazy);
        for what in ["lazy_itable_init", "lazy_journal_init"] {
            arguments.extend(["-E".to_owned(), format!("{what}={lazy}")]);
        }
    }
    let features = [
        ("verity", options.verity),
        ("orphan_file", options.orphan_file),
        ("metadata_csum_seed", options.metadata_csum_seed),
    ];
    for (feature, wanted) in features {
        if let Some(wanted) = wanted {
            arguments.extend(["-O".to_owned(), format!("{}{feature}", if wanted { "" } else { "^" })]);
        }
    }
    arguments.into_iter().map(OsString::from).collect()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    cx.tool("mkfs.ext4")?.args(arguments(&options)).arg(&cx.device("device")?.path).run()
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
        assert_eq!(arguments_of(json!({"uuid": "u"})), ["-U", "u"]);
        assert_eq!(arguments_of(json!({"uuid": "u", "label": ""})), ["-U", "u"]);
    }

    #[test]
    fn label_initialization_and_features_keep_their_order() {
        let options = json!({
            "uuid": "u", "label": "root", "lazy_init": false,
            "metadata_csum_seed": true, "orphan_file": false, "verity": true,
        });
        let expected = [
            "-U",
            "u",
            "-L",
            "root",
            "-E",
            "lazy_itable_init=0",
            "-E",
            "lazy_journal_init=0",
            "-O",
            "verity",
            "-O",
            "^orphan_file",
            "-O",
            "metadata_csum_seed",
        ];
        assert_eq!(arguments_of(options), expected);
    }

    #[test]
    fn the_tool_makes_the_file_system() {
        if !has_tool("mkfs.ext4") || !has_tool("blkid") {
            return;
        }
        const UUID: &str = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75";
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(32 << 20).unwrap();
        let options = json!({"uuid": UUID, "label": "root", "lazy_init": false, "verity": true});
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("blkid").args(["-p", "-o", "export"]).arg(disk.path()).output().unwrap();
        let report = String::from_utf8(report.stdout).unwrap();
        for line in ["TYPE=ext4", "LABEL=root", &format!("UUID={UUID}")] {
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
