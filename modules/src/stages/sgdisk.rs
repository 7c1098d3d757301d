//! Writes a GPT partition table to a device.
//!
//! Calls `sgdisk` of the build root on the device `device`; what was on it is erased. Sectors have 512 bytes. Without
//! `size` a partition reaches to the end of the free space, without `start` it begins with it. The names of partitions
//! get quotes around them, as old manifests expect it, unless `quote_partition_name` is false. The table as written is
//! printed to the stage's log.
//!
//! osbuild's module fails on `attrs`; here the bits are set.
//!
//! ```json
//! {
//!   "type": "org.osbuild.sgdisk",
//!   "devices": { "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } } },
//!   "options": {
//!     "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
//!     "quote_partition_name": false,
//!     "partitions": [
//!       { "name": "EFI", "start": 2048, "size": 4096, "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "attrs": [60] },
//!       { "name": "root", "start": 6144, "uuid": "6264D520-3FB9-423F-8AB8-7A0A8E3D3562" }
//!     ]
//!   }
//! }
//! ```

use std::collections::BTreeSet;

use osbc_module_api::*;

use crate::disks::partition_table::{Extent, misfit};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sgdisk",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("sgdisk")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"partitions": []}}"#,
        r#"{"options": {"uuid": "u", "label": "dos"}}"#,
        r#"{"options": {"uuid": "u", "partitions": [{"size": "1 MiB"}]}}"#,
        r#"{"options": {"uuid": "u", "partitions": [{"attrs": [64]}]}}"#,
        r#"{"options": {"uuid": "u", "quote_partition_name": "no"}}"#,
        r#"{"options": {"uuid": "u", "extra": 1}}"#,
        r#"{"options": {"uuid": "u"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Identifier of the partition table
    uuid: String,
    /// Whether the names of partitions are put in quotes
    #[serde(default = "yes")]
    quote_partition_name: bool,
    /// Kind of the partition table
    #[serde(rename = "label")]
    _label: Option<Label>,
    /// The partitions, in order
    partitions: Option<Vec<Partition>>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Label {
    Gpt,
}

/// A partition; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Partition {
    /// Whether the BIOS may boot from it
    #[serde(default)]
    bootable: bool,
    /// Its name
    name: Option<String>,
    /// Its number, starting at 1
    partnum: Option<i64>,
    /// Its size in sectors
    size: Option<i64>,
    /// Its first sector
    start: Option<i64>,
    /// Its type: a UUID or one of sgdisk's codes
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Its identifier
    uuid: Option<String>,
    /// The numbers of its attribute bits that are set
    #[serde(default)]
    #[schemars(length(max = 64), extend("uniqueItems" = true), inner(range(min = 0, max = 63)))]
    attrs: Vec<i64>,
}

/// The bit of a partition from which the BIOS may boot.
const LEGACY_BIOS_BOOTABLE: i64 = 2;

/// Returns the arguments of `sgdisk` other than the device.
fn arguments(options: &Options, partitions: &[Partition]) -> Vec<String> {
    let mut arguments = vec!["-g".to_owned()];
    if !options.uuid.is_empty() {
        arguments.extend(["-U".to_owned(), options.uuid.clone()]);
    }
    for (index, partition) in (1..).zip(partitions) {
        let number = partition.partnum.filter(|number| *number != 0).unwrap_or(index);
        let mut say = |option: &str, value: String| arguments.extend([option.to_owned(), format!("{number}:{value}")]);
        let size = partition.size.filter(|size| *size != 0).map_or_else(|| "0".to_owned(), |size| format!("+{size}"));
        say("-n", format!("{}:{size}", partition.start.unwrap_or(0)));
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(name) = given(&partition.name) {
            say("-c", if options.quote_partition_name { format!("\"{name}\"") } else { name });
        }
        if let Some(uuid) = given(&partition.uuid) {
            say("-u", uuid);
        }
        if let Some(kind) = given(&partition.kind) {
            say("-t", kind);
        }
        let bootable = partition.bootable.then_some(LEGACY_BIOS_BOOTABLE);
        let bits: BTreeSet<i64> = partition.attrs.iter().copied().chain(bootable).collect();
        for bit in bits {
            say("-A", format!("set:{bit}"));
        }
    }
    arguments
}

impl Partition {
    fn extent(&self) -> Extent<'_> {
        Extent { name: self.name.as_deref(), start: self.start, size: self.size }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let partitions = options.partitions.as_ref().ok_or_else(|| Error::failed("`partitions` must be given"))?;
    let device = &cx.device("device")?.path;
    cx.tool("sgdisk")?.arg("-Z").arg(device).args(arguments(&options, partitions)).run().map_err(
        |error| match error {
            Error::ToolFailed { .. } => misfit(device, partitions.iter().map(Partition::extent)).unwrap_or(error),
            error => error,
        },
    )?;
    cx.tool("sgdisk")?.arg("-p").arg(device).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    fn arguments_of(options: Value) -> String {
        let options = Options::deserialize(options).expect("valid options");
        arguments(&options, options.partitions.as_ref().expect("given")).join(" ")
    }

    #[test]
    fn partitions_are_described_one_after_the_other() {
        let options = json!({"uuid": "U", "partitions": [
            {"start": 2048, "size": 2048, "name": "a b", "type": "ef00", "uuid": "P", "bootable": true, "attrs": [60, 0]},
            {"partnum": 7, "start": 4096, "size": 0, "name": "", "note": "does not count"},
            {},
        ]});
        assert_eq!(
            arguments_of(options),
            "-g -U U -n 1:2048:+2048 -c 1:\"a b\" -u 1:P -t 1:ef00 -A 1:set:0 -A 1:set:2 -A 1:set:60 \
             -n 7:4096:0 -n 3:0:0"
        );
        let plain = json!({"uuid": "U", "quote_partition_name": false, "partitions": [{"start": 1, "name": "a"}]});
        assert_eq!(arguments_of(plain), "-g -U U -n 1:1:0 -c 1:a");
    }

    #[test]
    fn the_tool_writes_the_table() {
        if !has_tool("sgdisk") || !has_tool("sfdisk") {
            return;
        }
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(20 << 20).unwrap();
        let options = json!({
            "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "label": "gpt",
            "partitions": [{"start": 2048, "size": 2048, "name": "first", "bootable": true}, {"start": 4096}],
        });
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("sfdisk").arg("--json").arg(disk.path()).output().unwrap();
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        let table = &report["partitiontable"];
        assert_eq!(table["id"], "D209C89E-EA5E-4FBD-B161-B461CCE297E0");
        let (first, second) = (&table["partitions"][0], &table["partitions"][1]);
        assert_eq!((&first["start"], &first["size"]), (&json!(2048), &json!(2048)));
        assert_eq!((&first["name"], &first["attrs"]), (&json!("\"first\""), &json!("LegacyBIOSBootable")));
        assert_eq!(second["start"], 4096);
        assert!(second["size"].as_u64().unwrap() > 36000 - 4096);
    }

    #[test]
    fn partitions_are_wanted() {
        let done = Case::new(&MODULE).device("device", "/nowhere", json!({})).run(json!({"uuid": "u"}));
        assert_eq!(done.err(), "`partitions` must be given");
    }
}
