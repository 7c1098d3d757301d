//! Partition tables as sfdisk(8) takes and reports them. Owns the script's syntax; knows nothing of what is in the
//! partitions.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use osbc_module_api::*;

/// How many bytes a sector has, whatever the device says.
pub(crate) const SECTOR: u64 = 512;

/// A partition table to be written, or as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionTable {
    /// Its kind: `gpt`, `dos` or `mbr`.
    pub(crate) label: &'static str,
    /// Its identifier.
    pub(crate) id: String,
    /// Its partitions, in order.
    pub(crate) partitions: Vec<Partition>,
}

/// A partition. What is absent, sfdisk chooses; 0 and the empty string count as absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Partition {
    /// Its number, starting at 1.
    pub(crate) number: Option<i64>,
    /// Its first sector.
    pub(crate) start: Option<i64>,
    /// Its size in sectors.
    pub(crate) size: Option<i64>,
    /// Its type: a UUID or, in dos tables, a hexadecimal number.
    pub(crate) kind: Option<String>,
    /// Its name (gpt).
    pub(crate) name: Option<String>,
    /// Its identifier (gpt).
    pub(crate) uuid: Option<String>,
    /// The numbers of its attribute bits that are set (gpt).
    pub(crate) attributes: Vec<i64>,
    /// Whether the firmware boots from it (dos).
    pub(crate) bootable: bool,
}

/// What sfdisk reports of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Written {
    /// Its node, the device's with the number of the partition at the end.
    pub(crate) node: String,
    /// Its first sector.
    pub(crate) start: u64,
    /// Its size in sectors.
    pub(crate) size: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
}

/// A table as sfdisk reports it.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    /// How many bytes a sector has.
    #[serde(rename = "sectorsize", default = "sector")]
    pub(crate) sector_size: u64,
    /// Its partitions, in order.
    #[serde(default)]
    pub(crate) partitions: Vec<Written>,
}

fn sector() -> u64 {
    SECTOR
}

impl Report {
    /// Reads the table on `device`; `sfdisk` is the tool with its other arguments.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn of(sfdisk: Tool, device: &Path) -> Result<Self, Error> {
        Self::parse(&sfdisk.arg("--json").arg(device).output()?)
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Document {
            partitiontable: Report,
        }
        let document: Document = serde_json::from_slice(text)
            .map_err(|error| Error::failed(format!("cannot understand what sfdisk says about the table: {error}")))?;
        Ok(document.partitiontable)
    }

    /// The partition of that number, which its node ends in.
    pub(crate) fn numbered(&self, number: u64) -> Option<&Written> {
        let number = number.to_string();
        self.partitions.iter().find(|partition| {
            let name = partition.node.trim_end_matches(|letter: char| letter.is_ascii_digit());
            partition.node[name.len()..] == number
        })
    }
}

impl PartitionTable {
    /// Writes the table to `device`; `sfdisk` is the tool with its other arguments.
    ///
    /// # Errors
    /// A string cannot be said to sfdisk, or sfdisk refuses the table.
    pub(crate) fn write(&self, sfdisk: Tool, device: &Path) -> Result<(), Error> {
        let script = self.script(device)?;
        log(&script);
        sfdisk.arg("-q").arg(device).stdin(script).run().map_err(|error| match error {
            Error::ToolFailed { .. } => misfit(device, self.extents()).unwrap_or(error),
            error => error,
        })
    }

    fn extents(&self) -> impl Iterator<Item = Extent<'_>> {
        self.partitions.iter().map(Partition::extent)
    }

    /// What sfdisk has made of the partitions, in order.
    ///
    /// # Errors
    /// The table on `device` cannot be read, or has another number of partitions than this one.
    pub(crate) fn read_back(&self, sfdisk: Tool, device: &Path) -> Result<Vec<Written>, Error> {
        self.complete(Report::of(sfdisk, device)?)
    }

    fn complete(&self, report: Report) -> Result<Vec<Written>, Error> {
        let written = report.partitions;
        if written.len() != self.partitions.len() {
            return Err(Error::failed(format!(
                "the table has {} partitions instead of {}",
                written.len(),
                self.partitions.len()
            )));
        }
        Ok(written)
    }

    /// The table in sfdisk's language.
    fn script(&self, device: &Path) -> Result<String, Error> {
        let mut script = format!("label: {}\nlabel-id: {}", self.label, plain("identifier", &self.id)?);
        for partition in &self.partitions {
            script.push('\n');
            if let Some(number) = partition.number.filter(|number| *number != 0) {
                write!(script, "{}p{number}: ", device.display()).expect("a string grows");
            }
            script.push_str(&partition.fields()?.join(", "));
        }
        Ok(script)
    }
}

