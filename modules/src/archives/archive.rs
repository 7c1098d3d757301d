//! Writes tar archives of trees, as GNU tar would, from file-system objects to bytes.
//!
//! Knows the formats and what of a file goes into a member; not which stage asks, nor how the result is compressed.
//! Members come in sorted order and carry their modification times alone, so that the same tree gives the same bytes.

pub(crate) mod attributes;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod transform;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use osbc_module_api::Error;

use self::header::{Format, Member, Type};
use self::names::Names;
use self::transform::Transform;

/// What goes into an archive besides names and contents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// How members are laid out.
    ///
    /// Attributes need more than the older formats can say: with any of them asked for, the archive is written in POSIX
    /// format, as GNU tar does.
    pub(crate) format: Format,
    /// Extended attributes whose names the function accepts; none without it.
    pub(crate) xattrs: Option<fn(&[u8]) -> bool>,
    /// POSIX access control lists.
    pub(crate) acls: bool,
    /// SELinux contexts.
    pub(crate) selinux: bool,
    /// Leave holes of sparse files out, which the formats ustar and v7 cannot.
    pub(crate) sparse: bool,
    /// Rewrites the members' names.
    pub(crate) transform: Option<Transform>,
    /// The names of owners that go into the archive beside their numbers.
    pub(crate) names: Names,
}

impl Settings {
    fn effective_format(&self) -> Format {
        if self.xattrs.is_some() || self.acls || self.selinux { Format::Posix } else { self.format }
    }
}

/// Archives some paths of a tree, each with all that lies below it, and the end marker.
///
/// `members` are names relative to `root`, written as given: `.` for the whole tree with its root. A file that comes
/// again is a hard link to its first member.
///
/// # Errors
/// Something cannot be read, the archive cannot be written, or a name or number does not fit the format.
pub(crate) fn write<W: Write>(root: &Path, members: &[OsString], settings: &Settings, out: W) -> Result<W, Error> {
    let format = settings.effective_format();
    if settings.sparse && matches!(format, Format::Ustar | Format::V7) {
        return Err(Error::failed(
            "the formats ustar and v7 cannot leave out holes; use gnu or posix for sparse files",
        ));
    }
    let several = members.len() > 1;
    let mut writer = Writer { root, settings, format, out, written: 0, several, links: HashMap::new() };
    for member in members {
        writer.add(member.as_bytes())?;
    }
    writer.finish()
}

/// The names in the top directory of a tree, sorted.
///
/// # Errors
/// It cannot be read.
pub(crate) fn top_level(root: &Path) -> Result<Vec<OsString>, Error> {
    let entries = fs::read_dir(root)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
    let mut names = entries.map_err(Error::io("list", root))?;
    names.sort();
    Ok(names)
}

struct Writer<'a, W> {
    root: &'a Path,
    settings: &'a Settings,
    format: Format,
    out: W,
    written: u64,
    /// Whether a file may come twice though it has one name.
    several: bool,
    /// The name of the first member of each file that may come again.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// GNU tar fills its last record up to this many bytes.
const RECORD: u64 = 10_240;

