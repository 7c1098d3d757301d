//! Takes the data out of a layer that is the same as below.
//!
//! overlayfs copies a file when it is opened for writing, also where only its times are set then, as `touch` does. What
//! is copied and not changed becomes a placeholder before the layer is committed, as if only its attributes had
//! changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use osbc_module_api::data_extents::data_blocks;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use crate::fs::overlay;
use crate::objects::large::LargeFile;
use crate::objects::work::Work;
use crate::tree_stack::TreeStack;

/// What takes less on disk is not worth a look.
const WORTH: u64 = 64 << 10;
const BLOCK: u64 = 256 << 10;

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
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Ok(other) = rustix::fs::openat2(&below, path, flags, Mode::empty(), resolve) else { continue };
        // One that is marked immutable stays.
        let own = File::options().read(true).write(true).open(upper.dir.join(path));
        if let Ok(own) = own
            && is_same(&own, &File::from(other))?
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
        if *on_disk < WORTH || path.as_os_str().len() as u64 > overlay::LONGEST_REDIRECT {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(layer.join(path), flags, Mode::empty())?;
        // Capabilities go when a file is cut off.
        let plain = !has_attribute(&file, "security.capability")? && !has(&file, overlay::METACOPY)?;
        if plain && has(&file, overlay::ORIGIN)? {
            copied.push(path.as_path());
        }
    }
    Ok(copied)
}

/// Whether the directories that a file is in are the same ones below.
fn merges(layer: &Path, path: &Path) -> bool {
    path.ancestors().skip(1).all(|directory| {
        let has = |name| {
            let name = format!("{}{name}", overlay::notes());
            rustix::fs::lgetxattr(layer.join(directory), name, &mut [0; 0][..]) != Err(Errno::NODATA)
        };
        directory.as_os_str().is_empty() || !has(overlay::REDIRECT) && !has(overlay::OPAQUE)
    })
}

/// Whether two files hold the same.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (metadata, size) = (other.metadata()?, one.metadata()?.len());
    if !metadata.is_file() || metadata.len() != size {
        return Ok(false);
    }
    let mut blocks = data_blocks(one, size, BLOCK)?;
    blocks.extend(data_blocks(other, size, BLOCK)?);
    blocks.sort_unstable();
    blocks.dedup();
    let (mut first, mut second) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    for block in blocks {
        let start = block * BLOCK;
        let length = usize::try_from(BLOCK.min(size - start)).expect("a block fits");
        one.read_exact_at(&mut first[..length], start)?;
        other.read_exact_at(&mut second[..length], start)?;
        if first[..length] != second[..length] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a file a placeholder that has the attributes which it had.
fn empty(file: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    for note in [overlay::ORIGIN, overlay::REDIRECT] {
        match rustix::fs::fremovexattr(file, format!("{}{note}", overlay::notes())) {
            Err(Errno::NODATA) => {}
            other => other?,
        }
    }
    // From here on its own data counts no more, whatever fails.
    rustix::fs::fsetxattr(file, format!("{}{}", overlay::notes(), overlay::METACOPY), b"", XattrFlags::empty())?;
    rustix::fs::ftruncate(file, 0)?;
    rustix::fs::ftruncate(file, stat.st_size as u64)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(file, &times(&stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// Whether overlayfs has a note of this name on a file.
fn has(file: &OwnedFd, name: &str) -> io::Result<bool> {
    has_attribute(file, &format!("{}{name}", overlay::notes()))
}

fn has_attribute(file: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::fgetxattr(file, name, &mut [0; 0][..]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        other => other.map(|_| true).map_err(io::Error::from),
    }
}
