//! Turns a work into an object, by one rename.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use osbc_ir::StageId;
use rustix::io::Errno;

use super::error::StoreError;
use super::layout::META;
use super::lease::Lease;
use super::object::{FORMAT, ObjectMeta, StepRecord};
use super::work::Work;
use super::{clamp, links};

/// What a seal needs to know besides the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// The epoch that the times of what was written are clamped to.
    pub source_epoch: Option<i64>,
    /// The stages that ran, in order; the last one's id becomes the object's.
    pub steps: Vec<StepRecord>,
}

impl Work<'_> {
    /// Seals the tree as the result of the last of its steps. From then on it can be read under this lease, and by
    /// whoever leases it later.
    ///
    /// # Errors
    /// The store cannot be written to or has no room; nothing of the tree remains.
    ///
    /// # Panics
    /// There is no step.
    pub fn seal(self, sealing: Sealing) -> Result<Arc<ObjectMeta>, StoreError> {
        let lease = self.lease;
        let id = sealing.steps.last().expect("a segment has a step").id;
        links::complete(&self).map_err(StoreError::io("complete the hard links of", self.object()))?;
        if let Some(epoch) = sealing.source_epoch {
            let root = &self.upper().dir;
            clamp::clamp(root, self.created, epoch).map_err(StoreError::io("set the times of", root))?;
        }
        let meta = ObjectMeta {
            format: FORMAT,
            id,
            boot: lease.store().shared.boot.clone(),
            base: self.base,
            instance: uuid::Uuid::new_v4().simple().to_string(),
            lowers: self.lowers.clone(),
            created: Some((self.created.tv_sec, self.created.tv_nsec)),
            source_epoch: sealing.source_epoch,
            steps: sealing.steps,
        };
        write_meta(&self.object().join(META), &meta)?;
        lease.note_object(id)?;
        let meta = match lease.put_in_place(&self.object(), id)? {
            Some(theirs) => theirs,
            None => {
                if lease.store().keeps() {
                    lease.sync_later(id);
                }
                Arc::new(meta)
            }
        };
        lease.hold(id, Arc::clone(&meta));
        Ok(meta)
    }
}

impl Lease {
    /// Makes a finished folder the object `id`. Gives the object that another process has put there meanwhile, which is
    /// as good.
    pub(super) fn put_in_place(&self, folder: &Path, id: StageId) -> Result<Option<Arc<ObjectMeta>>, StoreError> {
        let place = self.place_for(id);
        loop {
            match rustix::fs::rename(folder, &place) {
                Ok(()) => return Ok(None),
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {
                    if let Some(theirs) = self.store().reader().read(id) {
                        return Ok(Some(theirs));
                    }
                    self.set_aside(&place)?;
                }
                Err(error) => return Err(StoreError::io("put in place", place)(error)),
            }
        }
    }

    /// Moves what cannot be used out of an object's place; it goes with the lease.
    fn set_aside(&self, place: &Path) -> Result<(), StoreError> {
        match rustix::fs::rename(place, self.new_path()) {
            // Somebody else did.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(StoreError::io("set aside", place)(error)),
        }
    }
}

fn write_meta(path: &Path, meta: &ObjectMeta) -> Result<(), StoreError> {
    let text = serde_json::to_vec(meta).map_err(std::io::Error::from).map_err(StoreError::io("describe", path))?;
    let mut file = std::fs::File::create_new(path).map_err(StoreError::io("write", path))?;
    file.write_all(&text).map_err(StoreError::io("write", path))
}
