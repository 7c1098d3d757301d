//! The large files of a layer: those that are worth a look at what they have in common with the files below, and that
//! look.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use osbc_module_api::data_extents::data_blocks;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::fs::walk;

/// What is smaller is no large file. Tests make many, which are small.
const LARGE: u64 = if cfg!(test) { 16 << 10 } else { 64 << 10 };

/// What of two files is compared at once.
pub(crate) const BLOCK: u64 = if cfg!(test) { 4 << 10 } else { 64 << 10 };

/// A file with a single name.
#[derive(Debug)]
pub(crate) struct LargeFile {
    /// Its path below the root of the layer.
    pub(crate) path: PathBuf,
    /// Its size in bytes, with holes.
    pub(crate) size: u64,
    /// What it takes on disk.
    pub(crate) on_disk: u64,
}

/// Returns the large files of a layer.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn large_files(layer: &Path) -> io::Result<Vec<LargeFile>> {
    let met = Mutex::new(Vec::new());
    let directories = walk::entries(layer, |entry| {
        let is_file = FileType::from_raw_mode(entry.stat.st_mode) == FileType::RegularFile;
        if is_file && entry.stat.st_nlink == 1 && entry.stat.st_size as u64 >= LARGE {
            let one = (entry.within, entry.name.to_owned(), entry.stat);
            met.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        Ok(())
    })?;
    let met = met.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter();
    let found = met.map(|(within, name, stat)| LargeFile {
        path: directories.path(within).join(OsStr::from_bytes(name.to_bytes())),
        size: stat.st_size as u64,
        on_disk: stat.st_blocks as u64 * 512,
    });
    Ok(found.collect())
}

/// Opens a file below a directory to read it; `None` if it is not there, or a link leads there.
pub(crate) fn open_within(directory: impl AsFd, path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve).ok().map(File::from)
}

/// A file of a layer and one that lies below, to be compared block by block.
pub(crate) struct Comparison<'a> {
    new: &'a File,
    old: &'a File,
    /// The sizes of the two.
    pub(crate) size: u64,
    pub(crate) old_size: u64,
}

impl<'a> Comparison<'a> {
    /// # Errors
    /// The OS does not say how large the files are.
    pub(crate) fn new(new: &'a File, old: &'a File) -> io::Result<Self> {
        Ok(Self { new, old, size: new.metadata()?.len(), old_size: old.metadata()?.len() })
    }

    /// Returns in how many blocks the new file has data, and the blocks in which one of them has.
    ///
    /// # Errors
    /// The OS does not say where a file has data.
    pub(crate) fn blocks(&self) -> io::Result<(usize, Vec<u64>)> {
        let mut blocks = data_blocks(self.new, self.size, BLOCK)?;
        let own = blocks.len();
        blocks.extend(data_blocks(self.old, self.size.min(self.old_size), BLOCK)?);
        blocks.sort_unstable();
        blocks.dedup();
        Ok((own, blocks))
    }

    /// Returns whether a block of the new file differs from what the old one has there, which is zeros beyond its end.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn differs(&self, block: u64) -> io::Result<bool> {
        let start = block * BLOCK;
        let length = usize::try_from(BLOCK.min(self.size - start)).expect("a block fits");
        let (mut one, mut other) = (vec![0; length], vec![0; length]);
        self.new.read_exact_at(&mut one, start)?;
        let there = usize::try_from(self.old_size.saturating_sub(start)).unwrap_or(usize::MAX).min(length);
        self.old.read_exact_at(&mut other[..there], start)?;
        Ok(one != other)
    }
}
