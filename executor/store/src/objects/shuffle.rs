//! Trees whose directories list their files in another order than usual, for builds that are to show whether that
//! matters.
//!
//! In which order a file system lists a directory is its own business; an overlay, though, lists what is in its lowest
//! layer first. So below a whole copy of a tree goes a layer with every second file of each directory: the tree is the
//! same, and its directories list those files before the others. A tree that overlayfs would misread stays as it is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use osbc_ir::StageId;
use rustix::fs::{AtFlags, FileType};

use crate::error::StoreError;
use crate::fs::copy::Sharing;
use crate::fs::walk;
use crate::objects::abilities::Way;
use crate::objects::marks;
use crate::objects::object::ObjectMeta;
use crate::store::{Layers, Store};
use crate::transaction::Transaction;
use crate::tree_stack::TreeStack;

impl Store {
    /// Whether trees are shown in another order here.
    pub(crate) fn shuffles(&self) -> bool {
        self.shared.settings.layers == Layers::Shuffled
    }
}

impl Transaction {
    /// The tree of a result that is leased or was committed under this lease, as a stage is to read it.
    ///
    /// # Errors
    /// The store shuffles trees, and that cannot be done.
    pub fn tree_for_stages(&self, id: StageId) -> Result<Option<TreeStack>, StoreError> {
        let Some(object) = self.object(id) else { return Ok(None) };
        let shuffles = self.store().shuffles() && self.store().way(self.directory())? == Way::Overlay;
        let object = if shuffles { self.shuffled(&object)? } else { object };
        self.stack(&object).map(Some)
    }

    /// The same tree in another order: an object of its own, made once for all that go on from there or read it.
    pub(crate) fn shuffled(&self, whole: &ObjectMeta) -> Result<Arc<ObjectMeta>, StoreError> {
        let _alone = self.flattening.lock().unwrap_or_else(PoisonError::into_inner);
        let id = whole.derived_id("osbc scattered tree 2");
        if let Some(known) = self.add(id)? {
            return Ok(known);
        }
        let start = Instant::now();
        let mut work = self.copy(whole, Sharing::IfPossible)?;
        let tree = &work.upper().dir;
        if !marks::are_below(tree).map_err(StoreError::io("read", tree))? {
            let half = self.copy(whole, Sharing::IfPossible)?;
            let tree = &half.upper().dir;
            self.store().change("thin out", tree, || thin_out(tree))?;
            let half = half.commit_derived(whole.derived_id("osbc thinned out tree 1"), whole, start)?;
            work.lowers = vec![half.reference()];
        }
        work.commit_derived(id, whole, start)
    }
}

/// Removes every second file of each directory below `root`, directories aside, beginning with the one that is listed
/// first.
fn thin_out(root: &Path) -> std::io::Result<()> {
    // A directory's entries are visited in the order in which they are listed.
    let met: Mutex<HashMap<usize, usize>> = Mutex::default();
    walk::entries(root, |entry| {
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
        let count = met.entry(entry.within).or_default();
        *count += 1;
        if *count % 2 == 1 {
            rustix::fs::unlinkat(entry.directory, entry.name, AtFlags::empty())?;
        }
        Ok(())
    })
    .map(drop)
}
