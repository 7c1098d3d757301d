//! Results that were not built, since an earlier one is equal to what they would have become.

use std::sync::Arc;

use osbc_ir::StageId;

use crate::error::StoreError;
use crate::objects::layout::ALIAS;
use crate::objects::object::{ObjectMeta, ObjectRef};
use crate::objects::sync::New;
use crate::reclaim::inventory::notes;
use crate::transaction::Transaction;

impl Transaction {
    /// Takes the object `target` under the lease as the result `id`, and keeps it in the store as that. `None` if the
    /// store does not have it any more.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn adopt(&self, id: StageId, target: &ObjectRef) -> Result<Option<Arc<ObjectMeta>>, StoreError> {
        let store = self.store();
        let shared = store.share()?;
        let found = store.reader().read(target.id).filter(|meta| meta.instance == target.instance);
        let Some(meta) = found else { return Ok(None) };
        self.note_object(meta.id)?;
        let directory = self.new_path();
        store.make_directory(&directory)?;
        let path = directory.join(ALIAS);
        store.change("write", &path, || std::fs::write(&path, serde_json::to_vec(&meta.reference())?))?;
        self.note_object(id)?;
        let meta = match self.put_in_place(&directory, id, notes(&directory))? {
            // It may stand for another object than ours.
            Some(theirs) => {
                self.note_object(theirs.id)?;
                theirs
            }
            None => {
                self.sync_later(New::Alias);
                meta
            }
        };
        drop(shared);
        self.hold(id, Arc::clone(&meta));
        Ok(Some(meta))
    }
}
