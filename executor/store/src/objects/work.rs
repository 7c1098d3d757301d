//! A tree in the making: what a segment's stages change, on top of a committed base.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use osbc_ir::StageId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec};

use crate::error::StoreError;
use crate::fs::copy::{Ownership, Sharing, copy_attributes, copy_tree_sharing};
use crate::fs::delete::remove_tree;
use crate::fs::overlay;
use crate::objects::abilities::Way;
use crate::objects::layout;
use crate::objects::links;
use crate::objects::object::{Delta, ObjectMeta, ObjectRef};
use crate::reclaim::inventory::bytes_of;
use crate::transaction::Transaction;
use crate::tree_stack::{TreeStack, Upper};

/// How many layers a tree may have: look-ups through a hundred cost seventeen times those through one.
pub(crate) const MAX_LAYERS: usize = 32;

/// Why a tree is a plain directory: a stage asked for one.
const NEEDED: &str = "the stage makes what no overlayfs layer can hold";
/// The same: of what it continues.
const MARKS: &str = "it holds devices or attributes that overlayfs marks its layers with";

/// The future object in the directory of a work.
const OBJECT: &str = "object";
/// The directory for overlayfs's own use.
const OVERLAY: &str = "overlay";
/// The directory for a stage's scratch files.
const SCRATCH: &str = "scratch";

/// A tree in the making. Dropped without being committed, nothing of it remains.
#[derive(Debug)]
pub struct Work<'a> {
    pub(crate) transaction: &'a Transaction,
    pub(crate) directory: PathBuf,
    /// The name that no other object of its id has ([`ObjectMeta::instance`]).
    pub(crate) instance: String,
    pub(crate) base: Option<StageId>,
    /// The objects whose layers lie below, lowest first.
    pub(crate) lowers: Vec<ObjectRef>,
    /// The object that the layer lies on; none for a whole tree.
    pub(crate) below: Option<Arc<ObjectMeta>>,
    /// The object that the tree is a copy of.
    pub(crate) copy_of: Option<ObjectRef>,
    pub(crate) stack: TreeStack,
    /// Why the tree is a plain directory where the store has layers.
    why_plain: Option<&'static str>,
    /// The deltas of its tree, once they are made.
    pub(crate) deltas: OnceLock<Vec<Delta>>,
    /// When the tree was created, by the clock that stamps its files.
    pub(crate) created: Timespec,
}

impl Transaction {
    /// Begins a tree that continues a leased or just committed result, or an empty one.
    ///
    /// # Errors
    /// The store cannot be written to, or has no room even after an eviction.
    ///
    /// # Panics
    /// The base is not under this lease.
    pub fn work(&self, base: Option<StageId>) -> Result<Work<'_>, StoreError> {
        self.store().with_room(|| self.begin_tree(base, false))
    }

    /// Begins a tree likewise, which is a plain directory whatever the store's way of layering is.
    ///
    /// # Errors
    /// As for [`Transaction::work`].
    ///
    /// # Panics
    /// The base is not under this lease.
    pub fn plain_work(&self, base: Option<StageId>) -> Result<Work<'_>, StoreError> {
        self.store().with_room(|| self.begin_tree(base, true))
    }

    fn begin_tree(&self, base: Option<StageId>, is_plain: bool) -> Result<Work<'_>, StoreError> {
        let Some(id) = base else {
            let work = self.empty(None)?;
            work.make_tree()?;
            return Ok(work);
        };
        let below = self.object(id).expect("a base is leased or was committed under the lease");
        match self.store().way(self.directory())? {
            // What is kept must not lie on what is not.
            _ if self.store().keeps() && self.is_elsewhere(id) => self.copy(&below, Sharing::IfPossible),
            Way::Overlay if is_plain => self.plain_copy(&below, NEEDED),
            Way::Overlay if self.has_marks(&below)? => self.plain_copy(&below, MARKS),
            Way::Overlay => {
                let below = match below.lowers.len() + 2 {
                    _ if self.store().shuffles() => self.shuffled(&below)?,
                    height if height > MAX_LAYERS => self.flattened(&below)?,
                    _ if below.has_placeholders && !below.takes_placeholders() => self.flattened(&below)?,
                    _ => below,
                };
                // A layer escapes what is in a plain directory as it is.
                if self.has_marks(&below)? {
                    return self.plain_copy(&below, MARKS);
                }
                let mut work = self.empty(base)?;
                work.put_on(&below)?;
                Ok(work)
            }
            Way::Reflink => self.copy(&below, Sharing::Always),
            Way::Copy => self.copy(&below, Sharing::Never),
        }
    }

    /// A work without a tree.
    fn empty(&self, base: Option<StageId>) -> Result<Work<'_>, StoreError> {
        let directory = self.new_path();
        self.store().make_directory(&directory)?;
        // Not the clock of the process, which is a little ahead of the one that stamps files.
        let stat = rustix::fs::stat(&directory).map_err(StoreError::io("read", &directory))?;
        let created = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let (dir, overlay) = (directory.join(OBJECT).join(layout::content(&instance)), directory.join(OVERLAY));
        let upper = Upper { dir, work: overlay, metacopy: false };
        let stack = TreeStack { lower: Vec::new(), upper: Some(upper) };
        let work = Work {
            transaction: self,
            directory,
            instance,
            base,
            lowers: Vec::new(),
            below: None,
            copy_of: None,
            stack,
            why_plain: None,
            deltas: OnceLock::new(),
            created,
        };
        self.store().make_directory(&work.object())?;
        Ok(work)
    }

    /// The same as a copy, which the store keeps for this reason.
    fn plain_copy(&self, below: &ObjectMeta, reason: &'static str) -> Result<Work<'_>, StoreError> {
        let mut work = self.copy(below, Sharing::IfPossible)?;
        work.why_plain = Some(reason);
        Ok(work)
    }

    /// A whole tree of its own with the content of an object.
    pub(crate) fn copy(&self, below: &ObjectMeta, sharing: Sharing) -> Result<Work<'_>, StoreError> {
        let mut work = self.empty(Some(below.id))?;
        work.make_tree()?;
        work.copy_from(below, sharing)?;
        work.copy_of = Some(below.reference());
        Ok(work)
    }

    /// The same tree as that of a tall stack, as a single layer: an object of its own, made once for all that go on
    /// from there.
    fn flattened(&self, tall: &ObjectMeta) -> Result<Arc<ObjectMeta>, StoreError> {
        let _alone = self.flattening.lock().unwrap_or_else(PoisonError::into_inner);
        let id = tall.derived_id("osbc flattened tree 1");
        if let Some(known) = self.add(id)? {
            return Ok(known);
        }
        let start = Instant::now();
        let work = self.copy(tall, Sharing::IfPossible)?;
        work.commit_derived(id, tall, start)
    }
}

