//! Sets the times of what a build has written to its source epoch.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, IFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::fs::walk;
use crate::fs::walk::Entry;

/// Returns every entry of `root`, itself included, whose modification time is not before `created` the time `epoch`;
/// symbolic links too, which are not followed.
pub(crate) fn clamp(root: &Path, created: Timespec, epoch: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let created = (created.tv_sec, i128::from(created.tv_nsec));
    walk::entries(root, |entry| {
        let is_older = (entry.stat.st_mtime, i128::from(entry.stat.st_mtime_nsec)) < created;
        if is_older { Ok(()) } else { set(entry, &times) }
    })
    .map(drop)
}

fn set(entry: &Entry<'_>, times: &Timestamps) -> io::Result<()> {
    match rustix::fs::utimensat(entry.directory, entry.name, times, AtFlags::SYMLINK_NOFOLLOW) {
        // A file marked immutable or append-only.
        Err(Errno::PERM) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(entry.directory, entry.name, flags, Mode::empty())?;
            let marks = rustix::fs::ioctl_getflags(&file)?;
            rustix::fs::ioctl_setflags(&file, marks - (IFlags::IMMUTABLE | IFlags::APPEND))?;
            rustix::fs::futimens(&file, times)?;
            Ok(rustix::fs::ioctl_setflags(&file, marks)?)
        }
        other => Ok(other?),
    }
}
