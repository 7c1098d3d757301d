//! The large files of a layer: those that are worth a look at what they have in common with the files below.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;

use crate::fs::walk;

/// What is smaller is no large file. Tests make many, which are small.
const LARGE: u64 = if cfg!(test) { 16 << 10 } else { 64 << 10 };

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
