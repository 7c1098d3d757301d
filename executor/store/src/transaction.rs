//! A transaction: what one build makes in a store.
//!
//! Trees begin and are committed here, downloads are put in their places, and [`Transaction::settle`] waits until the
//! disk has all of it. What it makes is pinned by the lease that it has.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use osbc_ir::{StageId, TreeDigest};

use crate::error::StoreError;
use crate::lease::Lease;
use crate::objects::digests::Digests;
use crate::objects::sync::{New, Syncer};
use crate::osbuild::checkpoints::Checkpoints;

/// What one build makes in a store.
///
/// It has the lease that the build was planned with, and can be read as that. Work directories, commits, downloads,
/// digests and checkpoints are its own. Dropped without being settled, it loses no result that was committed.
#[derive(Debug)]
pub struct Transaction {
    lease: Lease,
    pub(crate) checkpoints: Option<Checkpoints>,
    /// Held by who makes a single layer of a tall stack, so that two do not make the same.
    pub(crate) flattening: Mutex<()>,
    syncer: Syncer,
    digests: Mutex<Digests>,
}

impl Transaction {
    /// Begins a transaction with the lease on what the build uses.
    ///
    /// # Errors
    /// The directory of objects cannot be opened.
    pub fn begin(lease: Lease) -> Result<Self, StoreError> {
        let syncer = Syncer::new(lease.store().clone())?;
        Ok(Self { lease, checkpoints: None, flattening: Mutex::default(), syncer, digests: Mutex::default() })
    }

    /// Returns the transaction with the checkpoints of osbuild's store that it starts from and makes.
    #[must_use]
    pub fn with_checkpoints(mut self, checkpoints: Option<Checkpoints>) -> Self {
        self.checkpoints = checkpoints;
        self
    }

    /// Waits until all that was committed so far has reached the disk.
    ///
    /// # Errors
    /// The disk refused; the results of its last moments were taken back.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.syncer.settle()
    }

    /// Returns the digest of the tree of a result that is leased or was committed here.
    ///
    /// # Errors
    /// The result is not under the lease or not in the store's own place, or its tree cannot be read.
    pub fn digest(&self, id: StageId) -> Result<TreeDigest, StoreError> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).digest(&self.lease, id)
    }

    /// Returns where a new object goes: to its place in the store or, in one that keeps nothing, to where it ends with
    /// the lease.
    pub(crate) fn place_for(&self, id: StageId) -> PathBuf {
        if self.store().keeps() {
            return self.store().layout().object(id);
        }
        let place = self.new_path();
        self.lie_elsewhere(id, place.clone());
        place
    }

    /// Has the disk synced behind what has just appeared.
    pub(crate) fn sync_later(&self, new: New) {
        self.syncer.add(new);
    }
}

/// A transaction can be read as its lease.
impl Deref for Transaction {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A build that cares settles first and learns of errors; here it is only about not leaving the thread alone.
        self.syncer.settle().ok();
    }
}
