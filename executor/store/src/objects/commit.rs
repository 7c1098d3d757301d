//! Turns a work into an object, by one rename.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use osbc_ir::{StageId, Value};
use rustix::io::Errno;

use crate::digest::{self, Naming, Written};
use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::fs::extents;
use crate::objects::large::{LargeFile, large_files};
use crate::objects::layout::META;
use crate::objects::object;
use crate::objects::object::{FORMAT, InCommon, ObjectMeta, ObjectRef, StepRecord};
use crate::objects::sync::New;
use crate::objects::work::Work;
use crate::objects::{links, mtime_clamp, placeholders};
use crate::reclaim::inventory::notes;
use crate::reclaim::size::Placed;
use crate::transaction::Transaction;

/// The name that stands for a stage where a tree was only laid out in another way.
pub(crate) const DERIVED: &str = "derived";

/// What a commit needs to know besides the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The epoch that the times of what was written are clamped to.
    pub source_epoch: Option<i64>,
    /// The stages that ran, in order; the last one's id becomes the object's.
    pub steps: Vec<StepRecord>,
}

impl Work<'_> {
    /// Commits the tree as the result of the last of its steps. From then on it can be read under this lease, and by
    /// whoever leases it later.
    ///
    /// # Errors
    /// The store cannot be written to, or has no room even after an eviction; nothing of the tree remains.
    ///
    /// # Panics
    /// There is no step.
    pub fn commit(self, info: CommitInfo) -> Result<Arc<ObjectMeta>, StoreError> {
        let id = info.steps.last().expect("a segment has a step").id;
        let store = self.transaction.store();
        store.with_room(|| {
            store.change("complete the hard links of", self.object(), || links::complete(&self))?;
            let root = &self.upper().dir;
            let large = if self.below.is_some() {
                large_files(root).map_err(StoreError::io("read", root))?
            } else {
                Vec::new()
            };
            store.change("take what is the same below out of", root, || placeholders::make(&self, &large))?;
            if let Some(epoch) = info.source_epoch {
                store.change("set the times of", root, || mtime_clamp::clamp(root, self.created, epoch))?;
            }
            self.finish(id, &info, &large)
        })
    }

    /// Commits the tree as that of another object, laid out in another way.
    pub(crate) fn commit_derived(
        self,
        id: StageId,
        of: &ObjectMeta,
        start: Instant,
    ) -> Result<Arc<ObjectMeta>, StoreError> {
        let step = StepRecord { id, module: DERIVED.to_owned(), metadata: Value::Null, duration: start.elapsed() };
        self.finish(id, &CommitInfo { source_epoch: of.source_epoch, steps: vec![step] }, &[])
    }

    fn finish(&self, id: StageId, info: &CommitInfo, large: &[LargeFile]) -> Result<Arc<ObjectMeta>, StoreError> {
        let (transaction, store) = (self.transaction, self.transaction.store());
        // Its links to the layer's files would change those when they go.
        let overlay = &self.upper().work;
        remove_tree(overlay).map_err(StoreError::io("remove", overlay))?;
        let tree = &self.upper().dir;
        let deltas = self.make_deltas(&ObjectRef { id, instance: self.instance.clone() }, large)?;
        // What ends with the lease is never looked at again.
        let seen = store.keeps().then(|| {
            let written = digest::written(tree, !self.lowers.is_empty(), Naming::Bounded)?;
            Ok((written, digest::stamp(tree)?, self.shared()?))
        });
        let seen = seen.transpose().map_err(StoreError::io::<io::Error>("read", tree))?;
        let (written, stamp, shared) = match seen {
            Some((written, stamp, shared)) => (Some(written), Some(stamp), shared),
            None => (None, None, None),
        };
        let bytes = written.as_ref().map_or(0, |written| written.bytes);
        let makes_placeholders = self.upper().metacopy;
        let meta = ObjectMeta {
            format: FORMAT,
            id,
            boot: store.shared.boot.clone(),
            base: self.base,
            instance: self.instance.clone(),
            lowers: self.lowers.clone(),
            created: Some((self.created.tv_sec, self.created.tv_nsec)),
            digest: written.as_ref().map(|written| written.digest),
            stamp,
            marks: written.as_ref().filter(|_| self.lowers.is_empty()).map(|written| written.has_marks),
            bytes: bytes.saturating_sub(shared.as_ref().map_or(0, |shared| shared.bytes)),
            shared,
            longest_path: written.as_ref().and_then(|written| self.longest_path(written)),
            has_placeholders: written.as_ref().map_or(makes_placeholders, |written| written.has_placeholders)
                || self.below.as_ref().is_some_and(|below| below.has_placeholders),
            deltas,
            source_epoch: info.source_epoch,
            steps: info.steps.clone(),
        };
        let path = self.object().join(META);
        store.change("write", &path, || std::fs::write(&path, object::encode(&meta)?))?;
        let nobody_evicts = store.share()?;
        transaction.note_object(id)?;
        let meta = match transaction.put_in_place(&self.object(), id, meta.bytes + notes(&self.object()))? {
            Some(theirs) => {
                // It may be an alias of another one.
                transaction.note_object(theirs.id)?;
                theirs
            }
            None => {
                transaction.made_one(id);
                if store.keeps() {
                    transaction.sync_later(New::Object(id));
                }
                Arc::new(meta)
            }
        };
        drop(nobody_evicts);
        transaction.hold(id, Arc::clone(&meta));
        store.keep_within_limit();
        Ok(meta)
    }
}

impl Work<'_> {
    /// How long the path of a file in the whole tree is at most, as far as it is known of the tree below.
    fn longest_path(&self, written: &Written) -> Option<u64> {
        let Some(below) = &self.below else { return Some(written.longest) };
        // What is in a directory that was renamed was not read.
        Some(written.longest.max(below.longest_path? + written.longer_by))
    }

    /// What it has in common with the tree that it is a copy of.
    fn shared(&self) -> io::Result<Option<InCommon>> {
        let Some(with) = self.copy_of.clone().filter(|_| self.transaction.store().has_reflinks()) else {
            return Ok(None);
        };
        let bytes = extents::shared_below(&self.upper().dir)?;
        Ok((bytes > 0).then_some(InCommon { with, bytes }))
    }
}

impl Transaction {
    /// Makes a finished directory that takes so many bytes the object `id`, while nobody evicts.
    ///
    /// Returns the object that another process has put there meanwhile, which is as good.
    pub(crate) fn put_in_place(
        &self,
        directory: &Path,
        id: StageId,
        bytes: u64,
    ) -> Result<Option<Arc<ObjectMeta>>, StoreError> {
        let (store, place) = (self.store(), self.place_for(id));
        let appear = || store.change("put in place", &place, || move_to(directory, &place));
        loop {
            match if store.keeps() { store.count(bytes, appear) } else { appear() }? {
                Placed::There => return Ok(None),
                Placed::Taken => {
                    if let Some(theirs) = store.reader().read(id) {
                        return Ok(Some(theirs));
                    }
                    self.set_aside(&place)?;
                }
            }
        }
    }

    /// Moves what cannot be used out of an object's place; it goes with the lease.
    fn set_aside(&self, place: &Path) -> Result<(), StoreError> {
        let aside = self.new_path();
        self.store().change("set aside", place, || match rustix::fs::rename(place, &aside) {
            // Somebody else did.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }
}

fn move_to(object: &Path, place: &Path) -> std::io::Result<Placed> {
    match rustix::fs::rename(object, place) {
        Ok(()) => Ok(Placed::There),
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(Placed::Taken),
        Err(error) => Err(error.into()),
    }
}
