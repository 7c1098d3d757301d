//! File locks, released by the kernel when their holder is gone, however it went.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::regular;

/// Makes the directory at `path` where it is missing, and locks it for its one owner. `None` if somebody else has it,
/// or removed it meanwhile.
///
/// # Errors
/// It can be neither made nor opened.
pub(crate) fn own_directory(path: &Path) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    own_existing(path)
}

/// Locks the directory at `path` for its one owner. `None` if somebody else has it or it is gone.
///
/// # Errors
/// It cannot be opened.
pub fn own_existing(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Whoever had it before may have removed it between the opening and the lock.
    let (held, there) = (rustix::fs::fstat(&directory)?, rustix::fs::stat(path));
    Ok(there.is_ok_and(|there| (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)).then_some(directory))
}

/// Takes the shared side of the lock file at `path`, which many may hold at once; waits for an exclusive holder.
/// Released when the descriptor is closed.
///
/// # Errors
/// The file can be neither made nor locked.
pub(crate) fn share(path: &Path) -> io::Result<OwnedFd> {
    wait(path, FlockOperation::LockShared)
}

/// Takes the exclusive side, which nobody holds beside another or beside a sharer; waits for all of them.
///
/// # Errors
/// The file can be neither made nor locked.
pub(crate) fn exclude(path: &Path) -> io::Result<OwnedFd> {
    wait(path, FlockOperation::LockExclusive)
}

fn wait(path: &Path, side: FlockOperation) -> io::Result<OwnedFd> {
    let file = regular::open(path, OFlags::RDWR | OFlags::CREATE, regular::PRIVATE)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, side))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("mine");
        let owner = own_directory(&path).expect("makes it").expect("is the first");
        assert!(own_directory(&path).expect("asks").is_none());
        drop(owner);
        let owner = own_existing(&path).expect("asks").expect("is free again");
        std::fs::remove_dir(&path).expect("removes");
        drop(owner);
        assert!(own_existing(&path).expect("asks").is_none());
    }
}
