//! The headers of tar members in the formats that GNU tar writes.
//!
//! POSIX.1-2001 (pax), POSIX.1-1988 (ustar), GNU, old GNU and Unix V7; facts from the GNU tar manual, "Basic Tar
//! Format" and "Extensions", and pax(1).

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use osbc_module_api::data_extents::data_extents;

use super::names::Names;

/// How members are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// GNU tar 1.13.x: long names in members of their own.
    #[default]
    Gnu,
    /// GNU tar before 1.13.
    OldGnu,
    /// POSIX.1-2001: extended headers.
    Posix,
    /// POSIX.1-1988.
    Ustar,
    /// Unix V7.
    V7,
}

impl Format {
    /// How long a name may be in the header itself.
    fn name_limit(self) -> usize {
        // The old format ends every name with a NUL.
        if self == Format::OldGnu { NAME - 1 } else { NAME }
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    SymbolicLink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

impl Type {
    fn flag(self) -> u8 {
        match self {
            Type::File => b'0',
            Type::HardLink => b'1',
            Type::SymbolicLink => b'2',
            Type::CharDevice => b'3',
            Type::BlockDevice => b'4',
            Type::Directory => b'5',
            Type::Fifo => b'6',
        }
    }
}

/// Key and value of a record in an extended header.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// All that a header says.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Type,
    /// Bytes of content in the archive.
    pub(crate) size: u64,
    /// What a link points at.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: Option<(u32, u32)>,
    /// Extended records, in order; only the POSIX format writes them.
    pub(crate) records: Vec<Record>,
    /// The name in the header itself, and the records that give readers the true one.
    stand_in: Option<(Vec<u8>, Vec<Record>)>,
    /// The pieces of a sparse file and its size with the holes, as GNU's formats say it in the header.
    pieces: Option<(Vec<(u64, u64)>, u64)>,
    mode: u32,
    uid: u32,
    gid: u32,
    user: Vec<u8>,
    group: Vec<u8>,
    root_user: Vec<u8>,
    root_group: Vec<u8>,
    mtime: i64,
    mtime_nanoseconds: i64,
}

const NAME: usize = 100;
const OWNER: usize = 32;
/// How long the description of a piece of a sparse file is, and how many a header has room for.
const PIECE: usize = 24;
const PIECES_IN_HEADER: usize = 4;
const PREFIX: usize = 155;

impl Member {
    /// A member with the owner, mode and time of a file; of type `File` and without content.
    pub(crate) fn new(name: Vec<u8>, metadata: &Metadata, names: &Names) -> Self {
        Self {
            name,
            kind: Type::File,
            size: 0,
            link: Vec::new(),
            device: None,
            records: Vec::new(),
            stand_in: None,
            pieces: None,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            user: names.user(metadata.uid()).to_vec(),
            group: names.group(metadata.gid()).to_vec(),
            root_user: names.user(0).to_vec(),
            root_group: names.group(0).to_vec(),
            mtime: metadata.mtime(),
            mtime_nanoseconds: metadata.mtime_nsec(),
        }
    }

    /// The header's blocks, with those that the format puts before it for what does not fit.
    ///
    /// # Errors
    /// Something does not fit and the format has no way to say it.
    pub(crate) fn encode(&self, format: Format) -> Result<Vec<u8>, String> {
        let mut blocks = Vec::with_capacity(512);
        let full = self.stand_in.as_ref().map_or(&self.name, |(name, _)| name);
        let (prefix, name) = match format {
            Format::Ustar => split(full).unwrap_or((b"", full)),
            _ => (b"".as_slice(), full.as_slice()),
        };
        if format == Format::Posix {
            let records = self.pax_records(name);
            if !records.is_empty() {
                self.extended(&records, &mut blocks);
            }
        } else {
            for (text, flag, what) in [(&self.link[..], b'K', "link target"), (name, b'L', "name")] {
                match format {
                    _ if text.len() <= format.name_limit() => {}
                    Format::Gnu | Format::OldGnu => self.long_name(text, flag, &mut blocks),
                    _ => return Err(format!("its {what} is longer than the format allows")),
                }
            }
        }
        blocks.extend_from_slice(&self.block(format, prefix, name)?);
        if let Some((pieces, _)) = &self.pieces {
            more_pieces(pieces.get(PIECES_IN_HEADER..).unwrap_or_default(), &mut blocks);
        }
        Ok(blocks)
    }

