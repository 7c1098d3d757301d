//! Copies what an entry has besides its content, in the one order that keeps all of it.
//!
//! The owner comes first, since changing it drops capabilities and setuid bits; then extended attributes and ACLs, the
//! mode, and the times.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Ownership;

/// Gets every extended attribute that cannot be kept.
type Losing<'a> = dyn FnMut(&CStr, Errno) + 'a;

/// Returns `to` what `from` has, of which `stat` is known already.
pub(crate) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    ownership: Ownership,
    losing: &mut Losing<'_>,
) -> io::Result<()> {
    copy_those(from, to, stat, ownership, |_| true, losing)
}

/// The same with only those extended attributes that `keep` wants.
pub(crate) fn copy_those(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    ownership: Ownership,
    keep: impl Fn(&CStr) -> bool,
    losing: &mut Losing<'_>,
) -> io::Result<()> {
    if ownership == Ownership::Keep {
        rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    let get = |name: &CStr, value: &mut [u8]| rustix::fs::fgetxattr(from, name, value);
    for_each_attribute(
        |list| rustix::fs::flistxattr(from, list),
        get,
        |name, value| {
            if !keep(name) {
                return Ok(());
            }
            settle(name, rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()), losing)
        },
    )?;
    rustix::fs::fchmod(to, mode(stat, ownership))?;
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

/// The same for an entry that cannot be opened: a symbolic link, a device node, a pipe, a socket.
pub(crate) fn copy_by_name(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    ownership: Ownership,
    losing: &mut Losing<'_>,
) -> io::Result<()> {
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    if ownership == Ownership::Keep {
        rustix::fs::chownat(to, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), no_follow)?;
    }
    let (source, target) = (by_descriptor(from, name), by_descriptor(to, name));
    let get = |attribute: &CStr, value: &mut [u8]| rustix::fs::lgetxattr(&source, attribute, value);
    for_each_attribute(
        |list| rustix::fs::llistxattr(&source, list),
        get,
        |attribute, value| {
            settle(attribute, rustix::fs::lsetxattr(&target, attribute, value, XattrFlags::empty()), losing)
        },
    )?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode(stat, ownership), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to, name, &times(stat), no_follow)?)
}

/// The extended attributes of the entry `name` of a directory, ACLs included.
pub(crate) fn read(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let path = by_descriptor(directory, name);
    let mut found = Vec::new();
    for_each_attribute(
        |list| rustix::fs::llistxattr(&path, list),
        |attribute, value| rustix::fs::lgetxattr(&path, attribute, value),
        |attribute, value| {
            found.push((attribute.to_owned(), value.to_vec()));
            Ok(())
        },
    )?;
    Ok(found)
}

/// Whether the entry `name` of a directory has an extended attribute whose name begins so.
pub(crate) fn has(directory: BorrowedFd<'_>, name: &CStr, beginning: &[u8]) -> io::Result<bool> {
    let path = by_descriptor(directory, name);
    match sized(|list| rustix::fs::llistxattr(&path, list)) {
        Ok(names) => Ok(names.split(|&byte| byte == 0).any(|name| name.starts_with(beginning))),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes from a new directory what it inherited from the one it lies in.
pub(crate) fn remove_inherited(directory: BorrowedFd<'_>) {
    for name in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        // A file system without ACLs has none to inherit.
        rustix::fs::fremovexattr(directory, name).ok();
    }
}

fn mode(stat: &Stat, ownership: Ownership) -> Mode {
    let mut mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if ownership == Ownership::Drop {
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            mode.remove(Mode::SUID);
        }
        if stat.st_gid != rustix::process::getegid().as_raw() {
            mode.remove(Mode::SGID);
        }
    }
    mode
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// A path for the calls that know no descriptors: the last component is the entry itself, not what it points at.
fn by_descriptor(directory: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

fn settle(name: &CStr, set: rustix::io::Result<()>, losing: &mut Losing<'_>) -> io::Result<()> {
    match set {
        Err(reason @ (Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS)) => losing(name, reason),
        other => other?,
    }
    Ok(())
}

fn for_each_attribute(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
    mut set: impl FnMut(&CStr, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let names = match sized(&list) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CString::from_vec_with_nul(name.to_vec()) else { continue };
        match sized(|value: &mut [u8]| get(&name, value)) {
            Ok(value) => set(&name, &value)?,
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Calls with a buffer that is large enough, whatever that is.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 24 => {
                let length = buffer.len() * 8;
                buffer.resize(length, 0);
            }
            Err(error) => return Err(error),
        }
    }
}
