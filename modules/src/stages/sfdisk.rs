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

use crate::partition_table::{Partition, PartitionTable};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sfdisk",
    revision: 1,
    capabilities: &[],
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