    /// What the POSIX format says in an extended header: what does not fit, fractions of seconds, attributes.
    fn pax_records(&self, name: &[u8]) -> Vec<Record> {
        let mut records = self.stand_in.as_ref().map_or_else(Vec::new, |(_, records)| records.clone());
        let mut add = |key: &str, value: Vec<u8>| records.push((key.into(), value));
        for (key, text) in [("path", name), ("linkpath", &self.link)] {
            if text.len() > NAME || !text.is_ascii() {
                add(key, text.to_vec());
            }
        }
        if self.size > octal_limit(12) {
            add("size", self.size.to_string().into());
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if u64::from(id) > octal_limit(8) {
                add(key, id.to_string().into());
            }
        }
        let plain = (0..=octal_limit(12) as i64).contains(&self.mtime);
        if self.mtime_nanoseconds != 0 || !plain {
            add("mtime", decimal_time(self.mtime, self.mtime_nanoseconds).into());
        }
        records.extend(self.records.iter().cloned());
        records
    }

    /// An extended header and its records.
    fn extended(&self, records: &[Record], blocks: &mut Vec<u8>) {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let trimmed = self.name.strip_suffix(b"/").unwrap_or(&self.name);
        let (directory, base) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&trimmed[..slash], &trimmed[slash + 1..]),
            None => (b".".as_slice(), trimmed),
        };
        let mut name = [directory, b"/PaxHeaders/", base].concat();
        name.truncate(NAME);
        let mut block = Block::new(&name, b'x', body.len() as u64);
        block.octal(100, 8, 0o644);
        let time = u64::try_from(self.mtime).unwrap_or(0).min(octal_limit(12));
        block.octal(136, 12, time);
        block.posix_magic();
        blocks.extend_from_slice(&block.finish());
        append_padded(&body, blocks);
    }

    /// GNU's way for long names: a member whose content is the name.
    fn long_name(&self, name: &[u8], flag: u8, blocks: &mut Vec<u8>) {
        let mut block = Block::new(b"././@LongLink", flag, name.len() as u64 + 1);
        block.octal(100, 8, 0o644);
        block.text(257, b"ustar  \0");
        block.owner(&self.root_user, &self.root_group);
        blocks.extend_from_slice(&block.finish());
        append_padded(&[name, b"\0"].concat(), blocks);
    }

    fn block(&self, format: Format, prefix: &[u8], name: &[u8]) -> Result<[u8; 512], String> {
        let flag = match (format, self.kind) {
            _ if self.pieces.is_some() => b'S',
            (Format::V7, Type::File) => 0,
            (Format::V7, Type::CharDevice | Type::BlockDevice | Type::Fifo) => {
                return Err("the v7 format knows no devices and pipes".to_owned());
            }
            (_, kind) => kind.flag(),
        };
        let mut block = Block::new(&name[..name.len().min(format.name_limit())], flag, 0);
        let wide = matches!(format, Format::Gnu | Format::OldGnu);
        // What an extended header says stands as 0 in the header itself.
        let lenient = format == Format::Posix;
        block.octal(100, 8, u64::from(self.mode));
        block.number(108, 8, i128::from(self.uid), wide, lenient).map_err(|()| "its owner does not fit")?;
        block.number(116, 8, i128::from(self.gid), wide, lenient).map_err(|()| "its group does not fit")?;
        block.number(124, 12, i128::from(self.size), wide, lenient).map_err(|()| "its size does not fit")?;
        block.number(136, 12, i128::from(self.mtime), wide, lenient).map_err(|()| "its time does not fit")?;
        block.text(157, &self.link[..self.link.len().min(NAME)]);
        if format != Format::V7 {
            block.owner(&self.user, &self.group);
        }
        match format {
            Format::V7 => {}
            Format::Gnu | Format::OldGnu => block.text(257, b"ustar  \0"),
            Format::Ustar | Format::Posix => {
                block.posix_magic();
                block.text(345, prefix);
            }
        }
        if !wide || self.device.is_some() {
            let (major, minor) = self.device.unwrap_or((0, 0));
            let fits = |()| "its device number does not fit";
            block.number(329, 8, i128::from(major), wide, false).map_err(fits)?;
            block.number(337, 8, i128::from(minor), wide, false).map_err(fits)?;
        }
        if let Some((pieces, size)) = &self.pieces {
            for (index, piece) in pieces.iter().take(PIECES_IN_HEADER).enumerate() {
                block.piece(386 + index * PIECE, *piece);
            }
            block.0[482] = u8::from(pieces.len() > PIECES_IN_HEADER);
            block.number(483, 12, i128::from(*size), true, false).map_err(|()| "its size does not fit")?;
        }
        Ok(block.finish())
    }
}

