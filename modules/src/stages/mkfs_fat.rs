//! Makes a FAT file system on a device.
//!
//! Calls `mkfs.fat` of the build root on the device `device`, with `-I` so that partitions which the device has had
//! do not count.
//!
//! ```json
//! {
//!   "type": "org.osbuild.mkfs.fat",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "start": 2048, "size": 204800 } }
//!   },
//!   "options": { "volid": "7b7795e7", "label": "EFI", "fat-size": 32, "geometry": { "heads": 255, "sectors-per-track": 63 } }
//! }
//! ```

use std::ffi::OsString;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkfs.fat",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mkfs.fat")],
    schema: || Schema::stage::<Options>().devices(&["device"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"volid": 1}}"#,
        r#"{"options": {"volid": "7b7795e7", "label": "123456789012"}}"#,
        r#"{"options": {"volid": "7b7795e7", "fat-size": 8}}"#,
        r#"{"options": {"volid": "7b7795e7", "geometry": {"heads": 255}}}"#,
        r#"{"options": {"volid": "7b7795e7", "extra": 1}}"#,
        r#"{"options": {"volid": "7b7795e7"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// Identifier of the volume: eight hexadecimal digits
    volid: String,
    /// Label of the file system
    #[schemars(length(max = 11))]
    label: Option<String>,
    /// Width of the file allocation table's entries in bits
    #[schemars(extend("enum" = [12, 16, 32]))]
    fat_size: Option<i64>,
    /// Geometry of the disk
    geometry: Option<Geometry>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Geometry {
    /// Number of heads
    heads: i64,
    /// Number of sectors per track
    sectors_per_track: i64,
}

/// Returns the arguments of `mkfs.fat` other than the device.
fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments = vec!["-I".to_owned(), "-i".to_owned(), options.volid.clone()];
    if let Some(label) = options.label.as_deref().filter(|label| !label.is_empty()) {
        arguments.extend(["-n".to_owned(), label.to_owned()]);
    }
    if let Some(bits) = options.fat_size {
        arguments.extend(["-F".to_owned(), bits.to_string()]);
    }
    if let Some(geometry) = &options.geometry {
        arguments.extend(["-g".to_owned(), format!("{}/{}", geometry.heads, geometry.sectors_per_track)]);
    }
    arguments.into_iter().map(OsString::from).collect()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    cx.tool("mkfs.fat")?.args(arguments(&options)).arg(&cx.device("device")?.path).run()
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
        assert_eq!(arguments_of(json!({"volid": "7b7795e7"})), ["-I", "-i", "7b7795e7"]);
        assert_eq!(arguments_of(json!({"volid": "7b7795e7", "label": ""})), ["-I", "-i", "7b7795e7"]);
    }

    #[test]
    fn label_size_and_geometry_follow_the_identifier() {
        let options = json!({
            "volid": "7b7795e7", "label": "EFI", "fat-size": 32, "geometry": {"heads": 255, "sectors-per-track": 63},
        });
        assert_eq!(arguments_of(options), ["-I", "-i", "7b7795e7", "-n", "EFI", "-F", "32", "-g", "255/63"]);
    }

    #[test]
    fn the_tool_makes_the_file_system() {
        if !has_tool("mkfs.fat") || !has_tool("blkid") {
            return;
        }
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(32 << 20).unwrap();
        let options = json!({"volid": "7b7795e7", "label": "EFI", "fat-size": 16});
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("blkid").args(["-p", "-o", "export"]).arg(disk.path()).output().unwrap();
        let report = String::from_utf8(report.stdout).unwrap();
        for line in ["TYPE=vfat", "LABEL_FATBOOT=EFI", "UUID=7B77-95E7"] {
            assert!(report.lines().any(|found| found == line), "{line} is not in {report}");
        }
    }

    #[test]
    fn a_device_is_wanted() {
        let done = Case::new(&MODULE).run(json!({"volid": "7b7795e7"}));
        assert!(
            done.err().contains("needs a device called `device`") || done.err().contains("is not in the build root")
        );
    }
}
