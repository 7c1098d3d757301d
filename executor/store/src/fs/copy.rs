//! Copies a tree with everything that a file system keeps: owners, modes, times to the nanosecond, extended attributes
//! and ACLs, hard links, holes, device nodes, pipes and sockets.
//!
//! Knows descriptors and names, nothing of objects or layers.
//!
//! Small trees are copied by one thread, large ones by all of rayon's; symbolic links are copied, never followed.
//! Directories get their attributes last and the deepest first, since making an entry changes the times of its
//! directory and a default ACL those of the entry.

mod attributes;
mod data;
mod writeback;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::fs::directories::{Cursor, Directories, ROOT};
use crate::fs::walk::{SHARE, walk};
use crate::fs::{long_path, overlay};

/// A file from this size on is worth a thread of its own.
const LARGE: i64 = 256 << 10;

/// The path of a directory with no more than so many above it is as fast as steps.
const SHALLOW: usize = 64;

/// Whether the copy belongs to the owners of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It does.
    Keep,
    /// It belongs to whoever copies; a bit that lends an owner's rights to who runs a file goes where the owner does.
    Drop,
}

/// Whether a copied file shares its bytes on disk with the original, until one of them is written to (a reflink).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Where the file system can.
    IfPossible,
    /// Or the copy fails.
    Always,
    /// It does not.
    Never,
}

/// What becomes of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// Builds read it.
    Store,
    /// It is for others.
    Elsewhere,
}

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// How many entries, directories included.
    pub entries: u64,
    /// The sizes of all files, holes included.
    pub bytes: u64,
    /// The extended attributes that the place of the copy does not take.
    pub lost: Vec<Lost>,
}

/// An extended attribute that could not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The entry, below the root of the copy.
    pub path: PathBuf,
    /// The attribute's name.
    pub attribute: String,
    /// Why.
    pub reason: String,
}

/// Why a tree could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {}: {source}", path.display())]
pub struct CopyError {
    /// The entry, below the root of the copy.
    pub path: PathBuf,
    /// The OS error.
    pub source: io::Error,
}

/// Copies all that the directory `from` holds, and its own attributes, to the directory `to`, which must be empty.
///
/// # Errors
/// The first entry that cannot be read or written; what was copied before it stays.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ownership: Ownership) -> Result<Copied, CopyError> {
    copy(from, to, ownership, Sharing::IfPossible, Destination::Elsewhere)
}

/// The same within a store, with a say in whether bytes are shared.
///
/// # Errors
/// As [`copy_tree`].
pub(crate) fn copy_tree_sharing(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    ownership: Ownership,
    sharing: Sharing,
) -> Result<Copied, CopyError> {
    copy(from, to, ownership, sharing, Destination::Store)
}

fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    ownership: Ownership,
    sharing: Sharing,
    destination: Destination,
) -> Result<Copied, CopyError> {
    let at_root = |source: rustix::io::Errno| CopyError { path: PathBuf::from("."), source: source.into() };
    attributes::remove_inherited(to);
    let job = Job {
        ownership,
        sharing,
        destination,
        clones: AtomicBool::new(true),
        failed: AtomicBool::new(false),
        first_failure: Mutex::default(),
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        lost: Mutex::default(),
        first_names: Mutex::default(),
        links: Mutex::default(),
        known: Mutex::default(),
        stats: Mutex::new(vec![(ROOT, rustix::fs::fstat(from).map_err(at_root)?)]),
    };
    let pair = Pair { from: reopen(from).map_err(at_root)?, to: reopen(to).map_err(at_root)? };
    let root = Waiting { parents: Arc::new(pair), name: CString::from(c"."), kind: Kind::Directory(ROOT) };
    walk(root, |next, waiting| job.visit(next, waiting));
    job.link_all(to);
    job.finish_directories(from, to);
    match into_inner(job.first_failure) {
        Some(failure) => Err(failure),
        None => {
            Ok(Copied { entries: job.entries.into_inner(), bytes: job.bytes.into_inner(), lost: into_inner(job.lost) })
        }
    }
}

/// Returns the directory `to` the attributes of the directory `from`, of which `stat` was taken, but for what overlayfs
/// notes in a layer's directories.
///
/// # Errors
/// One cannot be read or set.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let mut refused = Ok(());
    attributes::remove_inherited(to);
    let keep = |name: &CStr| match name.to_bytes().strip_prefix(overlay::notes().as_bytes()) {
        // An attribute of the tree's own, as a layer has it.
        Some(rest) => rest.starts_with(b"overlay."),
        None => true,
    };
    attributes::copy_those(from, to, stat, Ownership::Keep, keep, &mut |_, reason| refused = Err(reason.into()))?;
    refused
}

/// Copies the first `size` bytes of a file within a store to an empty one, as reflinks where there are.
///
/// # Errors
/// One cannot be read or written.
pub(crate) fn copy_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    data::copy(from, to, size, Sharing::IfPossible, Destination::Store, &AtomicBool::new(true))
}

