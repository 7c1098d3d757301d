//! Writes a partition table to a device.
//!
//! Calls `sfdisk` of the build root on the device `device`. Sectors have 512 bytes; what a partition leaves out, sfdisk
//! chooses. The table as written is printed to the stage's log.
//!
//! ```json
//! {
//!   "type": "org.osbuild.sfdisk",
//!   "devices": {
//!     "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } }
//!   },
//!   "options": {
//!     "label": "gpt",
//!     "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
//!     "partitions": [
//!       { "size": 2048, "start": 2048, "type": "21686148-6449-6E6F-744E-656564454649", "attrs": [2, 60] },
//!       { "start": 4096, "name": "root", "uuid": "6264D520-3FB9-423F-8AB8-7A0A8E3D3562" }
//!     ]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::partition_table::{Partition, PartitionTable};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sfdisk",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("sfdisk")],
    schema: || Schema::stage::<Options>().devices(&["device"]).done(),
    rejects: &[
        r#"{"options": {"label": "gpt"}}"#,
        r#"{"options": {"label": "bsd", "uuid": "u"}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u", "extra": 1}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u", "partitions": [{"size": "1 MiB"}]}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u", "partitions": [{"attrs": [64]}]}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u", "partitions": [{"attrs": [2, 2]}]}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Identifier of the partition table
    uuid: String,
    /// Kind of the partition table
    label: Label,
    /// The partitions, in order
    #[serde(default)]
    partitions: Vec<Described>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Label {
    Mbr,
    Dos,
    Gpt,
}

/// A partition; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Described {
    /// Whether the firmware boots from it (dos)
    #[serde(default)]
    bootable: bool,
    /// Its name (gpt)
    name: Option<String>,
    /// Its number, starting at 1
    partnum: Option<i64>,
    /// Its size in sectors
    size: Option<i64>,
    /// Its first sector
    start: Option<i64>,
    /// Its type: a UUID or, in dos tables, a hexadecimal number
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Its identifier (gpt)
    uuid: Option<String>,
    /// The numbers of its attribute bits that are set (gpt)
    #[serde(default)]
    #[schemars(length(max = 64), extend("uniqueItems" = true), inner(range(min = 0, max = 63)))]
    attrs: Vec<i64>,
}

impl From<Described> for Partition {
    fn from(described: Described) -> Self {
        Partition {
            number: described.partnum,
            start: described.start,
            size: described.size,
            kind: described.kind,
            name: described.name,
            uuid: described.uuid,
            attributes: described.attrs,
            bootable: described.bootable,
        }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let label = match options.label {
        Label::Mbr => "mbr",
        Label::Dos => "dos",
        Label::Gpt => "gpt",
    };
    let partitions = options.partitions.into_iter().map(Partition::from).collect();
    let table = PartitionTable { label, id: options.uuid, partitions };
    let device = &cx.device("device")?.path;
    table.write(cx.tool("sfdisk")?.arg("--no-tell-kernel"), device)?;
    table.read_back(cx.tool("sfdisk")?, device)?;
    cx.tool("sfdisk")?.arg("--json").arg(device).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    /// The table that a disk of 20 MiB has after the stage.
    fn table(options: Value) -> Value {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(20 << 20).unwrap();
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("sfdisk").arg("--json").arg(disk.path()).output().unwrap();
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        report["partitiontable"].clone()
    }

    #[test]
    fn gpt_tables_are_written_as_given() {
        if !has_tool("sfdisk") {
            return;
        }
        let table = table(json!({
            "label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
            "partitions": [
                {"size": 2048, "start": 2048, "type": "21686148-6449-6E6F-744E-656564454649", "attrs": [2, 60]},
                {"partnum": 5, "name": "the root", "uuid": "6264D520-3FB9-423F-8AB8-7A0A8E3D3562"},
            ],
        }));
        assert_eq!(table["id"], "D209C89E-EA5E-4FBD-B161-B461CCE297E0");
        let (first, second) = (&table["partitions"][0], &table["partitions"][1]);
        assert_eq!((&first["start"], &first["size"]), (&json!(2048), &json!(2048)));
        assert_eq!(first["attrs"], "LegacyBIOSBootable GUID:60");
        assert_eq!((&second["start"], &second["name"]), (&json!(4096), &json!("the root")));
        assert!(second["node"].as_str().unwrap().ends_with('5'));
    }

    #[test]
    fn dos_tables_are_written_as_given_and_a_partition_without_properties_takes_the_rest() {
        if !has_tool("sfdisk") {
            return;
        }
        let table = table(json!({
            "label": "mbr", "uuid": "0x14fc63d2",
            "partitions": [{"size": 2048, "type": "41", "bootable": true, "note": "does not count"}, {}],
        }));
        assert_eq!((&table["label"], &table["id"]), (&json!("dos"), &json!("0x14fc63d2")));
        let (first, second) = (&table["partitions"][0], &table["partitions"][1]);
        assert_eq!((&first["type"], &first["bootable"]), (&json!("41"), &json!(true)));
        assert_eq!((&second["start"], &second["size"]), (&json!(4096), &json!(40960 - 4096)));
    }

    #[test]
    fn a_table_without_partitions_is_a_table() {
        if has_tool("sfdisk") {
            let table = table(json!({"label": "dos", "uuid": "0x14fc63d2"}));
            assert_eq!((&table["label"], table.get("partitions")), (&json!("dos"), None));
        }
    }
}
