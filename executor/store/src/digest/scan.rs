//! Reads a tree or a layer as it lies on the disk: every entry with its attributes and content, nothing of what is
//! below.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::{Encoder, Hash, bytes};
use crate::fs::copy::attributes_of;
use crate::fs::directories::{Directories, ROOT};
use crate::fs::overlay;
use crate::fs::overlay::is_whiteout;
use crate::fs::walk::walk;

const CONTEXT: &str = "osbc tree entry 1";

/// So many bytes of a file are as much work as one entry.
const BYTES_PER_ENTRY: u64 = 16 << 10;

/// All directories of a tree or layer: the root first, each before those that are in it, and these by name.
pub(crate) struct Scanned {
    directories: Vec<Directory>,
    /// Whether a whole tree has devices or attributes of the kind that overlayfs marks its layers with.
    pub(crate) has_marks: bool,
}

impl Scanned {
    /// Returns the directories.
    pub(crate) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// Returns the path of a directory below the root; that of the root is empty.
    pub(crate) fn path(&self, place: usize) -> PathBuf {
        let mut names = Vec::with_capacity(self.directories[place].depth);
        let mut next = place;
        while next != ROOT {
            names.push(OsStr::from_bytes(&self.directories[next].name));
            next = self.directories[next].parent;
        }
        names.into_iter().rev().collect()
    }
}

/// A directory that is there.
pub(crate) struct Directory {
    /// Its name; empty for the root.
    pub(crate) name: Vec<u8>,
    /// The place of the directory that it is in, among all; for the root its own.
    pub(crate) parent: usize,
    /// How many directories it is below the root.
    pub(crate) depth: usize,
    pub(crate) own: Own,
    /// By name.
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
    /// A directory, by its place among all.
    Directory(usize),
    /// A file whose data lies in the layers below.
    Placeholder(Placeholder, Option<Inode>),
    /// A file of which the layer has the changed blocks alone: what there is of it, and what all of it is.
    Delta(Own, Box<(Own, Hash)>),
    /// Anything else; for a file with the hash of its content.
    Other(Own, Option<Hash>, Option<Inode>),
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
    /// That of an entry with these attributes, in their encoding, and this content.
    fn new(attributes: &[u8], content: &[u8], stat: &Stat) -> Self {
        let mut encoder = Encoder::new(CONTEXT);
        encoder.raw(attributes);
        encoder.bytes(content);
        Own {
            hash: encoder.finish(),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            bytes: stat.st_blocks as u64 * 512,
        }
    }

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

/// What a layer has of a file whose data lies below: everything but that.
pub(crate) struct Placeholder {
    /// In their encoding.
    attributes: Vec<u8>,
    stat: Stat,
    /// Where the file lies in the layers below, if not at its own place.
    pub(crate) redirect: Option<PathBuf>,
}

impl Placeholder {
    /// What the file has, with its content.
    pub(crate) fn with(&self, content: &Hash) -> Own {
        Own::new(&self.attributes, content, &self.stat)
    }

    /// What there is of it in the layer: its size, too, which is noted there.
    pub(crate) fn alone(&self) -> Own {
        Own::new(&self.attributes, &self.stat.st_size.to_le_bytes(), &self.stat)
    }
}

/// Reads everything below `root`. In a layer the notes of overlayfs are understood.
pub(crate) fn scan(root: &Path, is_layer: bool) -> io::Result<Scanned> {
    let job = Job {
        is_layer,
        known: Mutex::default(),
        read: Mutex::default(),
        contents: Mutex::default(),
        has_marks: AtomicBool::new(false),
        failure: Mutex::default(),
    };
    walk((Arc::new(open_directory(CWD, root)?), ROOT), |(parent, number), waiting| {
        job.directory(&parent, number, waiting).unwrap_or_else(|error| {
            let path = root.join(lock(&job.known).path(number));
            lock(&job.failure).get_or_insert(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            1
        })
    });
    match into_inner(job.failure) {
        Some(error) => Err(error),
        None => {
            let directories = in_order(&into_inner(job.known), into_inner(job.read));
            Ok(Scanned { directories, has_marks: job.has_marks.into_inner() })
        }
    }
}

/// Puts all directories, which were read in any order, into theirs.
fn in_order(known: &Directories, read: Vec<Read>) -> Vec<Directory> {
    let order = known.in_order();
    let mut place_of = vec![0; known.len()];
    for (place, number) in order.iter().enumerate() {
        place_of[*number] = place;
    }
    let mut all: Vec<Option<Read>> = order.iter().map(|_| None).collect();
    for one in read {
        let place = place_of[one.number];
        all[place] = Some(one);
    }
    let directories = all.into_iter().flatten().map(|Read { number, mut directory }| {
        directory.name = known.name(number).to_bytes().to_vec();
        directory.parent = place_of[known.parent(number)];
        directory.depth = known.depth(number);
        directory.entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for entry in &mut directory.entries {
            if let What::Directory(number) = &mut entry.what {
                *number = place_of[*number];
            }
        }
        directory
    });
    directories.collect()
}

/// A directory that is not opened yet, since descriptors are few: the one that it is in, and its number.
type Waiting = (Arc<OwnedFd>, usize);

/// A directory that was read, with numbers in the place of places.
struct Read {
    number: usize,
    directory: Directory,
}

struct Job {
    is_layer: bool,
    known: Mutex<Directories>,
    read: Mutex<Vec<Read>>,
    /// The content of files with several names, so that each is read once.
    contents: Mutex<HashMap<Inode, Hash>>,
    has_marks: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

/// What overlayfs notes of an entry in a layer.
#[derive(Default)]
struct Notes {
    opaque: bool,
    metacopy: bool,
    redirect: Option<PathBuf>,
    /// The hash of the content of a file of which the layer has the changed blocks alone.
    delta: Option<Hash>,
}

impl Job {
    fn directory(&self, parent: &OwnedFd, number: usize, waiting: &mut Vec<Waiting>) -> io::Result<usize> {
        let name = if number == ROOT { c".".to_owned() } else { lock(&self.known).name(number).to_owned() };
        let opened = Arc::new(open_directory(parent, &*name)?);
        let stat = rustix::fs::fstat(&opened)?;
        let (attributes, notes) = self.attributes(opened.as_fd(), c".", &stat)?;
        let own = Own::new(&attributes, &[], &stat);
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
                    let number = lock(&self.known).add(number, name);
                    waiting.push((Arc::clone(&opened), number));
                    What::Directory(number)
                }
                kind if self.is_layer && is_whiteout(kind, &stat) => What::Gone,
                kind => self.other(opened.as_fd(), name, kind, stat, &mut work)?,
            };
            entries.push(Found { name: name.to_bytes().to_vec(), what });
            work += 1;
        }
        let Notes { opaque, redirect, .. } = notes;
        let directory = Directory { name: Vec::new(), parent: ROOT, depth: 0, own, entries, opaque, redirect };
        lock(&self.read).push(Read { number, directory });
        Ok(work)
    }

