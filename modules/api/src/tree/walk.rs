//! Walking a tree, and removing parts of it.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Tree, cannot, entries_in, unless_missing};
use crate::error::Error;

impl Tree {
    /// Visits `path` itself and all that is below it: directories before what they hold, names in the order of their
    /// bytes, links without following them.
    ///
    /// Paths are given as `path` followed by the names.
    ///
    /// # Errors
    /// The visitor's; or `path` is not there or a directory cannot be read.
    pub fn walk(
        &self,
        path: impl AsRef<Path>,
        mut visit: impl FnMut(&Path, &Metadata) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.walk_below(path.as_ref(), &mut visit)
    }

    fn walk_below(
        &self,
        path: &Path,
        visit: &mut dyn FnMut(&Path, &Metadata) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let metadata = self.symlink_metadata(path)?;
        visit(path, &metadata)?;
        if metadata.is_dir() {
            for name in self.read_dir(path)? {
                self.walk_below(&path.join(name), visit)?;
            }
        }
        Ok(())
    }

    /// Removes `path` itself and all that is below it, without following links; does nothing if it is not there.
    ///
    /// # Errors
    /// It is the root or ends in `.` or `..`, or something cannot be removed.
    pub fn remove_dir_all(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let result = match self.locate(path) {
            Ok((_, name)) if name == "." => Err(Errno::INVAL.into()),
            Ok((directory, name)) => remove_all(directory.as_fd(), &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        result.map_err(cannot("remove", path))
    }
}

fn remove_all(directory: BorrowedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return Ok(unless_missing(result)?),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for (entry, kind) in entries_in(&inner)? {
        match kind {
            FileType::Directory | FileType::Unknown => remove_all(inner.as_fd(), &entry)?,
            _ => unless_missing(rustix::fs::unlinkat(&inner, &entry, AtFlags::empty()))?,
        }
    }
    Ok(unless_missing(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))?)
}
