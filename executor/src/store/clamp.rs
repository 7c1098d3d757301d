//! Sets the times of what a build has written to its source epoch.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// Gives every entry of `root`, itself included, whose modification time is not before `created` the time `epoch`;
/// symbolic links too, which are not followed.
pub(super) fn clamp(root: &Path, created: Timespec, epoch: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let job = Job { created, times: Timestamps { last_access: time, last_modification: time } };
    job.entry(CWD, root)?;
    let mut level = vec![open(CWD, root)?];
    while !level.is_empty() {
        let next: Vec<Vec<OwnedFd>> = level.par_iter().map(|folder| job.folder(folder)).collect::<io::Result<_>>()?;
        level = next.into_iter().flatten().collect();
    }
    Ok(())
}

struct Job {
    created: Timespec,
    times: Timestamps,
}

impl Job {
    /// Clamps the entries of a folder; gives the folders among them.
    fn folder(&self, folder: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
        let mut folders = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = self.entry(folder, name)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(open(folder, name)?);
            }
        }
        Ok(folders)
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
