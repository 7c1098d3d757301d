//! Brings a result out of the store: a tree as a directory, with everything that it has.
//!
//! Knows trees and directories; which pipeline goes where is its caller's part.
//!
//! The copy is made under a name of its own and renamed when it is complete, so that nobody meets a half of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use osbc_ir::{StageId, size};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{StoreError, free_space, inodes_in_use};
use crate::fs::copy::{Copied, CopyError, Ownership, copy_attributes, copy_tree};
use crate::fs::delete::remove_tree;
use crate::fs::overlay;
use crate::fs::walk::entries;
use crate::lease::Lease;

/// How the name of an unfinished copy begins.
const UNFINISHED: &str = ".osbc-export-";

/// Why a result could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The lease does not have it.
    #[error("the store does not have the result {}", .0.short())]
    Missing(StageId),
    /// The store's copy of it is damaged, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is something at the destination that is no directory.
    #[error("cannot export to {}: it is there already and not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// The destination has no room for it.
    #[error(
        "cannot export to {}: no space left: it takes {}, and there are {} free; make room there or name another directory",
        path.display(), size(*need), size(*have)
    )]
    NoSpace {
        /// The destination.
        path: PathBuf,
        /// How many bytes the tree takes.
        need: u64,
        /// How many bytes were free before.
        have: u64,
    },
    /// The destination has no room for more files.
    #[error(
        "cannot export to {}: no space left for more files, all {total} inodes of the file system are in use; make room there \
         or name another directory",
        path.display()
    )]
    NoInodes {
        /// The destination.
        path: PathBuf,
        /// How many inodes there are.
        total: u64,
    },
    /// The destination cannot be written to.
    #[error(
        "cannot export to {}: {} cannot be written to: {source}; name another directory with -o",
        path.display(), place.display()
    )]
    Unwritable {
        /// The destination.
        path: PathBuf,
        /// What there is of it.
        place: PathBuf,
        /// The OS error.
        source: io::Error,
    },
    /// An entry cannot be copied.
    #[error("cannot export to {}: {source}", path.display())]
    Copy {
        /// The destination.
        path: PathBuf,
        /// Which entry, and why.
        source: CopyError,
    },
    /// A file operation failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// The OS error.
        source: io::Error,
    },
}

