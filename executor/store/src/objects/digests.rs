//! The digests of objects' trees: computed when first asked for, then kept in the object, so that the digest of a layer
//! costs no more than the layer.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use osbc_ir::{StageId, TreeDigest};
use rustix::fs::Timespec;

use crate::digest::{Find, Hash, Kind, Listing, TreeRecord, record};
use crate::error::StoreError;
use crate::fs::regular;
use crate::lease::Lease;
use crate::objects::layout::DIGEST;
use crate::objects::object::ObjectMeta;
use crate::reclaim::size::Placed;
use crate::store::Store;

/// What is known of digests in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    records: HashMap<StageId, TreeRecord>,
    listings: HashMap<Hash, Arc<Listing>>,
}

impl Store {
    /// The description of a result as it is now; nothing keeps it there.
    pub fn object(&self, id: StageId) -> Option<Arc<ObjectMeta>> {
        self.reader().read(id)
    }

    /// The digest that is kept with an object; `None` if none was needed yet.
    pub fn kept_digest(&self, object: &ObjectMeta) -> Option<TreeDigest> {
        kept(&self.layout().object(object.id)).map(|record| record.digest())
    }
}

impl Digests {
    /// Returns the digest of the tree of a result that is under the lease.
    ///
    /// # Errors
    /// The result is not under the lease or not in the store's own place, or its tree cannot be read.
    pub(crate) fn digest(&mut self, lease: &Lease, id: StageId) -> Result<TreeDigest, StoreError> {
        let missing =
            || std::io::Error::new(std::io::ErrorKind::NotFound, "not among the store's objects under this lease");
        let place = || lease.store().layout().object(id);
        let meta = lease
            .object(id)
            .filter(|meta| !lease.is_elsewhere(meta.id))
            .ok_or_else(|| StoreError::io("digest", place())(missing()))?;
        let mut reader = lease.store().reader();
        let mut below: Option<StageId> = None;
        for lower in &meta.lowers {
            if !self.records.contains_key(&lower.id) {
                let lower = reader.read(lower.id).ok_or_else(|| StoreError::io("digest", place())(missing()))?;
                self.add(lease, &lower, below)?;
            }
            below = Some(lower.id);
        }
        if !self.records.contains_key(&meta.id) {
            self.add(lease, &meta, below)?;
        }
        Ok(self.records[&meta.id].digest())
    }

    /// Takes up the record of an object that lies on `below`, computing and keeping it if need be.
    fn add(&mut self, lease: &Lease, meta: &ObjectMeta, below: Option<StageId>) -> Result<(), StoreError> {
        let directory = lease.store().layout().object(meta.id);
        if let Some(known) = kept(&directory) {
            self.take_up(meta.id, known);
            return Ok(());
        }
        let is_layer = below.is_some();
        // A copy of its base: that one's record says which times do not count.
        let below = below.or_else(|| meta.base.filter(|base| self.has(lease, *base)));
        // Without the moment of its beginning every time counts.
        let (tv_sec, tv_nsec) = meta.created.unwrap_or((i64::MAX, 0));
        let created = Timespec { tv_sec, tv_nsec: tv_nsec as _ };
        let computed = {
            let find: &Find<'_> = &|hash| self.listings.get(hash).cloned();
            let below = below.map(|id| (&self.records[&id], find));
            let kind = match below {
                Some((below, find)) if is_layer => Kind::Layer(below, find),
                other => Kind::Whole(other),
            };
            let root = meta.content(lease.store().layout());
            record(&root, created, kind).map_err(StoreError::io("digest", root))?
        };
        keep(lease, &directory, &computed)?;
        self.take_up(meta.id, computed);
        Ok(())
    }

    /// Whether the record of a result was needed before, with those of the layers below it, which have the rest of its
    /// listings. Those of an older format are computed again.
    fn has(&mut self, lease: &Lease, id: StageId) -> bool {
        let Some(meta) = lease.object(id) else { return self.records.contains_key(&id) };
        let mut is_older = false;
        for id in meta.lowers.iter().map(|lower| lower.id).chain([meta.id]) {
            let directory = lease.store().layout().object(id);
            if self.records.contains_key(&id) {
                continue;
            }
            match kept(&directory) {
                Some(known) => self.take_up(id, known),
                None if directory.join(DIGEST).exists() => is_older = true,
                None => return false,
            }
        }
        (!is_older || self.digest(lease, meta.id).is_ok()) && self.records.contains_key(&id)
    }

    fn take_up(&mut self, id: StageId, mut record: TreeRecord) {
        self.listings.extend(record.take_listings());
        self.records.insert(id, record);
    }
}

/// The record in an object's directory, if there is a good one.
fn kept(directory: &Path) -> Option<TreeRecord> {
    TreeRecord::decode(&regular::read(&directory.join(DIGEST)).ok()?)
}

fn keep(lease: &Lease, directory: &Path, record: &TreeRecord) -> Result<(), StoreError> {
    let path = directory.join(DIGEST);
    let (store, unfinished) = (lease.store(), lease.new_path());
    let bytes = record.encode().map_err(StoreError::io("write", &path))?;
    let blocks = |path: &Path| path.symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512);
    // One of an older format.
    let replaced = blocks(&path);
    store.change("write", &unfinished, || std::fs::write(&unfinished, &bytes))?;
    store.count(blocks(&unfinished), || {
        store.change("write", &path, || std::fs::rename(&unfinished, &path)).map(|()| Placed::There)
    })?;
    store.uncount(replaced);
    Ok(())
}
