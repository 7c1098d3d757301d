//! The digest of a tree: equal exactly when two trees hold the same, however they are layered and wherever they lie.
//!
//! Knows directories and layers; which objects they belong to is its caller's part.
//!
//! **What it covers.** Of every entry: name, type, mode, owner, extended attributes and ACLs, the bytes of a file
//! (holes are zeros), the target of a link, the numbers of a device; which names are one file; and times, as follows.
//!
//! **Times.** A modification time can be seen by the stages that come after, as in an archive, so it counts. But a time
//! at which a stage *ran* is nothing that a manifest says, and would make every two runs differ. The line between the
//! two is that of a source epoch: what is not before the moment at which the stage's tree was begun is "now" and equal
//! to any other "now"; everything else (times out of archives and packages, times that were set, times clamped to an
//! epoch) counts to the nanosecond. So trees with equal digests differ at most in when a stage ran, just as a result
//! from the cache differs from one built today.
//!
//! **Layers.** A digest is the root of a hash tree over directories. A [`TreeRecord`] holds the listings of those
//! directories that its own layer changed; all others are found by their hash in the records below. So a digest costs
//! what was written, and the listings of the directories that it was written to. The data of a file may lie below its
//! layer ([`crate::fs::overlay::METACOPY`]); then its content is that of an entry of the record below, and is not read.
//! Hard links, which cross directories, are a list of their own.

pub(crate) mod bytes;
mod merge;
mod scan;
mod stamp;
mod written;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use osbc_ir::TreeDigest;
use rustix::fs::Timespec;
use serde::{Deserialize, Serialize};

pub(crate) use stamp::stamp;
pub(crate) use written::{Naming, Written, written};

/// A BLAKE3 hash; which function of what, each field says.
pub(crate) type Hash = [u8; 32];

/// The format of an encoded [`TreeRecord`].
const FORMAT: u32 = 2;
/// Longer paths are no part of a digest ([`Encoder::place`]).
const LONGEST_PATH: usize = 4096;
const TREE_CONTEXT: &str = "osbc tree digest 1";
const LISTING_CONTEXT: &str = "osbc directory listing 1";

/// The digest of a tree, and what the digest of a layer on it needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeRecord {
    format: u32,
    /// The root's own attributes.
    root: Entry,
    /// The names that are one file, as paths below the root, for every file with several names in the whole tree.
    links: Vec<Vec<Vec<u8>>>,
    /// The listings that are in no record below.
    listings: Vec<Listing>,
}

/// What a directory holds, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Listing {
    entries: Vec<Entry>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: Vec<u8>,
    /// Over its attributes and, for all but a directory, its content.
    own: Hash,
    /// For a directory, the hash of its listing.
    directory: Option<Hash>,
    /// For a file, the hash of its content, which [`Entry::own`] covers.
    content: Option<Hash>,
    /// The modification time where that was "now" when it was written; no part of any hash.
    now: Option<(i64, i64)>,
}

/// Finds a listing by its hash.
pub(crate) type Find<'a> = dyn Fn(&Hash) -> Option<Arc<Listing>> + 'a;

/// How a tree on disk is to be read.
#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// As a whole tree, made from nothing or by copying the tree of a record.
    Whole(Option<(&'a TreeRecord, &'a Find<'a>)>),
    /// As an overlayfs layer on the tree of a record.
    Layer(&'a TreeRecord, &'a Find<'a>),
}

impl<'a> Kind<'a> {
    fn below(&self) -> Option<(&'a TreeRecord, &'a Find<'a>)> {
        match *self {
            Kind::Whole(below) => below,
            Kind::Layer(record, find) => Some((record, find)),
        }
    }
}

/// Reads the tree or layer at `root`, which was begun at the moment `created`; large ones with all of rayon's threads.
///
/// # Errors
/// An entry cannot be read, or a listing of the tree below is missing.
pub(crate) fn record(root: &Path, created: Timespec, kind: Kind<'_>) -> io::Result<TreeRecord> {
    let scanned = scan::scan(root, matches!(kind, Kind::Layer(..)))?;
    merge::merge(&scanned, created, kind)
}

impl TreeRecord {
    /// The digest of the tree.
    pub(crate) fn digest(&self) -> TreeDigest {
        let mut encoder = Encoder::new(TREE_CONTEXT);
        encoder.raw(&self.root.own);
        encoder.raw(&self.root.directory.unwrap_or_default());
        encoder.number(self.links.len() as i64);
        for names in &self.links {
            encoder.number(names.len() as i64);
            for name in names {
                encoder.bytes(name);
            }
        }
        TreeDigest::from_bytes(encoder.finish())
    }

    /// Takes out the listings that it brings, by their hashes.
    pub(crate) fn take_listings(&mut self) -> HashMap<Hash, Arc<Listing>> {
        let listings = std::mem::take(&mut self.listings);
        listings.into_iter().map(|listing| (listing.hash(), Arc::new(listing))).collect()
    }

    /// The record as bytes, with a hash of them at the end.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        Ok(bytes)
    }

    /// The record that [`TreeRecord::encode`] gave these bytes for; `None` if they are damaged or of another format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, hash) = bytes.split_last_chunk::<32>()?;
        // What is damaged is not even read.
        let whole = (blake3::hash(bytes) == *hash).then_some(bytes)?;
        let (format, _) = postcard::take_from_bytes::<u32>(whole).ok()?;
        (format == FORMAT).then(|| postcard::from_bytes(whole).ok())?
    }
}

impl Listing {
    fn hash(&self) -> Hash {
        let mut encoder = Encoder::new(LISTING_CONTEXT);
        for Entry { name, own, directory, content: _, now: _ } in &self.entries {
            encoder.bytes(name);
            encoder.raw(own);
            encoder.raw(&[u8::from(directory.is_some())]);
            encoder.raw(&directory.unwrap_or_default());
        }
        encoder.finish()
    }

    fn get(&self, name: &[u8]) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        Some(&self.entries[place])
    }
}

/// Hashes facts in an encoding in which no two sequences of them are equal.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Bytes of a fixed number.
    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: i64) {
        self.raw(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as i64);
        self.raw(bytes);
    }

    /// Where a directory or an entry is, in a sequence in which every directory comes before what is in it: its path
    /// or, where that is long, its depth and its name. A directory at any depth takes a bounded time so.
    fn place(&mut self, path: &[u8], depth: usize, name: &[u8]) {
        if path.len() <= LONGEST_PATH {
            return self.bytes(path);
        }
        // No path has that length.
        self.number(-1);
        self.number(depth as i64);
        self.bytes(name);
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests;
