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
use super::scan::{Inode, What, scan};
use crate::fs::directories::Steps;

const CONTEXT: &str = "osbc written directory 1";

/// How directories are named in a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By their paths, and those in the deep by their names only ([`Encoder::place`]).
    Bounded,
    /// By their paths, whatever their length: as it was done for objects before format 3.
    Paths,
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// The digest, over everything but times.
    pub(crate) digest: TreeDigest,
    /// What it takes on disk, a file with several names counted once.
    pub(crate) bytes: u64,
    /// How long the path of a file in it is at most.
    pub(crate) longest: u64,
    /// By how much the path of a directory that was renamed is longer than the one in the layers below, at most.
    pub(crate) longer_by: u64,
    /// Whether there are files in it whose data lies in the layers below.
    pub(crate) has_placeholders: bool,
    /// Whether a whole tree has devices or attributes of the kind that overlayfs marks its layers with.
    pub(crate) has_marks: bool,
}

/// Reads all that is in the directory `root`, a layer or a whole tree; much of it with all of rayon's threads.
///
/// # Errors
/// The first entry that cannot be read.
pub(crate) fn written(root: &Path, is_layer: bool, naming: Naming) -> io::Result<Written> {
    let mut encoder = Encoder::new(CONTEXT);
    let (mut bytes, mut longest, mut longer_by, mut has_placeholders) = (0, 0, 0_i64, false);
    let mut files = Files::default();
    let mut steps = Steps::default();
    let scanned = scan(root, is_layer)?;
    // For each directory, by how much its path is longer than below.
    let mut longer: Vec<i64> = Vec::with_capacity(scanned.directories().len());
    for directory in scanned.directories() {
        bytes += directory.own.bytes;
        steps.go_to(directory.depth, &directory.name);
        let path = steps.path().as_os_str().as_bytes();
        match naming {
            Naming::Bounded => encoder.place(path, directory.depth, &directory.name),
            Naming::Paths => encoder.bytes(path),
        }
        encoder.raw(&directory.own.hash(true));
        encoder.raw(&[u8::from(directory.opaque)]);
        encoder.bytes(directory.redirect.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes());
        encoder.number(directory.entries.len() as i64);
        let length = path.len() as u64;
        let parent = longer.get(directory.parent).copied().unwrap_or(0);
        let redirect = directory.redirect.as_deref().map(|redirect| (redirect, redirect.as_os_str().len() as i64));
        let by = match redirect {
            Some((redirect, before)) if redirect.is_absolute() => length as i64 + 1 - before,
            Some((_, before)) => parent + directory.name.len() as i64 - before,
            None => parent,
        };
        longer.push(by);
        longer_by = longer_by.max(by);
        for entry in &directory.entries {
            encoder.bytes(&entry.name);
            let (own, inode) = match &entry.what {
                What::Gone => {
                    encoder.raw(&[0]);
                    continue;
                }
                What::Directory(_) => {
                    encoder.raw(&[1]);
                    continue;
                }
                What::Other(own, _, inode) => {
                    encoder.raw(&[2]);
                    encoder.raw(&own.hash(true));
                    (own.bytes, inode)
                }
                What::Delta(own, _) => {
                    encoder.raw(&[4]);
                    encoder.raw(&own.hash(true));
                    (own.bytes, &None)
                }
                What::Placeholder(placeholder, inode) => {
                    let own = placeholder.alone();
                    encoder.raw(&[3]);
                    encoder.raw(&own.hash(true));
                    encoder.bytes(placeholder.redirect.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes());
                    has_placeholders = true;
                    (own.bytes, inode)
                }
            };
            longest = longest.max(length + 1 + entry.name.len() as u64);
            let earlier = files.earlier(*inode);
            // The index of overlayfs is one more name while the layer is made, and none later.
            encoder.number(earlier.unwrap_or(-1));
            bytes += if earlier.is_none() { own } else { 0 };
        }
    }
    let digest = TreeDigest::from_bytes(encoder.finish());
    Ok(Written {
        digest,
        bytes,
        longest,
        longer_by: longer_by.unsigned_abs(),
        has_placeholders,
        has_marks: scanned.has_marks,
    })
}

/// Files with several names, which count where the first of them is met.
#[derive(Default)]
struct Files(HashMap<Inode, i64>);

impl Files {
    /// The number of a file that was met under another name.
    fn earlier(&mut self, inode: Option<Inode>) -> Option<i64> {
        let next = self.0.len() as i64;
        match self.0.entry(inode?) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(next);
                None
            }
            std::collections::hash_map::Entry::Occupied(place) => Some(*place.get()),
        }
    }
}

#[cfg(test)]
mod tests;