/// Where a partition is to lie, in sectors; what is not given, the tool chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent<'a> {
    /// Its name.
    pub(crate) name: Option<&'a str>,
    /// Its first sector.
    pub(crate) start: Option<i64>,
    /// Its size.
    pub(crate) size: Option<i64>,
}

/// Returns the failure that partitions lie beyond the end of `device` or in one another; `None` if they do not.
pub(crate) fn misfit<'a>(device: &Path, partitions: impl Iterator<Item = Extent<'a>>) -> Option<Error> {
    let end = File::open(device).and_then(|mut file| file.seek(SeekFrom::End(0))).ok()?;
    beyond(end / SECTOR, partitions).map(Error::failed)
}

/// Why partitions do not fit into so many sectors.
fn beyond<'a>(sectors: u64, partitions: impl Iterator<Item = Extent<'a>>) -> Option<String> {
    let mut before: Vec<(String, u64, u64)> = Vec::new();
    for (index, Extent { name, start, size }) in partitions.enumerate() {
        let name = name.filter(|name| !name.is_empty()).map(|name| format!(" (`{name}`)")).unwrap_or_default();
        let title = format!("partition {}{name}", index + 1);
        let given =
            |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        let start = given(start).unwrap_or_else(|| before.last().map_or(0, |(_, _, end)| *end));
        let end = start.saturating_add(given(size).unwrap_or(1));
        if end > sectors {
            let missing = end - sectors;
            return Some(format!(
                "{title} does not fit: it ends at sector {end}, and the disk has {sectors} sectors of {SECTOR} bytes, so that \
                 at least {missing} are missing; raise the `size` of the image, or make partitions smaller"
            ));
        }
        if let Some((other, ..)) = before.iter().find(|(_, other, other_end)| start < *other_end && *other < end) {
            return Some(format!("{title} overlaps {other}: it has the sectors {start} to {}", end - 1));
        }
        before.push((title, start, end));
    }
    None
}

impl Partition {
    fn extent(&self) -> Extent<'_> {
        Extent { name: self.name.as_deref(), start: self.start, size: self.size }
    }

    fn fields(&self) -> Result<Vec<String>, Error> {
        let mut fields = Vec::new();
        for (key, sectors) in [("start", self.start), ("size", self.size)] {
            if let Some(sectors) = sectors.filter(|sectors| *sectors != 0) {
                fields.push(format!("{key}=\"{sectors}\""));
            }
        }
        for (key, text) in [("type", &self.kind), ("name", &self.name), ("uuid", &self.uuid)] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                fields.push(format!("{key}=\"{}\"", plain(key, text)?));
            }
        }
        let attributes: Vec<String> = self.attributes.iter().filter_map(|bit| attribute(*bit)).collect();
        if !attributes.is_empty() {
            fields.push(format!("attrs=\"{}\"", attributes.join(",")));
        }
        if self.bootable {
            fields.push("bootable".to_owned());
        }
        if fields.is_empty() {
            // sfdisk takes no notice of an empty line; this is the default in words: as large as possible.
            fields.push("size=+".to_owned());
        }
        Ok(fields)
    }
}

/// sfdisk's word for an attribute bit; none for the bits that UEFI reserves.
fn attribute(bit: i64) -> Option<String> {
    match bit {
        0 => Some("RequiredPartition".to_owned()),
        1 => Some("NoBlockIOProtocol".to_owned()),
        2 => Some("LegacyBIOSBootable".to_owned()),
        48..=63 => Some(bit.to_string()),
        _ => None,
    }
}

