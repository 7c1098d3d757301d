//! Writes a GPT partition table to a device.
//!
//! Calls `parted` of the build root on the device `device`. Sectors have 512 bytes. Every partition needs `start`,
//! `size` and `name`; osbuild's schema lets them be left out, and its module then fails or calls the partition `None`.
//! `type` is one of parted's flags, such as `esp`. The tool chooses the identifiers at random. The table as written is
//! printed to the stage's log.
//!
//! ```json
//! {
//!   "type": "org.osbuild.parted",
//!   "devices": { "device": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } } },
//!   "options": {
//!     "label": "gpt",
//!     "partitions": [
//!       { "name": "EFI", "start": 2048, "size": 4096, "type": "esp" },
//!       { "name": "root", "start": 6144, "size": 8192, "bootable": true }
//!     ]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::partition_table::{Extent, misfit};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.parted",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("parted")],
    schema: || Schema::stage::<Options>().devices(&["device"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"partitions": []}}"#,
        r#"{"options": {"label": "dos"}}"#,
        r#"{"options": {"label": "gpt", "partitions": [{"size": "1 MiB"}]}}"#,
        r#"{"options": {"label": "gpt", "partitions": ["root"]}}"#,
        r#"{"options": {"label": "gpt", "uuid": "u"}}"#,
        r#"{"options": {"label": "gpt"}, "devices": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Kind of the partition table
    #[serde(rename = "label")]
    _label: Label,
    /// The partitions, in order
    partitions: Option<Vec<Partition>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Label {
    Gpt,
}

/// A partition; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Partition {
    /// Whether it is marked as the one to boot from
    #[serde(default)]
    bootable: bool,
    /// Its name
    name: Option<String>,
    /// Its size in sectors
    size: Option<i64>,
    /// Its first sector
    start: Option<i64>,
    /// The flag that says its type
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Returns the commands for `parted`.
fn commands(partitions: &[Partition]) -> Result<Vec<String>, Error> {
    let mut commands = ["unit", "s", "mklabel", "gpt"].map(str::to_owned).to_vec();
    for (number, partition) in (1..).zip(partitions) {
        let (Some(name), Some(start), Some(size)) = (&partition.name, partition.start, partition.size) else {
            return Err(Error::failed(format!("partition {number} needs `name`, `start` and `size`")));
        };
        let end = start.checked_add(size).and_then(|end| end.checked_sub(1));
        let end = end.ok_or_else(|| Error::failed(format!("partition {number} ends beyond any disk")))?;
        commands.extend(["mkpart".to_owned(), format!("\"{name}\""), start.to_string(), end.to_string()]);
        let kind = partition.kind.as_deref().filter(|kind| !kind.is_empty());
        for flag in partition.bootable.then_some("boot").into_iter().chain(kind) {
            commands.extend(["set".to_owned(), number.to_string(), flag.to_owned(), "on".to_owned()]);
        }
    }
    Ok(commands)
}

impl Partition {
    fn extent(&self) -> Extent<'_> {
        Extent { name: self.name.as_deref(), start: self.start, size: self.size }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let partitions = options.partitions.ok_or_else(|| Error::failed("`partitions` must be given"))?;
    let commands = commands(&partitions)?;
    let device = &cx.device("device")?.path;
    let tool = || Ok(cx.tool("parted")?.args(["-a", "none", "-s"]).arg(device).arg("--"));
    tool()?.args(commands).run().map_err(|error| match error {
        Error::ToolFailed { .. } => misfit(device, partitions.iter().map(Partition::extent)).unwrap_or(error),
        error => error,
    })?;
    tool()?.arg("print").run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_tool_writes_the_table() {
        if !has_tool("parted") || !has_tool("sfdisk") {
            return;
        }
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(20 << 20).unwrap();
        let options = json!({"label": "gpt", "partitions": [
            {"name": "a b", "start": 2048, "size": 2048, "type": "bios_grub"},
            {"name": "root", "start": 4096, "size": 4097, "bootable": true, "note": "does not count"},
        ]});
        Case::new(&MODULE).device("device", disk.path(), json!({})).run(options).ok();
        let report = Command::new("sfdisk").arg("--json").arg(disk.path()).output().unwrap();
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        let table = &report["partitiontable"];
        assert_eq!(table["label"], "gpt");
        let (first, second) = (&table["partitions"][0], &table["partitions"][1]);
        assert_eq!((&first["start"], &first["size"]), (&json!(2048), &json!(2048)));
        assert_eq!((&first["name"], &first["type"]), (&json!("a b"), &json!("21686148-6449-6E6F-744E-656564454649")));
        assert_eq!((&second["start"], &second["size"]), (&json!(4096), &json!(4097)));
        assert_eq!(second["type"], "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
    }

    #[test]
    fn what_a_partition_needs_is_asked_for() {
        let refused = |options| Case::new(&MODULE).device("device", "/nowhere", json!({})).run(options).err();
        assert_eq!(refused(json!({"label": "gpt"})), "`partitions` must be given");
        let unnamed = json!({"label": "gpt", "partitions": [{"start": 2048, "size": 1}]});
        assert_eq!(refused(unnamed), "partition 1 needs `name`, `start` and `size`");
        let endless = json!({"label": "gpt", "partitions": [{"start": i64::MAX, "size": 2, "name": "a"}]});
        assert_eq!(refused(endless), "partition 1 ends beyond any disk");
    }
}