    /// An entry that is neither a directory nor a whiteout.
    fn other(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        stat: Stat,
        work: &mut usize,
    ) -> io::Result<What> {
        let inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        let (attributes, notes) = self.attributes(directory, name, &stat)?;
        if kind == FileType::RegularFile && notes.metacopy {
            return Ok(What::Placeholder(Placeholder { attributes, stat, redirect: notes.redirect }, inode));
        }
        *work += usize::try_from(stat.st_size as u64 / BYTES_PER_ENTRY).unwrap_or(usize::MAX / 2);
        if !self.is_layer && is_whiteout(kind, &stat) {
            self.has_marks.store(true, Ordering::Relaxed);
        }
        let (hash, content) = match kind {
            FileType::RegularFile => (Some(self.content(directory, name, &stat)?), Vec::new()),
            FileType::Symlink => (None, rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes()),
            FileType::BlockDevice | FileType::CharacterDevice => (None, stat.st_rdev.to_le_bytes().to_vec()),
            _ => (None, Vec::new()),
        };
        if let (Some(own), Some(whole)) = (hash, notes.delta) {
            let there = Own::new(&attributes, &[own, whole].concat(), &stat);
            return Ok(What::Delta(there, Box::new((Own::new(&attributes, &whole, &stat), whole))));
        }
        let content = hash.as_ref().map_or(content.as_slice(), |hash| hash);
        Ok(What::Other(Own::new(&attributes, content, &stat), hash, inode))
    }

    /// The hash of a file's content.
    fn content(&self, directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<Hash> {
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(hash) = lock(&self.contents).get(&inode)
        {
            return Ok(*hash);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let hash = bytes::hash(file.as_fd(), stat.st_size as u64)?;
        if stat.st_nlink > 1 {
            lock(&self.contents).insert(inode, hash);
        }
        Ok(hash)
    }

    /// The mode, owner and extended attributes of an entry, encoded; and in a layer what overlayfs notes of it.
    fn attributes(&self, directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<(Vec<u8>, Notes)> {
        let mut attributes = Vec::new();
        let mut found = Notes::default();
        let notes = overlay::notes().as_bytes();
        for (attribute, value) in attributes_of(directory, name)? {
            let attribute = attribute.into_bytes();
            match attribute.strip_prefix(notes) {
                // An attribute of an overlay that was made within the tree.
                Some(rest) if self.is_layer && rest.starts_with(b"overlay.") => {
                    attributes.push(([notes, &rest[b"overlay.".len()..]].concat(), value));
                }
                Some(rest) if self.is_layer && rest == overlay::OPAQUE.as_bytes() => found.opaque = value == b"y",
                Some(rest) if self.is_layer && rest == overlay::METACOPY.as_bytes() => found.metacopy = true,
                Some(rest) if self.is_layer && rest == overlay::REDIRECT.as_bytes() => {
                    found.redirect = Some(PathBuf::from(OsStr::from_bytes(&value)));
                }
                Some(rest) if self.is_layer && rest == overlay::DELTA.as_bytes() => found.delta = value.try_into().ok(),
                Some(_) if self.is_layer => {}
                note => {
                    if note.is_some() {
                        self.has_marks.store(true, Ordering::Relaxed);
                    }
                    attributes.push((attribute, value));
                }
            }
        }
        attributes.sort_unstable();
        let mut encoded = Vec::new();
        let number = |encoded: &mut Vec<u8>, number: i64| encoded.extend_from_slice(&number.to_le_bytes());
        for one in [i64::from(stat.st_mode), i64::from(stat.st_uid), i64::from(stat.st_gid), attributes.len() as i64] {
            number(&mut encoded, one);
        }
        for bytes in attributes.iter().flat_map(|(attribute, value)| [attribute, value]) {
            number(&mut encoded, bytes.len() as i64);
            encoded.extend_from_slice(bytes);
        }
        Ok((encoded, found))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn open_directory(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}
