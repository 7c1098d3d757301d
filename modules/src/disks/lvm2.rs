//! The metadata of LVM on a device: where it lies, what it says, and how it is changed without the kernel.
//!
//! A label in one of the first sectors leads to the header of the physical volume, that to areas of metadata, and the
//! header of each area to the text. Layouts are those of LVM's `format-text.c` and `layout.h`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use osbc_module_api::Error;
use regex::Regex;

const SECTOR: u64 = 512;
/// In which sectors a label may be.
const LABEL_SECTORS: u64 = 4;
const LABEL: &[u8] = b"LABELONE";
/// How large the header of a physical volume is before its lists.
const VOLUME_HEADER: u64 = 32 + 8;
/// How large the header of an area is with its list, and how large before it.
const AREA_HEADER: usize = 512;
const AREA_LIST: usize = 40;

/// The longest of the lists of a physical volume; LVM writes an area or two into each.
const MAX_PLACES: usize = 32;
/// The largest metadata that are read, in bytes; LVM's areas for them have a megabyte unless asked for more.
const MAX_TEXT: u64 = 16 << 20;
/// How deep sections may lie in each other; LVM's own are four deep.
const MAX_DEPTH: usize = 16;

/// A device with a physical volume.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    areas: Vec<Area>,
    /// What the metadata says.
    pub(crate) metadata: Metadata,
}

/// An area of metadata.
#[derive(Debug)]
struct Area {
    header: Vec<u8>,
    start: u64,
    size: u64,
}

impl Disk {
    /// Opens a device and reads its metadata.
    ///
    /// # Errors
    /// It has no physical volume with metadata, or cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).open(path).map_err(Error::io("open", path))?;
        let read = |offset: u64, length: usize| -> Result<Vec<u8>, Error> {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map_err(Error::io("read", path))?;
            Ok(bytes)
        };
        let none = |what: &str| Error::failed(format!("{} has no {what} of LVM", path.display()));
        let length = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(Error::io("read", path))?;
        let mut label = None;
        for sector in (0..LABEL_SECTORS).take_while(|sector| (sector + 1) * SECTOR <= length) {
            label = Some(read(sector * SECTOR, 32)?).filter(|bytes| bytes.starts_with(LABEL));
            if label.is_some() {
                break;
            }
        }
        let label = label.ok_or_else(|| none("label"))?;
        let mut place =
            number(&label, 8, 8).saturating_mul(SECTOR).saturating_add(number(&label, 20, 4) + VOLUME_HEADER);
        // Two lists of places, each ended by an empty one: of data, then of metadata.
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            while place.saturating_add(16) <= length {
                if list.len() == MAX_PLACES {
                    return Err(none("metadata"));
                }
                let entry = read(place, 16)?;
                place += 16;
                match number(&entry, 0, 8) {
                    0 => break,
                    offset => list.push(offset),
                }
            }
        }
        let [_, places] = lists;
        let mut areas = Vec::new();
        for place in places {
            let header = read(place, AREA_HEADER)?;
            let (start, size) = (number(&header, 24, 8), number(&header, 32, 8));
            if start.checked_add(size).is_none_or(|end| end > length) {
                return Err(none("metadata"));
            }
            areas.push(Area { header, start, size });
        }
        let first = areas.first().ok_or_else(|| none("metadata"))?;
        let (offset, size) = (number(&first.header, AREA_LIST, 8), number(&first.header, AREA_LIST + 8, 8));
        if offset < AREA_HEADER as u64 || offset.saturating_add(size) > first.size {
            return Err(none("metadata"));
        }
        if size > MAX_TEXT {
            let reason = format!("the metadata of LVM have {size} bytes; more than {MAX_TEXT} are not read");
            return Err(Error::failed(reason));
        }
        let text = read(first.start + offset, usize::try_from(size).map_err(|_| none("metadata"))?)?;
        let text = String::from_utf8(text).map_err(|_| Error::failed("the metadata of LVM is no text"))?;
        let metadata = Metadata::parse(&text)?;
        Ok(Self { file, areas, metadata })
    }

    /// Writes the metadata to all areas.
    ///
    /// # Errors
    /// It is too large for one, or the device cannot be written.
    pub(crate) fn write(mut self) -> Result<(), Error> {
        let text = self.metadata.text();
        let size = text.len() as u64;
        for area in &mut self.areas {
            let offset = number(&area.header, AREA_LIST, 8);
            if offset.saturating_add(size) > area.size {
                return Err(Error::failed(format!("the metadata of LVM is too large: {size} bytes")));
            }
            area.header[AREA_LIST + 8..AREA_LIST + 16].copy_from_slice(&size.to_le_bytes());
            area.header[AREA_LIST + 16..AREA_LIST + 20].copy_from_slice(&checksum(text.as_bytes()).to_le_bytes());
            // Nothing of what follows the list counts.
            let end = list_end(&area.header);
            area.header[end..].fill(0);
            let sum = checksum(&area.header[4..]);
            area.header[..4].copy_from_slice(&sum.to_le_bytes());
            let written = self.file.write_all_at(text.as_bytes(), area.start + offset);
            let written = written.and_then(|()| self.file.write_all_at(&area.header, area.start));
            written.map_err(Error::io("write", "the metadata of LVM"))?;
        }
        Ok(())
    }
}

