//! Headers of cpio archives: the link counts of directories in them. Knows nothing of where the archive came from.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str;

const TRAILER: &[u8] = b"TRAILER!!!";
/// The longest name of a member, in bytes with the zero behind it: the longest path there is.
const MAX_NAME: u64 = 4096;

/// Where the numbers of a header are, as first byte and length.
struct Layout {
    magic: &'static [u8],
    header: usize,
    links: (usize, usize),
    name_size: (usize, usize),
    file_size: (usize, usize),
    /// What names and contents are filled up to a multiple of.
    unit: u64,
    /// The base of numbers in digits; none where they are 16 bits each, the least byte first, the greatest 16 bits
    /// first.
    radix: Option<u32>,
}

const LAYOUTS: [Layout; 4] = [
    NEW,
    Layout { magic: b"070702", ..NEW },
    Layout {
        magic: b"070707",
        header: 76,
        links: (36, 6),
        name_size: (59, 6),
        file_size: (65, 11),
        unit: 1,
        radix: Some(8),
    },
    Layout {
        magic: &[0xc7, 0x71],
        header: 26,
        links: (12, 2),
        name_size: (20, 2),
        file_size: (22, 4),
        unit: 2,
        radix: None,
    },
];

const NEW: Layout = Layout {
    magic: b"070701",
    header: 110,
    links: (38, 8),
    name_size: (94, 8),
    file_size: (54, 8),
    unit: 4,
    radix: Some(16),
};

/// Gives those of the last `count` members that `links` names the number of links that it says.
///
/// # Errors
/// It is no archive of cpio's own formats, or cannot be read or written.
pub(crate) fn set_links(archive: &File, count: usize, links: &BTreeMap<Vec<u8>, u64>) -> io::Result<()> {
    // No more are kept than are asked for.
    let mut members = VecDeque::new();
    let mut place = 0;
    loop {
        let mut header = [0; NEW.header];
        let length = archive.read_at(&mut header, place)?;
        let layout = LAYOUTS.iter().find(|layout| length >= layout.header && header.starts_with(layout.magic));
        let layout = layout.ok_or_else(|| invalid("it is no archive of cpio"))?;
        let size = layout.number(&header, layout.name_size)?;
        if size > MAX_NAME {
            return Err(invalid(format!("a name in the archive has {size} bytes; more than {MAX_NAME} are not read")));
        }
        let mut name = vec![0; usize::try_from(size).map_err(invalid)?];
        archive.read_exact_at(&mut name, place + layout.header as u64)?;
        name.truncate(name.len().saturating_sub(1));
        if name == TRAILER {
            break;
        }
        members.push_back((place, layout, name));
        if members.len() > count {
            members.pop_front();
        }
        let content = (place + layout.header as u64 + size).next_multiple_of(layout.unit);
        place = (content + layout.number(&header, layout.file_size)?).next_multiple_of(layout.unit);
    }
    for (place, layout, name) in &members {
        if let Some(links) = links.get(name) {
            archive.write_all_at(&layout.spell(*links), place + layout.links.0 as u64)?;
        }
    }
    Ok(())
}

impl Layout {
    fn number(&self, header: &[u8], (start, length): (usize, usize)) -> io::Result<u64> {
        let field = &header[start..start + length];
        match self.radix {
            Some(radix) => u64::from_str_radix(str::from_utf8(field).map_err(invalid)?, radix).map_err(invalid),
            None => Ok(field.chunks(2).fold(0, |sum, pair| sum << 16 | u64::from(pair[0]) | u64::from(pair[1]) << 8)),
        }
    }

    fn spell(&self, links: u64) -> Vec<u8> {
        let width = self.links.1;
        match self.radix {
            Some(8) => format!("{links:0width$o}").into_bytes(),
            Some(_) => format!("{links:0width$X}").into_bytes(),
            None => u16::try_from(links).unwrap_or(u16::MAX).to_le_bytes().to_vec(),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::has_tool;

    use super::*;

    #[test]
    fn the_last_members_of_a_name_get_its_links() {
        if !has_tool("cpio") {
            return;
        }
        for format in ["newc", "crc", "odc", "bin"] {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("tree/directory/inner")).unwrap();
            fs::write(directory.path().join("tree/directory/odd"), "abc").unwrap();
            let cpio = format!("cpio --quiet -o --format={format}");
            let names = "printf 'directory/odd\\ndirectory\\ndirectory/inner\\n'";
            let script =
                format!("cd tree && {names} | {cpio} -O ../a && {names} | {cpio} --append -O ../a && cpio -tvF ../a");
            let list = |script: &str| {
                let output = Command::new("sh").args(["-ec", script]).current_dir(directory.path()).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            let links = |list: &str| -> Vec<String> {
                list.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
            };
            let before = list(&script);
            let archive = fs::File::options().read(true).write(true).open(directory.path().join("a")).unwrap();
            set_links(&archive, 3, &BTreeMap::from([(b"directory".to_vec(), 77)])).unwrap();
            let after = list("cpio -tvF a");
            let mut expected = links(&before);
            assert_eq!(expected.len(), 6, "{format}: {before}");
            expected[4] = "77".to_owned();
            assert_eq!(links(&after), expected, "{format}");
        }
        let text = tempfile::tempfile().unwrap();
        assert!(set_links(&text, 1, &BTreeMap::new()).is_err());
    }

    #[test]
    fn names_longer_than_any_path_are_not_read() {
        let archive = tempfile::tempfile().unwrap();
        let header = format!("070701{}{:08X}{}", "0".repeat(88), 0xffff_ffff_u32, "0".repeat(8));
        archive.write_all_at(header.as_bytes(), 0).unwrap();
        archive.set_len(1 << 40).unwrap();
        let error = set_links(&archive, 1, &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "a name in the archive has 4294967295 bytes; more than 4096 are not read");
    }
}
