//! Copies between trees as `cp -a --reflink=auto` does.
//!
//! That is with owners, modes, times to the nanosecond, extended attributes, hard links among what is copied, holes,
//! device nodes and pipes, sharing blocks where the file systems can.
//!
//! Unlike `cp`, nothing is followed out of either tree, and the first failure ends it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::attributes::{read_xattr, read_xattr_names};
use super::{Tree, cannot, entries_in, handle_path, unless_missing};
use crate::data_extents::data_extents;
use crate::error::Error;
use crate::owners;
use crate::threads;

/// From how many names in a directory without directories on it is copied by many threads.
const MANY: usize = 32;

/// How much is copied at once where the kernel cannot do it.
const BUFFER: usize = 64 * 1024;

/// How to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Whether an existing file is removed instead of written to; matters where it is a link.
    pub remove_destination: bool,
    /// Whether the copies get the owners of what they are copied from.
    pub owners: bool,
}

impl Default for Copy {
    fn default() -> Self {
        Self { remove_destination: false, owners: true }
    }
}

impl Copy {
    /// Copies the file, link or directory `source` of one tree to `destination` in another or the same.
    ///
    /// If `destination` is a directory, or a link to one, the copy is put into it under its own name. What ends in
    /// `/.`, such as `.` for a whole tree, is the content of a directory and merged with what is in `destination`.
    /// Existing files are overwritten.
    ///
    /// # Errors
    /// `source` or the directory of `destination` is not there, a directory would replace something else or something
    /// else a directory, source and destination are the same, or the system refuses.
    pub fn run(
        self,
        from: &Tree,
        source: impl AsRef<Path>,
        to: &Tree,
        destination: impl AsRef<Path>,
    ) -> Result<(), Error> {
        self.run_as(from, source, None, to, destination)
    }

    /// Copies as [`run`](Self::run) does, but what is put into a directory gets another `name` there than its own.
    ///
    /// So a whole tree, which has no name, becomes a directory instead of being merged.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn run_as(
        self,
        from: &Tree,
        source: impl AsRef<Path>,
        new_name: Option<&OsStr>,
        to: &Tree,
        destination: impl AsRef<Path>,
    ) -> Result<(), Error> {
        let (source, destination) = (source.as_ref(), destination.as_ref());
        let (fd, name) = from.locate(source).map_err(cannot("copy", source))?;
        let contents = name == ".";
        let parent = if contents { source } else { source.parent().unwrap_or(Path::new("")) };
        let from_directory = Directory { fd, path: parent.to_owned() };
        let (to_directory, to_name) = if to.is_dir(destination)? {
            let fd = to.open_directory(destination).map_err(cannot("copy to", destination))?;
            (Directory { fd, path: destination.to_owned() }, new_name.unwrap_or(&name).to_owned())
        } else {
            let (fd, name) = to.locate(destination).map_err(cannot("copy to", destination))?;
            (Directory { fd, path: destination.parent().unwrap_or(Path::new("")).to_owned() }, name)
        };
        let inside = is_inside(&to_directory.fd, &from_directory.fd, &name).map_err(cannot("copy", source))?;
        if inside {
            let source = Path::new("/").join(source);
            return Err(Error::failed(format!("{} cannot be copied into itself", source.display())));
        }
        let job = Job { settings: self, from, to, links: Mutex::default(), clones: AtomicBool::new(true) };
        job.entry(&from_directory, &name, &to_directory, &to_name, false)
    }
}

/// An open directory and its path in its tree.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    fn open(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.fd, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    fn inner(&self, name: &OsStr) -> Result<Directory, Errno> {
        let fd = self.open(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Directory { fd, path: self.path.join(name) })
    }

    fn stat(&self, name: &OsStr) -> Result<Option<Stat>, Errno> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the first copy of a file with many names is, once it is made.
type First = Arc<Mutex<Option<PathBuf>>>;

/// One copy in the making.
#[derive(Debug)]
struct Job<'a> {
    settings: Copy,
    from: &'a Tree,
    to: &'a Tree,
    /// By device and inode, for what has more than one name.
    links: Mutex<HashMap<(u64, u64), First>>,
    /// Whether blocks can be shared, as far as is known.
    clones: AtomicBool,
}

/// The failure to copy a directory to a name that is there and cannot be opened as one.
fn in_the_way(to: &Directory, name: &OsStr, error: Errno) -> Error {
    let path = to.path.join(name);
    let kind = to.stat(name).ok().flatten().map(|stat| FileType::from_raw_mode(stat.st_mode));
    let what = match kind {
        Some(FileType::Symlink) => {
            let target = rustix::fs::readlinkat(&to.fd, name, Vec::new()).unwrap_or_default();
            format!("a symbolic link to `{}`; copy to where it leads, or remove it before", target.to_string_lossy())
        }
        Some(FileType::RegularFile) => "a file; remove it before".to_owned(),
        Some(FileType::Directory) | None => return cannot("copy a directory to", &path)(error),
        Some(_) => "no directory; remove it before".to_owned(),
    };
    Error::failed(format!(
        "cannot copy a directory to {}: what is there is {what}",
        Path::new("/").join(path).display()
    ))
}

