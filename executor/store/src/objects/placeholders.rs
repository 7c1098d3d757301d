//! Takes the data out of a layer that is the same as below.
//!
//! overlayfs copies a file when it is opened for writing, also where only its times are set then, as `touch` does. What
//! is copied and not changed becomes a placeholder before the layer is committed, as if only its attributes had
//! changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::fs::overlay::{LONGEST_REDIRECT, METACOPY, OPAQUE, ORIGIN, REDIRECT, has_attribute, has_note, note};
use crate::fs::{overlay, times};
use crate::objects::large::{Comparison, LargeFile, open_within};
use crate::objects::work::Work;
use crate::tree_stack::TreeStack;

/// What takes less on disk is not worth a look.
const WORTH: u64 = 64 << 10;

/// Makes placeholders of the large files of a layer that were copied from below and hold the same as there.
pub(crate) fn make(work: &Work<'_>, files: &[LargeFile]) -> io::Result<()> {
    let upper = work.upper();
    if !upper.metacopy {
        return Ok(());
    }
    let copied = copied(&upper.dir, files)?;
    if copied.is_empty() {
        return Ok(());
    }
    let below = overlay::open(&TreeStack { lower: work.stack.lower.clone(), upper: None })?;
    for path in copied.into_iter().filter(|path| merges(&upper.dir, path)) {
        let Some(other) = open_within(&below, path) else { continue };
        // One that is marked immutable stays.
        let own = File::options().read(true).write(true).open(upper.dir.join(path));
        if let Ok(own) = own
            && is_same(&own, &other)?
        {
            empty(own.as_fd())?;
        }
    }
    Ok(())
}

/// The paths of the files that overlayfs has copied.
fn copied<'a>(layer: &Path, files: &'a [LargeFile]) -> io::Result<Vec<&'a Path>> {
    let mut copied = Vec::new();
    for LargeFile { path, on_disk, .. } in files {
        if *on_disk < WORTH || path.as_os_str().len() as u64 > LONGEST_REDIRECT {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(layer.join(path), flags, Mode::empty())?;
        // Capabilities go when a file is cut off.
        let plain = !has_attribute(&file, "security.capability")? && !has_note(&file, METACOPY)?;
        if plain && has_note(&file, ORIGIN)? {
            copied.push(path.as_path());
        }
    }
    Ok(copied)
}

/// Whether the directories that a file is in are the same ones below.
fn merges(layer: &Path, path: &Path) -> bool {
    path.ancestors().skip(1).all(|directory| {
        let has =
            |name| rustix::fs::lgetxattr(layer.join(directory), note(name), &mut [0; 0][..]) != Err(Errno::NODATA);
        directory.as_os_str().is_empty() || !has(REDIRECT) && !has(OPAQUE)
    })
}

/// Whether two files hold the same.
fn is_same(own: &File, other: &File) -> io::Result<bool> {
    let files = Comparison::new(own, other)?;
    if !other.metadata()?.is_file() || files.size != files.old_size {
        return Ok(false);
    }
    for block in files.blocks()?.1 {
        if files.differs(block)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a file a placeholder that has the attributes which it had.
fn empty(file: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    for name in [ORIGIN, REDIRECT] {
        match rustix::fs::fremovexattr(file, note(name)) {
            Err(Errno::NODATA) => {}
            other => other?,
        }
    }
    // From here on its own data counts no more, whatever fails.
    rustix::fs::fsetxattr(file, note(METACOPY), b"", XattrFlags::empty())?;
    rustix::fs::ftruncate(file, 0)?;
    rustix::fs::ftruncate(file, stat.st_size as u64)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(file, &times::modified(&stat))?)
}
