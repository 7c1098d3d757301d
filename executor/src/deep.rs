//! Paths below an open folder that may be longer than the kernel takes in one call (4096 bytes). Knows neither copying
//! nor deleting, which both walk trees of any depth.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longer paths are walked piece by piece.
const PIECE: usize = 4000;

/// A folder, and a path below it that is short enough for one call.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    folder: Option<OwnedFd>,
    root: BorrowedFd<'a>,
    /// The path below [`Place::folder`].
    pub(crate) path: Cow<'a, Path>,
}

impl Place<'_> {
    /// The folder that the path is to be resolved from.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_ref().map_or(self.root, AsFd::as_fd)
    }
}

/// Brings `path` below `root` into a form for one call; follows no symbolic link at the seams of long ones.
///
/// # Errors
/// A folder on a long way cannot be opened.
pub(crate) fn place<'a>(root: BorrowedFd<'a>, path: &'a Path) -> io::Result<Place<'a>> {
    if path.as_os_str().len() < PIECE {
        return Ok(Place { folder: None, root, path: Cow::Borrowed(path) });
    }
    let mut folder: Option<OwnedFd> = None;
    let mut piece = PathBuf::new();
    for component in path.components() {
        if piece.as_os_str().len() + component.as_os_str().as_bytes().len() + 1 >= PIECE {
            let from = folder.as_ref().map_or(root, AsFd::as_fd);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(rustix::fs::openat(from, &piece, flags, Mode::empty())?);
            piece.clear();
        }
        piece.push(component);
    }
    Ok(Place { folder, root, path: Cow::Owned(piece) })
}