impl Job<'_> {
    /// Copies one name and all below it. `fresh` says that the directory it goes to was made by this copy, so nothing
    /// can be there.
    fn entry(&self, from: &Directory, name: &OsStr, to: &Directory, to_name: &OsStr, fresh: bool) -> Result<(), Error> {
        let path = from.path.join(name);
        let stat = rustix::fs::statat(&from.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(cannot("copy", &path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.directory(from, name, to, to_name, fresh, &stat);
        }
        let leaf = || self.leaf(from, name, to, to_name, fresh, &stat).map_err(cannot("copy", &path));
        if stat.st_nlink < 2 {
            return leaf();
        }
        let first = Arc::clone(lock(&self.links).entry((stat.st_dev, stat.st_ino)).or_default());
        let mut first = lock(&first);
        if let Some(first) = &*first {
            return self.link(first, to, to_name, fresh).map_err(cannot("copy", &path));
        }
        leaf()?;
        *first = Some(to.path.join(to_name));
        Ok(())
    }

    fn directory(
        &self,
        from: &Directory,
        name: &OsStr,
        to: &Directory,
        to_name: &OsStr,
        fresh: bool,
        stat: &Stat,
    ) -> Result<(), Error> {
        let path = to.path.join(to_name);
        let fresh = match rustix::fs::mkdirat(&to.fd, to_name, Mode::RWXU) {
            Err(Errno::EXIST) if !fresh => false,
            result => result.map(|()| true).map_err(cannot("create the directory", &path))?,
        };
        let inner = from.inner(name).map_err(cannot("copy", from.path.join(name)))?;
        let to_inner = to.inner(to_name).map_err(|error| in_the_way(to, to_name, error))?;
        let entries = entries_in(&inner.fd).map_err(cannot("list", &inner.path))?;
        let copy = |(name, _): &(OsString, FileType)| self.entry(&inner, name, &to_inner, name, fresh);
        if entries.len() >= MANY || entries.iter().any(|(_, kind)| *kind == FileType::Directory) {
            threads::start_pool().map_err(Error::NoThread)?;
            entries.par_iter().try_for_each(copy)?;
        } else {
            entries.iter().try_for_each(copy)?;
        }
        self.attributes(&inner.fd, &to_inner.fd, fresh, stat).map_err(cannot("set the attributes of", &path))
    }

    /// Copies what is no directory.
    fn leaf(
        &self,
        from: &Directory,
        name: &OsStr,
        to: &Directory,
        to_name: &OsStr,
        fresh: bool,
        stat: &Stat,
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            let source = File::from(from.open(name, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let (target, new) = self.target(from, name, to, to_name, fresh, stat)?;
            self.content(&source, &target, stat)?;
            return self.attributes(&source, &target, fresh || new, stat);
        }
        if !fresh {
            self.make_way(from, name, to, to_name)?;
        }
        if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&from.fd, name, Vec::new())?;
            rustix::fs::symlinkat(target, &to.fd, to_name)?;
        } else {
            rustix::fs::mknodat(&to.fd, to_name, kind, Mode::empty(), stat.st_rdev)?;
        }
        let source = from.open(name, OFlags::PATH)?;
        let target = to.open(to_name, OFlags::PATH)?;
        self.attributes(&source, &target, fresh, stat)
    }

    /// Opens the file to write to, and says whether it is new: one that is there is written to, where links in the tree
    /// lead, unless it has other names that would change with it.
    fn target(
        &self,
        from: &Directory,
        name: &OsStr,
        to: &Directory,
        to_name: &OsStr,
        fresh: bool,
        source: &Stat,
    ) -> io::Result<(File, bool)> {
        if !fresh {
            let path = to.path.join(to_name);
            if self.settings.remove_destination {
                self.make_way(from, name, to, to_name)?;
            } else if let Ok(pin) = self.to.pin(&path, true) {
                let there = rustix::fs::fstat(&pin)?;
                refuse_same(is_same(&there, source))?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory && there.st_nlink > 1 {
                    rustix::fs::unlinkat(&to.fd, to_name, AtFlags::empty())?;
                } else {
                    return Ok((self.to.open_at(&path, OFlags::WRONLY | OFlags::TRUNC | OFlags::NOCTTY, 0)?, false));
                }
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok((File::from(rustix::fs::openat(&to.fd, to_name, flags, mode)?), true))
    }

    /// Removes what is where a copy will be, unless it is the source, or what the source leads to.
    fn make_way(&self, from: &Directory, name: &OsStr, to: &Directory, to_name: &OsStr) -> io::Result<()> {
        let Some(there) = to.stat(to_name)? else { return Ok(()) };
        let directories = is_same(&rustix::fs::fstat(&from.fd)?, &rustix::fs::fstat(&to.fd)?);
        let leads_there = || match self.from.pin(&from.path.join(name), true) {
            Ok(pin) => rustix::fs::fstat(&pin).map(|target| is_same(&target, &there)),
            Err(_) => Ok(false),
        };
        refuse_same(directories && name == to_name || !self.settings.remove_destination && leads_there()?)?;
        Ok(rustix::fs::unlinkat(&to.fd, to_name, AtFlags::empty())?)
    }

    /// Makes a further name of what was copied before.
    fn link(&self, first: &Path, to: &Directory, name: &OsStr, fresh: bool) -> io::Result<()> {
        let (directory, first) = self.to.locate(first)?;
        if !fresh {
            unless_missing(rustix::fs::unlinkat(&to.fd, name, AtFlags::empty()))?;
        }
        Ok(rustix::fs::linkat(directory, &first, &to.fd, name, AtFlags::empty())?)
    }

    fn content(&self, source: &File, target: &File, stat: &Stat) -> io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            // Files of the kernel have no size, and content all the same.
            return pump(source, target, u64::MAX).map(drop);
        }
        if self.clones.load(Ordering::Relaxed) {
            if rustix::fs::ioctl_ficlone(target, source).is_ok() {
                return Ok(());
            }
            self.clones.store(false, Ordering::Relaxed);
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        if blocks.saturating_mul(512) >= size {
            return copy_range(source, target, 0, size);
        }
        for (start, length) in data_extents(source, size)? {
            copy_range(source, target, start, start + length)?;
        }
        Ok(rustix::fs::ftruncate(target, size)?)
    }

    /// Gives the copy the owner, extended attributes, mode and times of its source, in the order in which none undoes
    /// another.
    fn attributes(&self, source: &impl AsFd, target: &impl AsFd, fresh: bool, stat: &Stat) -> io::Result<()> {
        let (from, to) = (handle_path(source), handle_path(target));
        if self.settings.owners {
            let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(target, "", Some(user), Some(group), AtFlags::EMPTY_PATH)
                .map_err(|error| owners::refused(error, Some(stat.st_uid), Some(stat.st_gid)))?;
        }
        if !fresh {
            for list in ["system.posix_acl_access", "system.posix_acl_default"] {
                unless_absent(rustix::fs::removexattr(&to, list))?;
            }
        }
        let names = match read_xattr_names(&from) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            names => names?,
        };
        for name in names {
            let value = read_xattr(&from, &name)?;
            unless_absent(rustix::fs::setxattr(&to, &name, &value, XattrFlags::empty()))?;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(stat.st_mode);
            match rustix::fs::fchmod(target, mode) {
                Err(Errno::BADF) => rustix::fs::chmod(&to, mode)?,
                result => result?,
            }
        }
        Ok(rustix::fs::utimensat(target, "", &times(stat), AtFlags::EMPTY_PATH)?)
    }
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = |part| i64::try_from(part).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    }
}