impl Work<'_> {
    /// The tree, ready for the next stage to mount and change.
    ///
    /// # Errors
    /// What the mount of the last stage left cannot be removed.
    pub fn stack(&self) -> Result<TreeStack, StoreError> {
        let overlay = &self.upper().work;
        overlay::settle(overlay).map_err(StoreError::io("clean", overlay))?;
        Ok(self.stack.clone())
    }

    /// An empty directory for one stage; what the one before had is removed.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let path = self.directory.join(SCRATCH);
        remove_tree(&path).map_err(StoreError::io("remove", &path))?;
        self.transaction.store().make_directory(&path)?;
        Ok(path)
    }

    /// Returns whether the tree is a plain directory, and not a layer on others.
    pub fn is_plain(&self) -> bool {
        self.stack.lower.is_empty()
    }

    /// Returns why the tree is a plain directory where the store keeps others as layers; `None` if it is as all others.
    pub fn why_plain(&self) -> Option<&'static str> {
        self.why_plain
    }

    /// What has been written so far, in bytes on disk.
    pub fn written(&self) -> u64 {
        let tree = &self.upper().dir;
        tree.symlink_metadata().map_or(0, |metadata| bytes_of(tree, &metadata))
    }

    pub(crate) fn upper(&self) -> &Upper {
        self.stack.upper.as_ref().expect("a work has an upper directory from the start")
    }

    pub(crate) fn object(&self) -> PathBuf {
        self.directory.join(OBJECT)
    }

    /// Makes an empty tree.
    fn make_tree(&self) -> Result<(), StoreError> {
        let tree = &self.upper().dir;
        self.transaction.store().make_directory(tree)?;
        let mode = Mode::from_raw_mode(0o755);
        self.transaction.store().change("make", tree, || Ok(rustix::fs::chmodat(CWD, tree, mode, AtFlags::empty())?))
    }

    /// Makes an empty layer on an object, its root with the attributes of the root below.
    fn put_on(&mut self, below: &Arc<ObjectMeta>) -> Result<(), StoreError> {
        let store = self.transaction.store();
        let (layer, overlay) = (&self.upper().dir, &self.upper().work);
        store.make_directory(layer)?;
        store.make_directory(overlay)?;
        let stack = self.transaction.stack(below)?;
        let top = stack.lower.last().expect("an object has a directory of its own");
        store.change("make", layer, || {
            let top = open_directory(top)?;
            let stat = rustix::fs::fstat(&top)?;
            copy_attributes(top.as_fd(), open_directory(layer)?.as_fd(), &stat)
        })?;
        self.lowers = below.lowers.iter().cloned().chain([below.reference()]).collect();
        self.stack.lower = stack.lower;
        if let Some(upper) = &mut self.stack.upper {
            upper.metacopy = below.takes_placeholders();
        }
        self.below = Some(Arc::clone(below));
        store.change("bring hard links to", &self.upper().dir, || links::bring_along(&self.stack))
    }

    /// Fills the empty tree with the content of an object.
    fn copy_from(&self, below: &ObjectMeta, sharing: Sharing) -> Result<(), StoreError> {
        let (store, tree) = (self.transaction.store(), &self.upper().dir);
        let from =
            overlay::open(&self.transaction.stack(below)?).map_err(StoreError::io("open the layers below", tree))?;
        let to = open_directory(tree).map_err(StoreError::io("open", tree))?;
        let mut copied = Ok(Default::default());
        let started = store.change("copy to", tree, || {
            copied = copy_tree_sharing(from.as_fd(), to.as_fd(), Ownership::Keep, sharing);
            Ok(())
        });
        let copied = started.and_then(|()| copied.map_err(StoreError::copy(tree)));
        match copied.map_err(|error| error.needing(below.bytes))?.lost.into_iter().next() {
            None => Ok(()),
            Some(lost) => {
                Err(StoreError::Lossy { path: tree.join(lost.path), attribute: lost.attribute, reason: lost.reason })
            }
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // What cannot be removed now goes with the lease, or is swept when the store is next opened.
        remove_tree(&self.directory).ok();
    }
}

fn open_directory(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
