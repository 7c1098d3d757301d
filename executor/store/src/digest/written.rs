//! The digest of one directory as a stage left it: of a layer by itself, or of a whole tree.
//!
//! It shows whether what lies on the disk is still what was written there; for what a tree shows to a stage there is
//! [`super::TreeRecord`].

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use osbc_ir::TreeDigest;

use super::Encoder;
use super::scan::{What, scan};

const CONTEXT: &str = "osbc written directory 1";

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// The digest, over everything but times.
    pub(crate) digest: TreeDigest,
    /// What it takes on disk, a file with several names counted once.
    pub(crate) bytes: u64,
}

/// Reads all that is in the directory `root`, a layer or a whole tree; much of it with all of rayon's threads.
///
/// # Errors
/// The first entry that cannot be read.
pub(crate) fn written(root: &Path, is_layer: bool) -> io::Result<Written> {
    let mut encoder = Encoder::new(CONTEXT);
    let mut bytes = 0;
    // A file with several names counts where the first of them is met.
    let mut files = HashMap::new();
    for (path, mut directory) in scan(root, is_layer)? {
        bytes += directory.own.bytes;
        encoder.bytes(path.as_os_str().as_bytes());
        encoder.raw(&directory.own.hash(true));
        encoder.raw(&[u8::from(directory.opaque)]);
        encoder.bytes(directory.redirect.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes());
        encoder.number(directory.entries.len() as i64);
        directory.entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for entry in directory.entries {
            encoder.bytes(&entry.name);
            match entry.what {
                What::Gone => encoder.raw(&[0]),
                What::Directory => encoder.raw(&[1]),
                What::Other(own, inode) => {
                    encoder.raw(&[2]);
                    encoder.raw(&own.hash(true));
                    let next = files.len() as i64;
                    let (first, number) = match inode.map(|inode| files.entry(inode)) {
                        None => (true, -1),
                        Some(std::collections::hash_map::Entry::Vacant(place)) => (true, *place.insert(next)),
                        Some(std::collections::hash_map::Entry::Occupied(place)) => (false, *place.get()),
                    };
                    // The index of overlayfs is one more name while the layer is made, and none later.
                    encoder.number(if first { -1 } else { number });
                    bytes += if first { own.bytes } else { 0 };
                }
            }
        }
    }
    Ok(Written { digest: TreeDigest::from_bytes(encoder.finish()), bytes })
}

#[cfg(test)]
mod tests;