/// Copies a part of a file to the same place of another.
fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while written < end {
        let rest = usize::try_from(end - written).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut read), target, Some(&mut written), rest) {
            Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                rustix::fs::seek(source, SeekFrom::Start(written))?;
                rustix::fs::seek(target, SeekFrom::Start(written))?;
                return pump(source, target, end - written);
            }
            Err(Errno::INTR) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Copies up to so many bytes from where the files stand.
fn pump(source: &File, mut target: &File, most: u64) -> io::Result<()> {
    let mut source = source.take(most);
    let mut buffer = vec![0; BUFFER.min(usize::try_from(most).unwrap_or(BUFFER))];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => target.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the directory `inner` is what `name` in `outer` is, or lies in it.
fn is_inside(inner: &OwnedFd, outer: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(outer, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let wanted = (stat.st_dev, stat.st_ino);
    let mut directory = inner.try_clone()?;
    let mut last = None;
    loop {
        let stat = rustix::fs::fstat(&directory)?;
        let here = (stat.st_dev, stat.st_ino);
        if here == wanted || last == Some(here) {
            return Ok(here == wanted);
        }
        last = Some(here);
        directory =
            rustix::fs::openat(&directory, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn refuse_same(same: bool) -> io::Result<()> {
    if same {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "source and destination are the same file"));
    }
    Ok(())
}

/// Takes "the file system knows no such attribute" for success.
fn unless_absent(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
