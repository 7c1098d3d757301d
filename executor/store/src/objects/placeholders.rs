//! Takes the data out of a layer that is the same as below.
//!
//! overlayfs copies a file when it is opened for writing, also where only its times are set then, as `touch` does. What
//! is copied and not changed becomes a placeholder before the layer is committed, as if only its attributes had
//! changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use osbc_module_api::data_extents::data_blocks;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use crate::fs::{overlay, walk};
use crate::objects::work::Work;
use crate::tree_stack::TreeStack;

/// What takes less on disk is not worth a look.
const WORTH: i64 = 64 << 10;
const BLOCK: u64 = 256 << 10;

/// Makes placeholders of the large files of a layer that were copied from below and hold the same as there.
pub(crate) fn make(work: &Work<'_>) -> io::Result<()> {
    let upper = work.upper();
    if !upper.metacopy {
        return Ok(());
    }
    let copied = copied(&upper.dir)?;
    if copied.is_empty() {
        return Ok(());
    }
    let below = overlay::open(&TreeStack { lower: work.stack.lower.clone(), upper: None })?;
    for path in copied.iter().filter(|path| merges(&upper.dir, path)) {
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

/// The paths of large files that overlayfs has copied.
fn copied(layer: &Path) -> io::Result<Vec<PathBuf>> {
    let met = Mutex::new(Vec::new());
    let directories = walk::entries(layer, |entry| {
        let is_file = FileType::from_raw_mode(entry.stat.st_mode) == FileType::RegularFile;
        if is_file && entry.stat.st_nlink == 1 && entry.stat.st_blocks * 512 >= WORTH {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
            let file = rustix::fs::openat(entry.directory, entry.name, flags, Mode::empty())?;
            // Capabilities go when a file is cut off.
            let plain = !has_attribute(&file, "security.capability")? && !has(&file, overlay::METACOPY)?;
            if plain && has(&file, overlay::ORIGIN)? {
                let one = (entry.within, entry.name.to_owned());
                met.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
        }
        Ok(())
    })?;
    let met = met.into_inner().unwrap_or_else(PoisonError::into_inner);
    let paths = met
        .into_iter()
        .map(|(within, name)| directories.path(within).join(std::ffi::OsStr::from_bytes(name.to_bytes())));
    Ok(paths.filter(|path| path.as_os_str().len() as u64 <= overlay::LONGEST_REDIRECT).collect())
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