impl ExportError {
    fn io<E: Into<io::Error>>(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| ExportError::Io { act, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// Makes sure that results can be exported to directories called `names` in `output`, as far as that is known
/// without writing anything.
///
/// # Errors
/// Something that is no directory is in the way, or what there is of the destination cannot be written to.
pub fn check_destination<'a>(output: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<(), ExportError> {
    let output = std::path::absolute(output).map_err(ExportError::io("find", output))?;
    let places = std::iter::once(output.clone()).chain(names.into_iter().map(|name| output.join(name)));
    for path in places {
        let there = path.ancestors().find(|place| place.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
        // A link to a directory is as good as the directory.
        if !there.is_dir() {
            return Err(ExportError::NoDirectory(there.to_owned()));
        }
        let access = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(CWD, there, access, AtFlags::EACCESS).map_err(|error| ExportError::Unwritable {
            path: output.clone(),
            place: there.to_owned(),
            source: error.into(),
        })?;
    }
    Ok(())
}

/// Copies the tree of a result, an empty one for none, to the directory `to`.
///
/// Where that is there already, its entries of the same names are replaced and all others left alone.
///
/// What the destination cannot take of extended attributes is in [`Copied::lost`].
///
/// # Errors
/// The result is not under the lease or is damaged, or the destination cannot be written to; then nothing of it is left
/// there.
pub fn export(lease: &Lease, id: Option<StageId>, to: &Path, ownership: Ownership) -> Result<Copied, ExportError> {
    let tree = id.map(|id| {
        let stack = lease.tree(id)?.ok_or(ExportError::Missing(id))?;
        lease.check(id)?;
        overlay::open(&stack).map_err(ExportError::io("open the tree for", to))
    });
    let tree = tree.transpose()?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(ExportError::io("make", parent))?;
    let exists = match to.symlink_metadata() {
        // A link to a directory is as good as the directory.
        Ok(_) if to.is_dir() => true,
        Ok(_) => return Err(ExportError::NoDirectory(to.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(ExportError::io("look at", to)(error)),
    };
    // Within the destination where there is one, which may be a file system of its own.
    let unfinished = Unfinished::make(if exists { to } else { parent })?;
    let copied = fill(tree.as_ref(), &unfinished.path, to, ownership)?;
    if exists {
        unfinished.merge_into(&unfinished.path, to)?;
    } else {
        rustix::fs::rename(&unfinished.path, to).map_err(ExportError::io("put in place", to))?;
    }
    Ok(copied)
}

/// Moves the tree of a result to the directory `to`, which is then as after [`export`]; says whether that could be
/// done.
///
/// It cannot where the store keeps the result, where it is spread over layers, where others lie on it, or where `to` is
/// on another file system. The result is not to be read any more after it.
///
/// # Errors
/// The destination cannot be written to.
pub fn move_out(lease: &Lease, id: StageId, to: &Path) -> Result<bool, ExportError> {
    let Some(tree) = lease.own_tree(id) else { return Ok(false) };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(ExportError::io("make", parent))?;
    let moved = if to.symlink_metadata().is_ok() {
        if !to.is_dir() {
            return Err(ExportError::NoDirectory(to.to_owned()));
        }
        let unfinished = Unfinished::make(to)?;
        let within = unfinished.path.join("tree");
        rustix::fs::rename(&tree, &within).map_err(io::Error::from).map(|()| Some((unfinished, within)))
    } else {
        rustix::fs::rename(&tree, to).map_err(io::Error::from).map(|()| None)
    };
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
        Err(error) => Err(ExportError::io("put in place", to)(error)),
        Ok(None) => Ok(true),
        Ok(Some((unfinished, within))) => unfinished.merge_into(&within, to).map(|()| true),
    }
}

fn fill(tree: Option<&OwnedFd>, path: &Path, to: &Path, ownership: Ownership) -> Result<Copied, ExportError> {
    let Some(tree) = tree else {
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).map_err(ExportError::io("make", to))?;
        return Ok(Copied { entries: 1, ..Copied::default() });
    };
    let directory = open_directory(path).map_err(ExportError::io("open", path))?;
    let have = free_space(path);
    copy_tree(tree.as_fd(), directory.as_fd(), ownership).map_err(|failure| match failure.source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => match (inodes_in_use(path), takes(tree)) {
            (Some(total), _) => ExportError::NoInodes { path: to.to_owned(), total },
            (None, Ok(need)) => ExportError::NoSpace { path: to.to_owned(), need, have },
            (None, Err(error)) => ExportError::io("read the tree for", to)(error),
        },
        _ => ExportError::Copy { path: to.to_owned(), source: failure },
    })
}

/// How many bytes the blocks of all entries of a tree take.
fn takes(tree: &OwnedFd) -> io::Result<u64> {
    let total = AtomicU64::new(0);
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", tree.as_raw_fd()));
    entries(&root, |entry| {
        // The names of one file share its blocks.
        let names =
            if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory { 1 } else { entry.stat.st_nlink };
        total.fetch_add(entry.stat.st_blocks.cast_unsigned() * 512 / names.max(1), Ordering::Relaxed);
        Ok(())
    })?;
    Ok(total.into_inner())
}

/// A copy in progress; whatever is left of it when it is dropped goes.
struct Unfinished {
    path: PathBuf,
    /// Locks the directory, so that the next export knows this one from those that were cut off.
    _owner: OwnedFd,
}

impl Unfinished {
    fn make(parent: &Path) -> Result<Self, ExportError> {
        remove_cut_off(parent).map_err(ExportError::io("read", parent))?;
        loop {
            let path = parent.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4().simple()));
            if let Some(owner) = crate::fs::lock::own_directory(&path).map_err(ExportError::io("make", &path))? {
                return Ok(Self { path, _owner: owner });
            }
        }
    }

    /// Moves all entries of `directory`, which is this one or in it, to `to`, each by one rename; then gives `to` the
    /// attributes of `directory`.
    fn merge_into(&self, directory: &Path, to: &Path) -> Result<(), ExportError> {
        let root = open_directory(directory).map_err(ExportError::io("open", directory))?;
        let before = rustix::fs::fstat(&root).map_err(ExportError::io("read", directory))?;
        for entry in std::fs::read_dir(directory).map_err(ExportError::io("read", directory))? {
            let from = entry.map_err(ExportError::io("read", directory))?.path();
            let target = to.join(from.file_name().unwrap_or_default());
            replace(&from, &target).map_err(ExportError::io("replace", &target))?;
        }
        // What was replaced goes before the last change to `to`, its times.
        remove_tree(&self.path).map_err(ExportError::io("remove", &self.path))?;
        let attributes = open_directory(to).and_then(|to| copy_attributes(root.as_fd(), to.as_fd(), &before));
        attributes.map_err(ExportError::io("set the attributes of", to))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Moved away by now, or removed by the next export.
        remove_tree(&self.path).ok();
    }
}

/// Removes the unfinished copies of dead processes.
fn remove_cut_off(parent: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && let Some(_owner) = crate::fs::lock::own_existing(&entry.path())?
        {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Puts `from` in the place of `target`; what was there ends up at `from`, or is gone.
fn replace(from: &Path, target: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Ok(rustix::fs::rename(from, target)?),
        // A file system that cannot exchange.
        Err(Errno::INVAL | Errno::NOSYS) => {
            remove_tree(target)?;
            Ok(rustix::fs::rename(from, target)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests;
