//! Single files of osbuild's store: opened with a lock, made and replaced so that nobody sees half of one.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fs::regular;

/// What others may do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Hold it shared too.
    Shared,
    /// Nothing.
    Exclusive,
}

/// Whether to wait for who holds a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// What came of asking for a lock.
#[derive(Debug)]
pub(crate) enum Held {
    /// It is ours until the descriptor is closed.
    Yes(OwnedFd),
    /// Others have it, and it was not to be waited for.
    ByOthers,
}

impl Held {
    /// The lock.
    ///
    /// # Errors
    /// Others have it.
    pub(crate) fn taken(self) -> io::Result<OwnedFd> {
        match self {
            Held::Yes(held) => Ok(held),
            Held::ByOthers => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Opens a file and locks it; of one that is replaced meanwhile, the new one.
///
/// # Errors
/// It cannot be opened, or is gone.
pub(crate) fn open(path: &Path, lock: Lock, wait: Wait, more: OFlags) -> io::Result<Held> {
    let access = match lock {
        Lock::Shared => OFlags::RDONLY,
        Lock::Exclusive => OFlags::RDWR,
    };
    loop {
        let file: OwnedFd = regular::open(path, access | more, Mode::empty())?.into();
        if !take(&file, lock, wait)? {
            return Ok(Held::ByOthers);
        }
        let held = rustix::fs::fstat(&file)?;
        match rustix::fs::stat(path) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => return Ok(Held::Yes(file)),
            // Replaced or removed between the opening and the lock.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a file at `path`, complete; one that is there already stays as it is.
///
/// # Errors
/// The store cannot be written to.
pub(crate) fn create(store: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    match temporary(store, content)?.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// Makes a locked file at `path`; returns its lock.
///
/// # Errors
/// It is there already, or the store cannot be written to.
pub(crate) fn create_locked(store: &Path, path: &Path) -> io::Result<OwnedFd> {
    let file = temporary(store, b"")?;
    // Nobody else knows its name.
    take(file.as_file(), Lock::Exclusive, Wait::Yes)?;
    Ok(file.persist_noclobber(path)?.into())
}

/// Puts a file with this content in the place of the one at `path`.
///
/// # Errors
/// The store cannot be written to.
pub(crate) fn replace(store: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    temporary(store, content)?.persist(path)?;
    Ok(())
}

/// A file under a name that osbuild takes for nobody's.
fn temporary(store: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = format!("uuid-{}", uuid::Uuid::new_v4().simple());
    let mut file = tempfile::Builder::new()
        .prefix(&name)
        .rand_bytes(0)
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(store.join("objects"))?;
    file.write_all(content)?;
    Ok(file)
}

/// Locks an open file; says whether it could be had.
fn take(file: &impl std::os::fd::AsFd, lock: Lock, wait: Wait) -> io::Result<bool> {
    let kind = match lock {
        Lock::Shared => libc::F_RDLCK,
        Lock::Exclusive => libc::F_WRLCK,
    };
    let whole = libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    loop {
        let argument = match wait {
            Wait::Yes => FcntlArg::F_OFD_SETLKW(&whole),
            Wait::No => FcntlArg::F_OFD_SETLK(&whole),
        };
        match fcntl(file, argument) {
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => return Ok(false),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