/// Text that sfdisk's language can say, which knows no escapes.
fn plain<'a>(what: &str, text: &'a str) -> Result<&'a str, Error> {
    if text.contains(['"', '\n']) {
        return Err(Error::failed(format!("the partition table's {what} {text:?} holds a quote or a line break")));
    }
    Ok(text)
}

#[expect(clippy::print_stdout, reason = "a stage's output is its log")]
fn log(script: &str) {
    println!("{script}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(partitions: Vec<Partition>) -> PartitionTable {
        PartitionTable { label: "gpt", id: "D209C89E".to_owned(), partitions }
    }

    #[test]
    fn a_script_says_what_is_given_in_a_fixed_order() {
        let full = Partition {
            number: Some(3),
            start: Some(2048),
            size: Some(4096),
            kind: Some("83".to_owned()),
            name: Some("the root".to_owned()),
            uuid: Some("6264D520".to_owned()),
            attributes: vec![0, 1, 2, 5, 60],
            bootable: true,
        };
        let script = gpt(vec![Partition::default(), full]).script(Path::new("/dev/loop0")).expect("plain text");
        assert_eq!(
            script,
            "label: gpt\nlabel-id: D209C89E\nsize=+\n/dev/loop0p3: start=\"2048\", size=\"4096\", type=\"83\", \
             name=\"the root\", uuid=\"6264D520\", attrs=\"RequiredPartition,NoBlockIOProtocol,LegacyBIOSBootable,60\", \
             bootable"
        );
    }

    #[test]
    fn zero_and_empty_mean_that_sfdisk_chooses() {
        let partition = Partition {
            number: Some(0),
            start: Some(0),
            size: Some(0),
            name: Some(String::new()),
            attributes: vec![7],
            ..Partition::default()
        };
        assert_eq!(partition.fields().expect("plain text"), ["size=+"]);
    }

    #[test]
    fn no_string_breaks_out_of_its_quotes() {
        for name in ["a\" bootable", "a\nb"] {
            let partition = Partition { name: Some(name.to_owned()), ..Partition::default() };
            let error = gpt(vec![partition]).script(Path::new("x")).expect_err("it is refused");
            assert!(error.to_string().contains("holds a quote or a line break"), "{error}");
        }
    }

    #[test]
    fn partitions_that_do_not_fit_are_named() {
        let why = |sectors, extents: &[(i64, i64)]| {
            let extent =
                |(start, size): &(i64, i64)| Extent { name: Some("root"), start: Some(*start), size: Some(*size) };
            beyond(sectors, extents.iter().map(extent))
        };
        assert_eq!(why(32_768, &[(2048, 4096), (6144, 4096)]), None);
        let said = why(32_768, &[(2048, 204_800)]).expect("it is too large");
        assert!(said.contains("partition 1 (`root`) does not fit") && said.contains("174080 are missing"), "{said}");
        let said = why(131_072, &[(2048, 20_480), (4096, 20_480)]).expect("they overlap");
        assert_eq!(said, "partition 2 (`root`) overlaps partition 1 (`root`): it has the sectors 4096 to 24575");
    }

    #[test]
    fn a_report_gives_what_sfdisk_chose() {
        let report = br#"{"partitiontable": {"label": "dos", "sectorsize": 512, "partitions": [
            {"node": "x1", "start": 2048, "size": 18432, "type": "83", "bootable": true}]}}"#;
        let table = gpt(vec![Partition::default()]);
        let parsed = || Report::parse(report).expect("a report");
        let written = table.complete(parsed()).expect("one partition");
        let kind = Some("83".to_owned());
        assert_eq!(written, [Written { node: "x1".to_owned(), start: 2048, size: 18432, kind }]);
        assert!(gpt(Vec::new()).complete(parsed()).is_err());
    }

    #[test]
    fn partitions_are_found_by_their_numbers() {
        let table = br#"{"partitiontable": {"sectorsize": 512, "partitions": [
            {"node": "metal1", "start": 34, "size": 2}, {"node": "metal14", "start": 40, "size": 4}]}}"#;
        let table = Report::parse(table).expect("a report");
        let found = table.numbered(14).expect("it is there");
        assert_eq!((table.sector_size, found.start, found.size), (512, 40, 4));
        assert_eq!(table.numbered(4), None);
        assert!(Report::parse(b"").is_err());
    }
}
