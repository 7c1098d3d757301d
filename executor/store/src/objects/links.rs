//! Keeps hard links whole across layers.
//!
//! A stage that writes to one name of a file with several of them, all in a lower layer, brings just that name into its
//! own layer. While its mount lives the others follow it by overlayfs's index; a later mount would show them with the
//! old content, and those that are left of a file that lost names with the old number of them. So before a layer is
//! committed the other names are brought up too, which only needs doing where the index holds anything at all.
//!
//! Without root there is no index, and the link would break unseen within the stage. So there all names of such files
//! are brought into a layer before a stage gets it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};

use crate::fs::{long_path, overlay, times, walk};
use crate::objects::work::Work;
use crate::tree_stack::{TreeStack, Upper};
use crate::user_namespace;

/// Brings every name of a hard-linked file that was changed, or has lost or got a name, into the layer.
pub(crate) fn complete(work: &Work<'_>) -> io::Result<()> {
    let upper = work.upper();
    let index = match std::fs::read_dir(upper.work.join("index")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if index.count() == 0 {
        return Ok(());
    }
    let names = left_below(&work.stack, upper)?;
    if names.is_empty() {
        return Ok(());
    }
    overlay::settle(&upper.work)?;
    let merged = overlay::open(&work.stack)?;
    for name in names {
        let place = long_path::place(merged.as_fd(), &name)?;
        let stat = rustix::fs::statat(place.directory(), &*place.path, AtFlags::SYMLINK_NOFOLLOW)?;
        bring_up(merged.as_fd(), &name, &stat)?;
    }
    drop(merged);
    overlay::settle(&upper.work)
}

/// The names of hard-linked files in lower layers of which not all names are to be seen there any more: the others are
/// in the layer, or gone. A mount without the index would show these files as they were, with the old number of names.
fn left_below(stack: &TreeStack, upper: &Upper) -> io::Result<Vec<PathBuf>> {
    let mut shown = stack.clone();
    shown.lower.extend(shown.upper.take().map(|upper| upper.dir));
    let shown = overlay::open(&shown)?;
    let own = rustix::fs::openat(CWD, &upper.dir, DIRECTORY, Mode::empty())?;
    let mut left = Vec::new();
    for names in linked_names(shown.as_fd())?.into_values() {
        let is_whole = names.len() == names[0].1.st_nlink as usize;
        // The index is one more name of what the layer has, and goes.
        if !is_whole && !names.iter().any(|(name, _)| is_there(own.as_fd(), name)) {
            left.extend(names.into_iter().map(|(name, _)| name));
        }
    }
    Ok(left)
}

/// Without root, brings the hard-linked files of the layers below into a new one, each with all of its names.
pub(crate) fn bring_along(stack: &TreeStack) -> io::Result<()> {
    let Some(upper) = stack.upper.as_ref().filter(|_| user_namespace::in_namespace()) else { return Ok(()) };
    let merged = overlay::open(stack)?;
    for names in linked_names(merged.as_fd())?.values() {
        let [(first, stat), others @ ..] = names.as_slice() else { continue };
        bring_up(merged.as_fd(), first, stat)?;
        for (name, _) in others {
            link_again(merged.as_fd(), first, name)?;
        }
    }
    drop(merged);
    overlay::settle(&upper.work)
}

/// Makes `name` another name of the file `first`; the directory that it is in keeps its time.
fn link_again(merged: BorrowedFd<'_>, first: &Path, name: &Path) -> io::Result<()> {
    let around = name.parent().unwrap_or(Path::new("."));
    let (from, to, directory) =
        (long_path::place(merged, first)?, long_path::place(merged, name)?, long_path::place(merged, around)?);
    let before = rustix::fs::statat(directory.directory(), &*directory.path, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::unlinkat(to.directory(), &*to.path, AtFlags::empty())?;
    rustix::fs::linkat(from.directory(), &*from.path, to.directory(), &*to.path, AtFlags::empty())?;
    bring_up(merged, around, &before)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names of files, by file.
type Names = BTreeMap<(u64, u64), Vec<(PathBuf, Stat)>>;

/// The names of all files that have several.
fn linked_names(root: BorrowedFd<'_>) -> io::Result<Names> {
    let met = Mutex::new(Vec::new());
    let path = PathBuf::from(format!("/proc/self/fd/{}/.", root.as_raw_fd()));
    let directories = walk::entries(&path, |entry| {
        if entry.number.is_none() && entry.stat.st_nlink > 1 {
            let one = (entry.within, entry.name.to_owned(), entry.stat);
            met.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        Ok(())
    })?;
    let mut found = Names::new();
    for (within, name, stat) in met.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let at = Path::new(".").join(directories.path(within)).join(OsStr::from_bytes(name.to_bytes()));
        found.entry((stat.st_dev, stat.st_ino)).or_default().push((at, stat));
    }
    Ok(found)
}

fn is_there(layer: BorrowedFd<'_>, name: &Path) -> bool {
    long_path::place(layer, name)
        .is_ok_and(|place| rustix::fs::statat(place.directory(), &*place.path, AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

/// Has overlayfs copy a name up, or rather link it to the copy that the index knows: any change does, so the time is
/// set to what it is.
fn bring_up(merged: BorrowedFd<'_>, name: &Path, stat: &Stat) -> io::Result<()> {
    let place = long_path::place(merged, name)?;
    Ok(rustix::fs::utimensat(place.directory(), &*place.path, &times::modified(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}