/// The extended attributes of the entry `name` of a directory, ACLs included.
///
/// # Errors
/// They cannot be read.
pub(crate) fn attributes_of(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<(CString, Vec<u8>)>> {
    attributes::read(directory, name)
}

/// Returns whether the entry `name` of a directory has an extended attribute whose name begins so.
///
/// # Errors
/// They cannot be read.
pub(crate) fn has_attribute(directory: BorrowedFd<'_>, name: &CStr, beginning: &[u8]) -> io::Result<bool> {
    attributes::has(directory, name, beginning)
}

/// A directory and its copy.
struct Pair {
    from: OwnedFd,
    to: OwnedFd,
}

/// A directory or large file that is still to be copied: not opened yet, since descriptors are few.
struct Waiting {
    parents: Arc<Pair>,
    name: CString,
    kind: Kind,
}

enum Kind {
    /// By its number.
    Directory(usize),
    /// With the number of the directory that it is in.
    File(usize, Stat),
}

/// One copy in progress.
struct Job {
    ownership: Ownership,
    sharing: Sharing,
    destination: Destination,
    /// Whether it is worth asking for a reflink: until the first time that the file system has none.
    clones: AtomicBool,
    failed: AtomicBool,
    first_failure: Mutex<Option<CopyError>>,
    entries: AtomicU64,
    bytes: AtomicU64,
    lost: Mutex<Vec<Lost>>,
    /// Of a file with several names, where it was copied under the first one met.
    first_names: Mutex<HashMap<(u64, u64), PathBuf>>,
    /// The further names: where the first one is, and the new one.
    links: Mutex<Vec<(PathBuf, PathBuf)>>,
    known: Mutex<Directories>,
    /// The directories whose attributes are still to be set, by their numbers.
    stats: Mutex<Vec<(usize, Stat)>>,
}

/// An entry, as messages name it: the number of the directory that it is in, and its name.
#[derive(Clone, Copy)]
struct At<'a> {
    within: usize,
    name: &'a CStr,
}

impl Job {
    /// The path of an entry, below the root of the copy.
    fn path(&self, at: At<'_>) -> PathBuf {
        lock(&self.known).path(at.within).join(OsStr::from_bytes(at.name.to_bytes()))
    }

    fn fail(&self, path: PathBuf, source: impl Into<io::Error>) {
        self.failed.store(true, Ordering::Relaxed);
        lock(&self.first_failure).get_or_insert(CopyError { path, source: source.into() });
    }

    fn visit(&self, next: Waiting, waiting: &mut Vec<Waiting>) -> usize {
        if self.failed.load(Ordering::Relaxed) {
            return 0;
        }
        let Waiting { parents, name, kind } = next;
        let (at, done) = match kind {
            Kind::Directory(number) => {
                let within = lock(&self.known).parent(number);
                (At { within, name: &name }, self.directory(&parents, &name, number, waiting))
            }
            Kind::File(within, stat) => {
                let at = At { within, name: &name };
                (at, self.file(&parents, at, &stat).map(|()| 1))
            }
        };
        done.unwrap_or_else(|error| {
            self.fail(self.path(at), error);
            0
        })
    }