/// Where the list of an area's header ends.
fn list_end(header: &[u8]) -> usize {
    (AREA_LIST..AREA_HEADER - 24).step_by(24).find(|place| number(header, *place, 8) == 0).unwrap_or(AREA_HEADER)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// CRC-32 with LVM's first value, and nothing inverted.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// What the metadata of a volume group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    group: String,
    entries: Vec<(String, Item)>,
}

/// A value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A number.
    Number(i128),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Item>),
    /// A section.
    Section(Vec<(String, Item)>),
}

impl Metadata {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let comments = Regex::new("#.*\n").expect("a valid expression");
        let text = comments.replace_all(text, "").replace('[', "[ ").replace(']', " ]").replace('"', " \" ");
        let text = text.replace(['=', ','], "");
        let mut words = text.trim_end_matches('\0').split_whitespace();
        let group = words.clone().next().ok_or_else(|| wrong("nothing"))?.to_owned();
        let entries = section(&mut words, 0)?;
        Ok(Self { group, entries })
    }

    /// Renames the volume group, whose section comes first.
    pub(crate) fn rename_group(&mut self, name: &str) {
        let index = self.entries.iter().position(|(key, _)| *key == self.group);
        let group = index.map(|index| self.entries.remove(index).1).unwrap_or(Item::Section(Vec::new()));
        self.entries.retain(|(key, _)| key != name);
        self.entries.insert(0, (name.to_owned(), group));
        self.group = name.to_owned();
    }

    /// Sets a value beside the group's section.
    pub(crate) fn set(&mut self, key: &str, value: Item) {
        match self.entries.iter_mut().find(|(there, _)| there == key) {
            Some((_, there)) => *there = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// The text as it lies on the device.
    pub(crate) fn text(&self) -> String {
        section_text(&self.entries) + "\0"
    }
}

fn wrong(word: &str) -> Error {
    Error::failed(format!("the metadata of LVM has `{word}` where a value belongs"))
}

type Words<'a> = std::str::SplitWhitespace<'a>;

fn section(words: &mut Words<'_>, depth: usize) -> Result<Vec<(String, Item)>, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::failed(format!("the metadata of LVM have sections more than {MAX_DEPTH} deep")));
    }
    let mut entries: Vec<(String, Item)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    while let Some(key) = words.next().filter(|word| *word != "}") {
        let item = match words.next() {
            Some("{") => Item::Section(section(words, depth + 1)?),
            Some("[") => {
                let mut items = Vec::new();
                loop {
                    match words.next() {
                        Some("]") => break,
                        word => items.push(simple(word, words)?),
                    }
                }
                Item::List(items)
            }
            word => simple(word, words)?,
        };
        // Said again, a key keeps its place.
        match places.get(key) {
            Some(place) => entries[*place].1 = item,
            None => {
                places.insert(key, entries.len());
                entries.push((key.to_owned(), item));
            }
        }
    }
    Ok(entries)
}

