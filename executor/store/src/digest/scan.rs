//! Reads a tree or a layer as it lies on the disk: every entry with its attributes and content, nothing of what is
//! below.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::{Encoder, Hash, bytes};
use crate::fs::copy::attributes_of;
use crate::fs::overlay;
use crate::fs::walk::walk;

const CONTEXT: &str = "osbc tree entry 1";

/// So many bytes of a file are as much work as one entry.
const BYTES_PER_ENTRY: u64 = 16 << 10;

/// All directories of a tree or layer by their path below its root, which is the empty one.
pub(crate) type Scanned = BTreeMap<PathBuf, Directory>;

/// A directory that is there.
pub(crate) struct Directory {
    pub(crate) own: Own,
    /// In no order.
    pub(crate) entries: Vec<Found>,
    /// Whether it hides what the layers below have at its place.
    pub(crate) opaque: bool,
    /// Where it lies in the layers below, if not at its own place.
    pub(crate) redirect: Option<PathBuf>,
}

/// An entry of a directory.
pub(crate) struct Found {
    pub(crate) name: Vec<u8>,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// A whiteout: what the layers below have of this name is gone.
    Gone,
    /// A directory, scanned by itself.
    Directory,
    /// Anything else.
    Other(Own, Option<Inode>),
}

/// Which file it is, for one with several names.
pub(crate) type Inode = (u64, u64);

/// What an entry has of its own.
pub(crate) struct Own {
    /// Over all but the time.
    hash: Hash,
    pub(crate) modified: (i64, i64),
    /// What it takes on disk.
    pub(crate) bytes: u64,
}

impl Own {
    /// The hash of all that it has; `now` says that its time is that of the run.
    pub(crate) fn hash(&self, now: bool) -> Hash {
        let mut encoder = Encoder::new(CONTEXT);
        encoder.raw(&self.hash);
        encoder.raw(&[u8::from(now)]);
        if !now {
            encoder.number(self.modified.0);
            encoder.number(self.modified.1);
        }
        encoder.finish()
    }
}

/// Reads everything below `root`. In a layer the notes of overlayfs are understood.
pub(crate) fn scan(root: &Path, is_layer: bool) -> io::Result<Scanned> {
    let job = Job { is_layer, directories: Mutex::default(), contents: Mutex::default(), failure: Mutex::default() };
    let first =
        Waiting { parent: Arc::new(open_directory(CWD, root)?), name: CString::from(c"."), path: PathBuf::new() };
    walk(first, |directory, waiting| {
        job.directory(&directory, waiting).unwrap_or_else(|error| {
            let error = io::Error::new(error.kind(), format!("{}: {error}", root.join(&directory.path).display()));
            job.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            1
        })
    });
    match job.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(job.directories.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// A directory that is not opened yet, since descriptors are few.
struct Waiting {
    parent: Arc<OwnedFd>,
    name: CString,
    path: PathBuf,
}

struct Job {
    is_layer: bool,
    directories: Mutex<Scanned>,
    /// The content of files with several names, so that each is read once.
    contents: Mutex<HashMap<Inode, Hash>>,
    failure: Mutex<Option<io::Error>>,
}

impl Job {
    fn directory(&self, directory: &Waiting, waiting: &mut Vec<Waiting>) -> io::Result<usize> {
        let opened = Arc::new(open_directory(&directory.parent, directory.name.as_c_str())?);
        let stat = rustix::fs::fstat(&opened)?;
        let (mut opaque, mut redirect) = (false, None);
        let own = self.own(opened.as_fd(), c".", &stat, &[], |name, value| match name {
            b"opaque" => opaque = value == b"y",
            b"redirect" => redirect = Some(PathBuf::from(OsStr::from_bytes(value))),
            _ => {}
        })?;
        let mut entries = Vec::new();
        let mut work = 1;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let what = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let path = directory.path.join(OsStr::from_bytes(name.to_bytes()));
                    waiting.push(Waiting { parent: Arc::clone(&opened), name: CString::from(name), path });
                    What::Directory
                }
                FileType::CharacterDevice if self.is_layer && stat.st_rdev == 0 => What::Gone,
                kind => {
                    let content = self.content(opened.as_fd(), name, kind, &stat)?;
                    let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
                    work += usize::try_from(stat.st_size as u64 / BYTES_PER_ENTRY).unwrap_or(usize::MAX / 2);
                    What::Other(self.own(opened.as_fd(), name, &stat, &content, |_, _| {})?, inode)
                }
            };
            entries.push(Found { name: name.to_bytes().to_vec(), what });
            work += 1;
        }
        let scanned = Directory { own, entries, opaque, redirect };
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.path.clone(), scanned);
        Ok(work)
    }

    fn content(&self, directory: BorrowedFd<'_>, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<Vec<u8>> {
        Ok(match kind {
            FileType::RegularFile => {
                let inode = (stat.st_dev, stat.st_ino);
                let known = || self.contents.lock().unwrap_or_else(PoisonError::into_inner);
                if stat.st_nlink > 1
                    && let Some(hash) = known().get(&inode)
                {
                    return Ok(hash.to_vec());
                }
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
                let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
                let hash = bytes::hash(file.as_fd(), stat.st_size as u64)?;
                if stat.st_nlink > 1 {
                    known().insert(inode, hash);
                }
                hash.to_vec()
            }
            FileType::Symlink => rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes(),
            FileType::BlockDevice | FileType::CharacterDevice => stat.st_rdev.to_le_bytes().to_vec(),
            _ => Vec::new(),
        })
    }

    /// What an entry has of its own, with its content; `note` gets what overlayfs notes in a layer.
    fn own(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        content: &[u8],
        mut note: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<Own> {
        let mut attributes = Vec::new();
        let notes = overlay::notes().as_bytes();
        for (attribute, value) in attributes_of(directory, name)? {
            let attribute = attribute.into_bytes();
            match attribute.strip_prefix(notes) {
                // An attribute of an overlay that was made within the tree.
                Some(rest) if self.is_layer && rest.starts_with(b"overlay.") => {
                    attributes.push(([notes, &rest[b"overlay.".len()..]].concat(), value));
                }
                Some(rest) if self.is_layer => note(rest, &value),
                _ => attributes.push((attribute, value)),
            }
        }
        attributes.sort_unstable();
        let mut encoder = Encoder::new(CONTEXT);
        for number in [i64::from(stat.st_mode), i64::from(stat.st_uid), i64::from(stat.st_gid)] {
            encoder.number(number);
        }
        encoder.number(attributes.len() as i64);
        for (attribute, value) in &attributes {
            encoder.bytes(attribute);
            encoder.bytes(value);
        }
        encoder.bytes(content);
        Ok(Own {
            hash: encoder.finish(),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            bytes: stat.st_blocks as u64 * 512,
        })
    }
}

fn open_directory(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}
