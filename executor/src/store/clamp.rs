//! Sets the times of what a build has written to its source epoch.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::walk::walk;

/// Gives every entry of `root`, itself included, whose modification time is not before `created` the time `epoch`;
/// symbolic links too, which are not followed.
pub(super) fn clamp(root: &Path, created: Timespec, epoch: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let job = Job { created, times, failure: Mutex::default() };
    job.entry(CWD, root)?;
    let first = Folder { parent: Arc::new(open(CWD, root)?), name: CString::from(c".") };
    walk(first, |folder, waiting| {
        job.folder(&folder, waiting).unwrap_or_else(|error| {
            job.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            0
        })
    });
    job.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A folder that is not opened yet, since descriptors are few.
struct Folder {
    parent: Arc<OwnedFd>,
    name: CString,
}

struct Job {
    created: Timespec,
    times: Timestamps,
    failure: Mutex<Option<io::Error>>,
}

impl Job {
    /// Clamps the entries of a folder; those that are folders have to wait. Tells how many entries there were.
    fn folder(&self, folder: &Folder, waiting: &mut Vec<Folder>) -> io::Result<usize> {
        let opened = Arc::new(open(&folder.parent, folder.name.as_c_str())?);
        let mut entries = 0;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            entries += 1;
            let stat = self.entry(&opened, name)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                waiting.push(Folder { parent: Arc::clone(&opened), name: CString::from(name) });
            }
        }
        Ok(entries)
    }

    fn entry(&self, folder: impl std::os::fd::AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<Stat> {
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let modified = (stat.st_mtime, i128::from(stat.st_mtime_nsec));
        if modified < (self.created.tv_sec, i128::from(self.created.tv_nsec)) {
            return Ok(stat);
        }
        match rustix::fs::utimensat(&folder, name, &self.times, AtFlags::SYMLINK_NOFOLLOW) {
            // A file marked immutable or append-only.
            Err(Errno::PERM) => {
                let entry = rustix::fs::openat(
                    &folder,
                    name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let marks = rustix::fs::ioctl_getflags(&entry)?;
                rustix::fs::ioctl_setflags(&entry, marks - (IFlags::IMMUTABLE | IFlags::APPEND))?;
                rustix::fs::futimens(&entry, &self.times)?;
                rustix::fs::ioctl_setflags(&entry, marks)?;
            }
            other => other?,
        }
        Ok(stat)
    }
}

fn open(folder: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}
