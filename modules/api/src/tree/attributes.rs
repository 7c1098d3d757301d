//! Modes, owners, times and extended attributes of what is in a tree.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Tree, cannot, handle_path};
use crate::error::Error;
use crate::owners;

/// Points in time, in seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Of the last access.
    pub accessed: (i64, u32),
    /// Of the last change of the content.
    pub modified: (i64, u32),
}

impl From<Times> for Timestamps {
    fn from(times: Times) -> Self {
        let spec = |(seconds, nanoseconds): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        Timestamps { last_access: spec(times.accessed), last_modification: spec(times.modified) }
    }
}

impl Tree {
    /// Sets the mode bits of `path`, where links lead.
    ///
    /// # Errors
    /// It is not there.
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        self.by_handle(path, true, |place| rustix::fs::chmod(place, Mode::from_raw_mode(mode)))
            .map_err(cannot("set the mode of", path))
    }

    /// Sets owner and group of `path`, where links lead; none leaves them. As always this takes the setuid and setgid
    /// bits from a file.
    ///
    /// # Errors
    /// It is not there, or the process may not.
    pub fn chown(&self, path: impl AsRef<Path>, user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
        self.set_owner(path.as_ref(), user, group, true)
    }

    /// Sets owner and group of `path` itself, which may be a link; none leaves them.
    ///
    /// # Errors
    /// It is not there, or the process may not.
    pub fn lchown(&self, path: impl AsRef<Path>, user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
        self.set_owner(path.as_ref(), user, group, false)
    }

    fn set_owner(&self, path: &Path, user: Option<u32>, group: Option<u32>, follow: bool) -> Result<(), Error> {
        // The number that stands for "leave it" in the system call is nobody's.
        if user == Some(u32::MAX) || group == Some(u32::MAX) {
            return Err(cannot("set the owner of", path)(Errno::INVAL));
        }
        let (owner, owning) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        self.by_handle(path, follow, |place| rustix::fs::chown(place, owner, owning))
            .map_err(|error| cannot("set the owner of", path)(owners::refused(error, user, group)))
    }

    /// Sets the times of `path` itself, which may be a link.
    ///
    /// # Errors
    /// It is not there.
    pub fn set_times(&self, path: impl AsRef<Path>, times: Times) -> Result<(), Error> {
        let path = path.as_ref();
        self.at(path, |directory, name| {
            rustix::fs::utimensat(directory, name, &times.into(), AtFlags::SYMLINK_NOFOLLOW)
        })
        .map_err(cannot("set the times of", path))
    }

    /// The extended attribute `name` of `path` itself, if it has it.
    ///
    /// # Errors
    /// `path` is not there.
    pub fn xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Result<Option<Vec<u8>>, Error> {
        let (path, name) = (path.as_ref(), name.as_ref());
        match self.by_handle(path, false, |place| read_xattr(place, name)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => Ok(None),
            Err(error) => Err(cannot("read an extended attribute of", path)(error)),
        }
    }

    /// Sets an extended attribute of `path` itself.
    ///
    /// # Errors
    /// `path` is not there, or the file system or the kernel refuses the attribute.
    pub fn set_xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>, value: &[u8]) -> Result<(), Error> {
        let (path, name) = (path.as_ref(), name.as_ref());
        self.by_handle(path, false, |place| rustix::fs::setxattr(place, name, value, XattrFlags::empty()))
            .map_err(cannot("set an extended attribute of", path))
    }

    /// The names of the extended attributes of `path` itself, sorted.
    ///
    /// # Errors
    /// It is not there.
    pub fn xattr_names(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, Error> {
        let path = path.as_ref();
        self.by_handle(path, false, read_xattr_names).map_err(cannot("list the extended attributes of", path))
    }

    /// Takes an extended attribute from `path` itself.
    ///
    /// # Errors
    /// `path` is not there or does not have it.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Result<(), Error> {
        let (path, name) = (path.as_ref(), name.as_ref());
        self.by_handle(path, false, |place| rustix::fs::removexattr(place, name))
            .map_err(cannot("remove an extended attribute of", path))
    }

    /// Calls a system call that takes a path and follows links, on exactly what is at `path`.
    fn by_handle<T>(&self, path: &Path, follow: bool, call: impl FnOnce(&Path) -> Result<T, Errno>) -> io::Result<T> {
        let file = self.pin(path, follow)?;
        Ok(call(&handle_path(&file))?)
    }
}

/// Reads an extended attribute of whatever size.
pub(super) fn read_xattr(place: &Path, name: &OsStr) -> Result<Vec<u8>, Errno> {
    loop {
        let mut value = vec![0; rustix::fs::getxattr_query(place, name)?];
        match rustix::fs::getxattr(place, name, &mut value) {
            // It grew in between.
            Err(Errno::RANGE) => {}
            length => {
                value.truncate(length?);
                return Ok(value);
            }
        }
    }
}

/// Reads the names of the extended attributes, sorted.
pub(super) fn read_xattr_names(place: &Path) -> Result<Vec<OsString>, Errno> {
    loop {
        let mut list = vec![0; rustix::fs::listxattr_query(place)?];
        match rustix::fs::listxattr(place, &mut list) {
            // There are more in the meantime.
            Err(Errno::RANGE) => {}
            length => {
                list.truncate(length?);
                let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                let mut names: Vec<OsString> = names.map(|name| OsStr::from_bytes(name).to_owned()).collect();
                names.sort();
                return Ok(names);
            }
        }
    }
}
