//! Partition tables as sfdisk(8) takes and reports them. Owns the script's syntax; knows nothing of what is in the
//! partitions.

use std::fmt::Write as _;
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
    /// Reads the table on `device`; `sfdisk` is the tool with what it shall be told besides.
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
    /// Writes the table to `device`; `sfdisk` is the tool with what it shall be told besides.
    ///
    /// # Errors
    /// A string cannot be said to sfdisk, or sfdisk refuses the table.
    pub(crate) fn write(&self, sfdisk: Tool, device: &Path) -> Result<(), Error> {
        let script = self.script(device)?;
        log(&script);
        sfdisk.arg("-q").arg(device).stdin(script).run()
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

impl Partition {
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
