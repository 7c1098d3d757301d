//! Paths below an open directory that may be longer than the kernel takes in one call (4096 bytes).
//!
//! Knows neither copying nor deleting, which both walk trees of any depth.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longer paths are walked piece by piece.
const PIECE: usize = 4000;

/// A directory, and a path below it that is short enough for one call.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    directory: Option<OwnedFd>,
    root: BorrowedFd<'a>,
    /// The path below [`Place::directory`].
    pub(crate) path: Cow<'a, Path>,
}

impl Place<'_> {
    /// The directory that the path is to be resolved from.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(self.root, AsFd::as_fd)
    }
}

/// Brings `path` below `root` into a form for one call; follows no symbolic link at the seams of long ones.
///
/// # Errors
/// A directory on a long way cannot be opened.
pub(crate) fn place<'a>(root: BorrowedFd<'a>, path: &'a Path) -> io::Result<Place<'a>> {
    if path.as_os_str().len() < PIECE {
        return Ok(Place { directory: None, root, path: Cow::Borrowed(path) });
    }
    let mut directory: Option<OwnedFd> = None;
    let mut piece = PathBuf::new();
    for component in path.components() {
        if piece.as_os_str().len() + component.as_os_str().as_bytes().len() + 1 >= PIECE {
            let from = directory.as_ref().map_or(root, AsFd::as_fd);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = Some(rustix::fs::openat(from, &piece, flags, Mode::empty())?);
            piece.clear();
        }
        piece.push(component);
    }
    Ok(Place { directory, root, path: Cow::Owned(piece) })
}