/// The blocks that follow a header for the pieces of a sparse file that do not fit into it.
fn more_pieces(pieces: &[(u64, u64)], blocks: &mut Vec<u8>) {
    let mut chunks = pieces.chunks(512 / PIECE).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = Block([0; 512]);
        for (index, piece) in chunk.iter().enumerate() {
            block.piece(index * PIECE, *piece);
        }
        block.0[504] = u8::from(chunks.peek().is_some());
        blocks.extend_from_slice(&block.0);
    }
}

/// Splits a name that is too long for its field at a slash, for the prefix field; none if it fits nowhere.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME {
        return Some((b"", name));
    }
    let first = name.len().checked_sub(NAME + 1)?;
    let slash = (first.max(1)..name.len() - 1).find(|index| name[*index] == b'/')?;
    (slash <= PREFIX).then(|| (&name[..slash], &name[slash + 1..]))
}

/// The largest number that an octal field of this width holds, with its final NUL.
const fn octal_limit(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// One record of an extended header: its own length, key and value.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with as many decimals as needed; negative times count towards the past.
fn decimal_time(seconds: i64, nanoseconds: i64) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn append_padded(content: &[u8], blocks: &mut Vec<u8>) {
    blocks.extend_from_slice(content);
    blocks.resize(blocks.len().next_multiple_of(512), 0);
}

/// One header block in the making.
struct Block([u8; 512]);

impl Block {
    fn new(name: &[u8], flag: u8, size: u64) -> Self {
        let mut block = Self([0; 512]);
        block.text(0, name);
        block.octal(108, 8, 0);
        block.octal(116, 8, 0);
        block.octal(124, 12, size);
        block.octal(136, 12, 0);
        block.0[156] = flag;
        block
    }

    fn text(&mut self, offset: usize, text: &[u8]) {
        self.0[offset..offset + text.len()].copy_from_slice(text);
    }

    fn owner(&mut self, user: &[u8], group: &[u8]) {
        self.text(265, &user[..user.len().min(OWNER)]);
        self.text(297, &group[..group.len().min(OWNER)]);
    }

    fn posix_magic(&mut self) {
        self.text(257, b"ustar\x0000");
    }

    fn octal(&mut self, offset: usize, width: usize, value: u64) {
        let text = format!("{value:0width$o}\0", width = width - 1);
        self.text(offset, text.as_bytes());
    }

    /// Start and length of a piece of a sparse file; both fit in base 256 if not in octal.
    fn piece(&mut self, offset: usize, (start, length): (u64, u64)) {
        for (offset, value) in [(offset, start), (offset + PIECE / 2, length)] {
            let fits = self.number(offset, PIECE / 2, i128::from(value), true, false);
            debug_assert!(fits.is_ok(), "base 256 holds any 64 bits");
        }
    }

    /// A number in octal, or, where it does not fit, in base 256 (`wide`) or as 0 (`lenient`).
    fn number(&mut self, offset: usize, width: usize, value: i128, wide: bool, lenient: bool) -> Result<(), ()> {
        if (0..=i128::from(octal_limit(width as u32))).contains(&value) {
            self.octal(offset, width, value as u64);
        } else if wide {
            self.text(offset, &value.to_be_bytes()[16 - width..]);
            self.0[offset] = if value < 0 { 0xff } else { 0x80 };
        } else if lenient {
            self.octal(offset, width, 0);
        } else {
            return Err(());
        }
        Ok(())
    }

    /// The block with its checksum.
    fn finish(mut self) -> [u8; 512] {
        self.text(148, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        let text = format!("{sum:06o}\0 ");
        self.text(148, text.as_bytes());
        self.0
    }
}

/// Where a sparse file has data.
#[derive(Debug)]
pub(crate) struct DataMap {
    /// Start and length of each piece of data, ascending.
    pub(crate) extents: Vec<(u64, u64)>,
}

impl DataMap {
    /// Asks the file system.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn of(file: &File, length: u64) -> io::Result<Self> {
        Ok(Self { extents: data_extents(file, length)? })
    }

    /// The pieces, and an empty one at the end that marks the file's size.
    fn marked(&self, length: u64) -> Vec<(u64, u64)> {
        self.extents.iter().copied().chain([(length, 0)]).collect()
    }

    fn stored(&self) -> u64 {
        self.extents.iter().map(|(_, size)| size).sum()
    }

    /// Makes `member` a sparse member as GNU's own formats have it.
    pub(crate) fn describe_in_header(&self, member: &mut Member, length: u64) {
        member.size = self.stored();
        member.pieces = Some((self.marked(length), length));
    }

    /// Makes `member` a sparse member of version 1.0 of the extension to POSIX archives; returns the map that precedes
    /// its content.
    pub(crate) fn describe_in_records(&self, member: &mut Member, length: u64) -> Vec<u8> {
        let pieces = self.marked(length);
        let mut map = format!("{}\n", pieces.len());
        for (start, size) in &pieces {
            map.push_str(&format!("{start}\n{size}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(512), 0);
        let name = &member.name;
        let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |index| index + 1);
        let directory = if slash == 0 { b"./".as_slice() } else { &name[..slash] };
        let stand_in = [directory, b"GNUSparseFile.0/", &name[slash..]].concat();
        member.size = map.len() as u64 + self.stored();
        let records = [
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", name.clone()),
            ("GNU.sparse.realsize", length.to_string().into_bytes()),
        ];
        member.stand_in = Some((stand_in, records.map(|(key, value)| (key.as_bytes().to_vec(), value)).to_vec()));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        let long = record(b"path", &[b'x'; 90]);
        assert_eq!(long.len().to_string().as_bytes(), long.split(|byte| *byte == b' ').next().expect("a length"));
        for size in 80..120 {
            let text = record(b"k", &vec![b'v'; size]);
            assert!(text.starts_with(format!("{} ", text.len()).as_bytes()));
        }
    }

    #[test]
    fn times_before_and_after_1970_are_decimal() {
        assert_eq!(decimal_time(12, 500_000_000), "12.5");
        assert_eq!(decimal_time(12, 0), "12");
        assert_eq!(decimal_time(-1, 750_000_000), "-0.25");
        assert_eq!(decimal_time(0, 1), "0.000000001");
    }

    #[test]
    fn long_names_are_split_at_a_slash_where_both_halves_fit() {
        let name = [vec![b'a'; 90], b"/".to_vec(), vec![b'b'; 90]].concat();
        assert_eq!(split(&name), Some((&name[..90], &name[91..])));
        assert_eq!(split(&[b'a'; 101]), None);
    }
}