    /// Copies the entries of a directory, but for directories and large files, which have to wait. Returns how many
    /// there were.
    fn directory(&self, parents: &Pair, name: &CStr, number: usize, waiting: &mut Vec<Waiting>) -> io::Result<usize> {
        let pair = Arc::new(open_pair(parents, name)?);
        self.entries.fetch_add(1, Ordering::Relaxed);
        let mut work = 0;
        for entry in Dir::read_from(&pair.from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let at = At { within: number, name };
            work += 1;
            match self.entry(&pair, at) {
                Ok(None) => {}
                Ok(Some(kind)) => {
                    // A large file is worth help at once.
                    work += if matches!(kind, Kind::File(..)) { SHARE } else { 0 };
                    waiting.push(Waiting { parents: Arc::clone(&pair), name: CString::from(name), kind });
                }
                Err(error) => self.fail(self.path(at), error),
            }
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(work)
    }

    /// Copies an entry, or says that it has to wait as what it is.
    fn entry(&self, pair: &Pair, at: At<'_>) -> io::Result<Option<Kind>> {
        let stat = rustix::fs::statat(&pair.from, at.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(&pair.to, at.name, Mode::RWXU)?;
            let number = lock(&self.known).add(at.within, at.name);
            lock(&self.stats).push((number, stat));
            return Ok(Some(Kind::Directory(number)));
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        if stat.st_nlink > 1
            && let Some(first) = self.first_name(&stat, at)
        {
            lock(&self.links).push((first, self.path(at)));
        } else if kind != FileType::RegularFile {
            self.special(pair, at, kind, &stat)?;
        } else if stat.st_size >= LARGE {
            return Ok(Some(Kind::File(at.within, stat)));
        } else {
            self.file(pair, at, &stat)?;
        }
        Ok(None)
    }

    /// Where the file was copied to already, or none if this is the first of its names.
    fn first_name(&self, stat: &Stat, at: At<'_>) -> Option<PathBuf> {
        let path = self.path(at);
        let mut names = lock(&self.first_names);
        let known = names.get(&(stat.st_dev, stat.st_ino)).cloned();
        if known.is_none() {
            names.insert((stat.st_dev, stat.st_ino), path);
        }
        known
    }

    fn file(&self, pair: &Pair, at: At<'_>, stat: &Stat) -> io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = rustix::fs::openat(&pair.from, at.name, read, Mode::empty())?;
        let to = rustix::fs::openat(&pair.to, at.name, write, Mode::RUSR | Mode::WUSR)?;
        let size = stat.st_size.unsigned_abs();
        data::copy(from.as_fd(), to.as_fd(), size, self.sharing, self.destination, &self.clones)?;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        attributes::copy(from.as_fd(), to.as_fd(), stat, self.ownership, &mut self.losing(|| self.path(at)))
    }

    fn special(&self, pair: &Pair, at: At<'_>, kind: FileType, stat: &Stat) -> io::Result<()> {
        let name = at.name;
        if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&pair.from, name, Vec::new())?;
            rustix::fs::symlinkat(&*target, &pair.to, name)?;
        } else {
            rustix::fs::mknodat(&pair.to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
        }
        let losing = &mut self.losing(|| self.path(at));
        attributes::copy_by_name(pair.from.as_fd(), pair.to.as_fd(), name, stat, self.ownership, losing)
    }

    fn losing<'a>(&'a self, path: impl Fn() -> PathBuf + 'a) -> impl FnMut(&CStr, rustix::io::Errno) + 'a {
        move |attribute, reason| {
            let attribute = attribute.to_string_lossy().into_owned();
            lock(&self.lost).push(Lost { path: path(), attribute, reason: reason.to_string() });
        }
    }

    fn link_all(&self, to: BorrowedFd<'_>) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        for (first, name) in std::mem::take(&mut *lock(&self.links)) {
            let linked = long_path::place(to, &first).and_then(|first| {
                let name = long_path::place(to, &name)?;
                let flags = AtFlags::empty();
                Ok(rustix::fs::linkat(first.directory(), &*first.path, name.directory(), &*name.path, flags)?)
            });
            if let Err(error) = linked {
                return self.fail(name, error);
            }
        }
    }

    /// Sets the attributes of all directories, the deepest first.
    fn finish_directories(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        let known = std::mem::take(&mut *lock(&self.known));
        let mut directories = std::mem::take(&mut *lock(&self.stats));
        directories.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(known.depth(*number)));
        let shallow = directories.partition_point(|(number, _)| known.depth(*number) > SHALLOW);
        let (deep, shallow) = directories.split_at(shallow);
        self.finish_deep(&known, deep, from, to);
        // Those of one depth at the same time.
        for same_depth in shallow.chunk_by(|one, other| known.depth(one.0) == known.depth(other.0)) {
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
            same_depth.par_iter().with_min_len(SHARE).for_each(|(number, stat)| {
                let path = path_of(&known, *number);
                let finished = open_directory_below(from, &path).and_then(|from| {
                    let to = open_directory_below(to, &path)?;
                    self.finish(from.as_fd(), to.as_fd(), stat, || path.clone())
                });
                if let Err(error) = finished {
                    self.fail(path, error);
                }
            });
        }
    }

    /// The same of directories that each path leads to in many steps: one after the other, by the steps between them.
    fn finish_deep(&self, known: &Directories, deep: &[(usize, Stat)], from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        if deep.is_empty() {
            return;
        }
        let stats: HashMap<usize, &Stat> = deep.iter().map(|(number, stat)| (*number, stat)).collect();
        let finish_all = |at: &mut usize| {
            let (mut from, mut to) = (Cursor::new(known, from)?, Cursor::new(known, to)?);
            for number in known.in_order().into_iter().rev() {
                *at = number;
                if let Some(stat) = stats.get(&number) {
                    self.finish(from.go_to(number)?, to.go_to(number)?, stat, || path_of(known, number))?;
                }
            }
            Ok(())
        };
        let mut at = ROOT;
        if let Err(error) = finish_all(&mut at) {
            let error: io::Error = error;
            self.fail(path_of(known, at), error);
        }
    }

    fn finish(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        stat: &Stat,
        path: impl Fn() -> PathBuf,
    ) -> io::Result<()> {
        attributes::copy(from, to, stat, self.ownership, &mut self.losing(path))
    }
}

/// The path of a directory, as messages name it and as it is opened.
fn path_of(known: &Directories, number: usize) -> PathBuf {
    if number == ROOT { PathBuf::from(".") } else { known.path(number) }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_pair(parents: &Pair, name: &CStr) -> io::Result<Pair> {
    let from = rustix::fs::openat(&parents.from, name, DIRECTORY, Mode::empty())?;
    let to = rustix::fs::openat(&parents.to, name, DIRECTORY, Mode::empty())?;
    Ok(Pair { from, to })
}

fn open_directory_below(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let place = long_path::place(root, path)?;
    Ok(rustix::fs::openat(place.directory(), &*place.path, DIRECTORY, Mode::empty())?)
}

/// A descriptor of the same directory with a reading position of its own.
fn reopen(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, c".", DIRECTORY, Mode::empty())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