impl<W: Write> Writer<'_, W> {
    fn add(&mut self, name: &[u8]) -> Result<(), Error> {
        let path = self.root.join(OsString::from_vec(name.to_vec()));
        let metadata = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
        if metadata.file_type().is_socket() {
            // A socket is nothing without the program that listens on it; tar leaves them out too.
            return Ok(());
        }
        self.member(name, &path, &metadata)?;
        if metadata.is_dir() {
            let separator: &[u8] = if name.ends_with(b"/") { b"" } else { b"/" };
            for entry in top_level(&path)? {
                self.add(&[name, separator, entry.as_bytes()].concat())?;
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &[u8], path: &Path, metadata: &Metadata) -> Result<(), Error> {
        let kind = metadata.file_type();
        let mut shown = self.renamed(name, Target::Member)?;
        if metadata.is_dir() && !shown.ends_with(b"/") {
            shown.push(b'/');
        }
        let mut member = Member::new(shown, metadata, &self.settings.names);
        if !metadata.is_dir() && (self.several || metadata.nlink() > 1) {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                let target = self.renamed(first, Target::HardLink)?;
                // Readers take the target for a name below the directory that they extract to.
                let slashes = target.iter().take_while(|byte| **byte == b'/').count();
                member.link = target[slashes..].to_vec();
                member.kind = Type::HardLink;
                return self.header(&member, path);
            }
            self.links.insert(key, name.to_vec());
        }
        member.records = attributes::records(path, metadata, self.settings)?;
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(Error::io("read the link", path))?;
            member.link = self.renamed(target.as_os_str().as_bytes(), Target::SymbolicLink)?;
            member.kind = Type::SymbolicLink;
        } else if kind.is_dir() {
            member.kind = Type::Directory;
        } else if kind.is_char_device() || kind.is_block_device() {
            member.kind = if kind.is_char_device() { Type::CharDevice } else { Type::BlockDevice };
            let device = metadata.rdev();
            member.device = Some((rustix::fs::major(device), rustix::fs::minor(device)));
        } else if kind.is_fifo() {
            member.kind = Type::Fifo;
        } else {
            return self.file(member, path, metadata);
        }
        self.header(&member, path)
    }

    fn file(&mut self, mut member: Member, path: &Path, metadata: &Metadata) -> Result<(), Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let holes_possible = metadata.blocks() * 512 < metadata.len();
        if self.settings.sparse && holes_possible {
            let map = header::DataMap::of(&file, metadata.len()).map_err(Error::io("find the holes of", path))?;
            let preamble = if self.format == Format::Posix {
                map.describe_in_records(&mut member, metadata.len())
            } else {
                map.describe_in_header(&mut member, metadata.len());
                Vec::new()
            };
            self.header(&member, path)?;
            self.bytes(&preamble)?;
            for (start, length) in map.extents {
                rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(start)).map_err(Error::io("read", path))?;
                self.content(&mut file, length, path)?;
            }
        } else {
            member.size = metadata.len();
            self.header(&member, path)?;
            self.content(&mut file, metadata.len(), path)?;
        }
        self.pad(512)
    }

    fn header(&mut self, member: &Member, path: &Path) -> Result<(), Error> {
        let blocks = member
            .encode(self.format)
            .map_err(|reason| Error::failed(format!("cannot archive {}: {reason}", path.display())))?;
        self.bytes(&blocks)
    }

    /// Exactly `length` bytes of a file.
    fn content(&mut self, file: &mut File, length: u64, path: &Path) -> Result<(), Error> {
        let copied = io::copy(&mut file.take(length), &mut self.out).map_err(Error::io("archive", path))?;
        self.written += copied;
        if copied < length {
            return Err(Error::failed(format!("{} became shorter while it was archived", path.display())));
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::io("write", "the archive"))
    }

    fn pad(&mut self, unit: u64) -> Result<(), Error> {
        let missing = self.written.next_multiple_of(unit) - self.written;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out).map_err(Error::io("write", "the archive"))?;
        self.written += missing;
        Ok(())
    }

    fn renamed(&self, name: &[u8], target: Target) -> Result<Vec<u8>, Error> {
        match &self.settings.transform {
            Some(transform) => transform.apply(name, target),
            None => Ok(name.to_vec()),
        }
    }

    fn finish(mut self) -> Result<W, Error> {
        self.bytes(&[0; 1024])?;
        self.pad(RECORD)?;
        self.out.flush().map_err(Error::io("write", "the archive"))?;
        Ok(self.out)
    }
}

/// Which of a member's names is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Its own.
    Member,
    /// That of the member it is a hard link to.
    HardLink,
    /// What a symbolic link says.
    SymbolicLink,
}

#[cfg(test)]
mod tests;