fn simple(word: Option<&str>, words: &mut Words<'_>) -> Result<Item, Error> {
    match word {
        Some("\"") => {
            let mut text = Vec::new();
            loop {
                match words.next() {
                    Some("\"") => return Ok(Item::Text(text.join(" "))),
                    Some(word) => text.push(word),
                    None => return Err(wrong("no end of a text")),
                }
            }
        }
        Some(word) => word.parse().map(Item::Number).map_err(|_| wrong(word)),
        None => Err(wrong("nothing")),
    }
}

fn section_text(entries: &[(String, Item)]) -> String {
    let entry = |(key, item): &(String, Item)| match item {
        Item::Section(_) => format!("{key} {}\n", item.text()),
        item => format!("{key} = {}\n", item.text()),
    };
    entries.iter().map(entry).collect()
}

impl Item {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("\"{text}\""),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Item::text).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Section(entries) => format!("{{\n{}}}\n", section_text(entries)),
        }
    }
}

/// A small device with this metadata, for the tests.
#[cfg(test)]
pub(crate) fn test_disk(text: &str) -> tempfile::NamedTempFile {
    let (area, size) = (1024_u64, 2048_u64);
    let mut disk = vec![0_u8; 4096];
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(512, b"LABELONE");
    put(520, &1_u64.to_le_bytes());
    put(532, &32_u32.to_le_bytes());
    put(536, b"LVM2 001");
    let lists = 512 + 32 + 40;
    for (index, value) in [3072_u64, 0, 0, 0, area, size].into_iter().enumerate() {
        put(lists + index * 8, &value.to_le_bytes());
    }
    let header = usize::try_from(area).unwrap();
    put(header + 4, b" LVM2 x[5A%r0N*>");
    put(header + 20, &1_u32.to_le_bytes());
    put(header + 24, &area.to_le_bytes());
    put(header + 32, &size.to_le_bytes());
    put(header + 40, &512_u64.to_le_bytes());
    put(header + 48, &(text.len() as u64 + 1).to_le_bytes());
    put(header + 512, text.as_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), disk).unwrap();
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "vg {\nid = \"a-b\"\nseqno = 1\nstatus = [\"READ\", \"WRITE\"]\nempty = []\nphysical_volumes {\n\npv0 {\n\
                        dev_size = 8192\t# 4 Megabytes\n}\n}\n\n}\n# Generated\ncontents = \"Text  Format\"\ncreation_time = 5";
    const PLAIN: &str = "vg {\nid = \"a-b\"\nseqno = 1\nstatus = [\"READ\", \"WRITE\"]\nempty = []\nphysical_volumes {\npv0 {\n\
                         dev_size = 8192\n}\n\n}\n\n}\n\ncontents = \"Text Format\"\ncreation_time = 5\n\0";

    #[test]
    fn metadata_is_read_and_written() {
        let mut metadata = Metadata::parse(TEXT).unwrap();
        assert_eq!(metadata.text(), PLAIN);
        metadata.rename_group("contents");
        metadata.set("creation_time", Item::Number(6));
        assert!(
            metadata.text().starts_with("contents {\nid =") && metadata.text().ends_with("}\n\ncreation_time = 6\n\0")
        );
        for broken in ["vg {\nid = 1.5\n}", "vg {\nid = \"x\n}", "", "vg"] {
            assert!(Metadata::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn checksums_are_lvms() {
        // The value that LVM starts with is its checksum of nothing.
        assert_eq!(checksum(b""), 0xf597_a6cf);
        assert_eq!(checksum(b"123456789"), CHECK);
    }

    /// By Python's `binascii.crc32(b"123456789", 0xf597a6cf ^ 0xffffffff) ^ 0xffffffff`.
    const CHECK: u32 = 0x4991cf02;

    #[test]
    fn what_is_written_can_be_read_again() {
        let file = test_disk(TEXT);
        let mut disk = Disk::open(file.path()).unwrap();
        disk.metadata.rename_group("new");
        let text = disk.metadata.text();
        disk.write().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let header = &bytes[1024..1536];
        assert_eq!(number(header, 0, 4), u64::from(checksum(&header[4..])));
        assert_eq!(number(header, 56, 4), u64::from(checksum(text.as_bytes())));
        assert_eq!(Disk::open(file.path()).unwrap().metadata.text(), text);
    }

    /// A disk with other numbers than [`test_disk`] makes, each by where it stands.
    fn refused(numbers: &[(usize, u64)]) -> String {
        let file = test_disk(TEXT);
        let mut bytes = std::fs::read(file.path()).unwrap();
        for (at, number) in numbers {
            bytes[*at..*at + 8].copy_from_slice(&number.to_le_bytes());
        }
        std::fs::write(file.path(), bytes).unwrap();
        Disk::open(file.path()).unwrap_err().to_string()
    }

    #[test]
    fn metadata_that_lie_outside_the_device_are_none() {
        const AREA: usize = 1024;
        let (start, size, list) = (AREA + 24, AREA + 32, AREA + AREA_LIST);
        for numbers in [
            &[(start, u64::MAX - 100)][..],
            &[(start, u64::MAX), (size, u64::MAX)],
            &[(start, 4096)],
            &[(size, 4096)],
            &[(list, 0)],
            &[(list, 511)],
            &[(list, u64::MAX), (list + 8, u64::MAX)],
            &[(list + 8, 2048)],
        ] {
            assert!(refused(numbers).ends_with("has no metadata of LVM"), "{numbers:?}: {}", refused(numbers));
        }
        let endless: Vec<(usize, u64)> = (584..1024).step_by(8).map(|at| (at, 7)).collect();
        assert!(refused(&endless).ends_with("has no metadata of LVM"));
        assert!(refused(&[(584 + 32, u64::MAX - 7)]).starts_with("cannot read"));
    }

    #[test]
    fn metadata_have_an_end_in_depth_and_size() {
        let deep = |depth: usize| Metadata::parse(&format!("{}{}", "a {\n".repeat(depth), "}\n".repeat(depth)));
        assert!(deep(MAX_DEPTH).is_ok());
        assert_eq!(deep(300_000).unwrap_err().to_string(), "the metadata of LVM have sections more than 16 deep");
        let file = test_disk(TEXT);
        let disk = File::options().write(true).open(file.path()).unwrap();
        disk.set_len(1 << 40).unwrap();
        disk.write_all_at(&(1_u64 << 39).to_le_bytes(), 1024 + 32).unwrap();
        disk.write_all_at(&(1_u64 << 38).to_le_bytes(), 1024 + 48).unwrap();
        let error = Disk::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("274877906944 bytes; more than 16777216"), "{error}");
        let many: String = (0..200_000).map(|key| format!("k{key} = {key}\n")).collect();
        assert_eq!(Metadata::parse(&many).unwrap().entries.len(), 200_000);
        assert_eq!(Metadata::parse("a = 1\nb = 2\na = 3").unwrap().text(), "a = 3\nb = 2\n\0");
    }

    #[test]
    fn what_has_no_volume_or_no_room_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 100, 8192] {
            std::fs::write(file.path(), vec![0; length]).unwrap();
            assert!(Disk::open(file.path()).unwrap_err().to_string().ends_with("has no label of LVM"));
        }
        let mut disk = Disk::open(test_disk(TEXT).path()).unwrap();
        disk.metadata.set("description", Item::Text("x".repeat(2000)));
        assert!(disk.write().unwrap_err().to_string().starts_with("the metadata of LVM is too large"));
    }
}
