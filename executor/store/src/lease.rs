//! A lease: the results and items of a store that somebody uses, listed and locked for as long as it lives.
//!
//! What a build makes is a [`Transaction`](crate::Transaction).

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use osbc_ir::{CachedSet, Graph, ItemKey, NodeId, StageId};
use rustix::fs::{Timespec, UTIME_NOW};

use crate::check::stamps;
use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::fs::{lock, regular};
use crate::objects::layout;
use crate::objects::object::{ObjectMeta, ObjectRef};
use crate::reclaim::last_used;
use crate::store::Store;
use crate::tree_stack::TreeStack;

/// The file in a lease's directory with the names of what it uses, a line each: `object <id>` or
/// `item <content type>/<checksum>`. A line behind [`RELEASED`] takes back what the line before said.
const LIST: &str = "lease";
const RELEASED: &str = "released ";

/// What somebody uses of a store.
///
/// Nothing that it names is evicted while it lives, and its directory below `work/` is nobody else's; both end with it
/// or with its process.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    directory: PathBuf,
    /// Holds the lock on the directory.
    _owner: OwnedFd,
    pub(crate) present: CachedSet,
    objects: Mutex<HashMap<StageId, Arc<ObjectMeta>>>,
    /// Those of the objects that were made under it.
    made: Mutex<HashSet<StageId>>,
    /// The results that stand for an object, by that.
    aliases: Mutex<HashMap<StageId, Vec<StageId>>>,
    /// Those of the objects that are not used any more.
    released: Mutex<HashSet<StageId>>,
    /// Where the whole files are of layers that have deltas.
    restored: Mutex<HashMap<ObjectRef, PathBuf>>,
    /// Those of the objects that do not lie in the store's own place, and where they do.
    elsewhere: Mutex<HashMap<StageId, PathBuf>>,
    list: Mutex<std::fs::File>,
    next: AtomicU64,
}

impl Store {
    /// Which of these nodes of a graph it has right now. Nothing keeps them there: who goes on to use them takes a
    /// [`Store::lease`].
    pub fn present(&self, graph: &Graph, ids: impl IntoIterator<Item = NodeId>) -> CachedSet {
        self.present_asked(graph, |has| {
            for id in ids {
                has(id);
            }
        })
    }

    /// The same for all that `ask` asks for; it gets whether each is there, and may ask on accordingly.
    pub fn present_asked(&self, graph: &Graph, ask: impl FnOnce(&mut dyn FnMut(NodeId) -> bool)) -> CachedSet {
        let mut reader = self.reader();
        let mut present = Vec::new();
        ask(&mut |id| {
            let there = match id {
                NodeId::Stage(id) => reader.read(id).is_some(),
                NodeId::Item(id) => self.item_of(graph, id).is_some(),
            };
            if there {
                present.push(id);
            }
            there
        });
        present.into_iter().collect()
    }

    /// Takes a lease on those of these nodes of a graph that the store has: they stay until it is dropped.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn lease(&self, graph: &Graph, ids: impl IntoIterator<Item = NodeId>) -> Result<Lease, StoreError> {
        self.lease_asked(graph, |has| {
            for id in ids {
                has(id);
            }
        })
    }

    /// The same for all that `ask` asks for; it gets whether each is there, and may ask on accordingly.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn lease_asked(
        &self,
        graph: &Graph,
        ask: impl FnOnce(&mut dyn FnMut(NodeId) -> bool),
    ) -> Result<Lease, StoreError> {
        Lease::take(self.clone(), graph, ask)
    }

    /// Takes a lease on nothing yet; [`Lease::add`] adds to it.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn lease_nothing(&self) -> Result<Lease, StoreError> {
        Lease::new(self.clone())
    }
}

impl Lease {
    /// A lease on what `ask` asks for, of a graph's nodes, and is there.
    pub(crate) fn take(
        store: Store,
        graph: &Graph,
        ask: impl FnOnce(&mut dyn FnMut(NodeId) -> bool),
    ) -> Result<Self, StoreError> {
        let mut lease = Self::new(store)?;
        let mut present = Vec::new();
        let mut lines = String::new();
        let (store, now) = (&lease.store, Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
        let shared = store.share()?;
        let mut reader = store.reader();
        ask(&mut |id| {
            match id {
                NodeId::Stage(stage) => {
                    let Some(meta) = reader.read(stage) else { return false };
                    lines.push_str(&object_line(stage));
                    if meta.id != stage {
                        lines.push_str(&object_line(meta.id));
                        last_used::object(store.layout(), meta.id, now);
                    }
                    last_used::object(store.layout(), stage, now);
                    lease.hold(stage, meta);
                }
                NodeId::Item(item) => {
                    let Some(entry) = store.item_of(graph, item) else { return false };
                    lines.push_str(&item_line(&entry.key));
                    stamps::used(store.layout(), &entry.key);
                }
            }
            present.push(id);
            true
        });
        drop(reader);
        lease.note(&lines)?;
        drop(shared);
        lease.present = present.into_iter().collect();
        Ok(lease)
    }

    /// A lease on nothing yet.
    pub(crate) fn new(store: Store) -> Result<Self, StoreError> {
        let (directory, owner) = own_new_directory(&store)?;
        let path = directory.join(LIST);
        let list = store.change("write", &path, || std::fs::File::create(&path))?;
        Ok(Self {
            store,
            directory,
            _owner: owner,
            present: CachedSet::default(),
            objects: Mutex::default(),
            made: Mutex::default(),
            aliases: Mutex::default(),
            released: Mutex::default(),
            restored: Mutex::default(),
            elsewhere: Mutex::default(),
            list: Mutex::new(list),
            next: AtomicU64::new(0),
        })
    }

    /// Takes one more object under the lease; `None` if it is not there.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn add(&self, id: StageId) -> Result<Option<Arc<ObjectMeta>>, StoreError> {
        if let Some(known) = self.object(id).filter(|_| !self.is_released(id)) {
            return Ok(Some(known));
        }
        let _nobody_evicts = self.store.share()?;
        let Some(meta) = self.store.reader().read(id) else { return Ok(None) };
        for id in [id, meta.id] {
            self.note_object(id)?;
            last_used::object(self.store.layout(), id, Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
        }
        self.hold(id, Arc::clone(&meta));
        self.released.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(Some(meta))
    }

    /// Gives up a result, which may be evicted from now on; its description stays known.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn release(&self, id: StageId) -> Result<(), StoreError> {
        let Some(meta) = self.object(id) else { return Ok(()) };
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if !released.insert(id) {
            return Ok(());
        }
        // Others may stand for the same object.
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let is_used = {
            let aliases = self.aliases.lock().unwrap_or_else(PoisonError::into_inner);
            let mut others = aliases.get(&meta.id).into_iter().flatten().chain([&meta.id]);
            others.any(|id| objects.contains_key(id) && !released.contains(id))
        };
        // Few builds have large files.
        if !self.restored().is_empty() {
            let left = objects.iter().filter(|(id, _)| !released.contains(id)).map(|(_, other)| Arc::clone(other));
            self.forget_restored(&left.collect::<Vec<_>>());
        }
        drop((objects, released));
        let gone: HashSet<StageId> = [id, meta.id].into_iter().filter(|id| !is_used || *id != meta.id).collect();
        self.note(&gone.into_iter().map(|id| format!("{RELEASED}{}", object_line(id))).collect::<String>())?;
        self.store.keep_within_limit();
        Ok(())
    }

    fn is_released(&self, id: StageId) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// The store that it is on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which of the nodes that it was asked for are there.
    pub fn present(&self) -> &CachedSet {
        &self.present
    }

    /// The description of a result that is leased or was committed under this lease; of one that stands for another,
    /// the other's.
    pub fn object(&self, id: StageId) -> Option<Arc<ObjectMeta>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The tree of such a result, to be read; `None` also if it was given up and is gone.
    ///
    /// # Errors
    /// A large file of it cannot be put together.
    pub fn tree(&self, id: StageId) -> Result<Option<TreeStack>, StoreError> {
        match self.object(id) {
            // It may have been evicted.
            Some(object) if self.is_released(id) && self.store.reader().read(object.id).is_none() => Ok(None),
            object => object.map(|object| self.stack(&object)).transpose(),
        }
    }

    /// The tree of a result that was made under this lease and ends with it, if it is one directory and nothing lies on
    /// it: who needs it no more may move it away.
    pub(crate) fn own_tree(&self, id: StageId) -> Option<PathBuf> {
        let object = self.object(id)?;
        let is_own = self.made(object.id) && self.is_elsewhere(object.id) && object.lowers.is_empty();
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let is_below = objects.values().any(|other| other.lowers.iter().any(|lower| lower.id == object.id));
        drop(objects);
        (is_own && !is_below).then(|| self.place(&object.reference()))
    }

    /// The directories of an object under this lease, as a tree to read.
    ///
    /// # Errors
    /// A large file of it cannot be put together.
    pub(crate) fn stack(&self, object: &ObjectMeta) -> Result<TreeStack, StoreError> {
        let mut lower = Vec::with_capacity(object.lowers.len() + 1);
        for layer in object.layers() {
            lower.push(self.place(&layer));
            if object.deltas.iter().any(|delta| delta.layer == layer) {
                lower.push(self.restore(&layer, &object.deltas)?);
            }
        }
        Ok(TreeStack { lower, upper: None })
    }

    /// The directory with the tree or layer of an object under this lease.
    pub(crate) fn place(&self, object: &ObjectRef) -> PathBuf {
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        match elsewhere.get(&object.id) {
            Some(place) => place.join(layout::content(&object.instance)),
            None => object.content(self.store.layout()),
        }
    }

    /// The directories with the whole files of layers that have deltas.
    pub(crate) fn restored(&self) -> MutexGuard<'_, HashMap<ObjectRef, PathBuf>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what lies on this object must not outlive the lease.
    pub(crate) fn is_elsewhere(&self, id: StageId) -> bool {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Notes that an object lies outside of the store's own place.
    pub(crate) fn lie_elsewhere(&self, id: StageId, place: PathBuf) {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).insert(id, place);
    }

    /// The directory that is this lease's alone.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A name below the lease's directory that was not used yet.
    pub(crate) fn new_path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Puts an object on the list, before it appears or is used.
    pub(crate) fn note_object(&self, id: StageId) -> Result<(), StoreError> {
        self.note(&object_line(id))
    }

    /// Puts an item on the list, before it appears or is used.
    pub(crate) fn note_item(&self, key: &ItemKey) -> Result<(), StoreError> {
        self.note(&item_line(key))
    }

    fn note(&self, line: &str) -> Result<(), StoreError> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.change("write", self.directory.join(LIST), || list.write_all(line.as_bytes()))
    }

    /// Makes a result known under this lease: the object `id`, or what that stands for.
    pub(crate) fn hold(&self, id: StageId, meta: Arc<ObjectMeta>) {
        if id != meta.id {
            self.aliases.lock().unwrap_or_else(PoisonError::into_inner).entry(meta.id).or_default().push(id);
        }
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(id, meta);
    }

    /// Whether a result was made under this lease, and not found.
    pub(crate) fn made(&self, id: StageId) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Notes that a result was made under this lease.
    pub(crate) fn made_one(&self, id: StageId) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What cannot be removed now is swept when the store is next opened.
        remove_tree(&self.directory).ok();
    }
}

pub(crate) fn object_line(id: StageId) -> String {
    format!("object {id}\n")
}

pub(crate) fn item_line(key: &ItemKey) -> String {
    format!("item {key}\n")
}

/// Makes a directory in `work/` that is its maker's alone.
pub(crate) fn own_new_directory(store: &Store) -> Result<(PathBuf, OwnedFd), StoreError> {
    loop {
        let directory = store.layout().work().join(uuid::Uuid::new_v4().to_string());
        // A sweep may take a new directory for one of a dead process in the moment before it is locked.
        if let Some(owner) = store.change("make", &directory, || lock::own_directory(&directory))? {
            return Ok((directory, owner));
        }
    }
}

/// What a list names: objects, and items by content type and checksum.
pub(crate) fn listed(directory: &Path) -> HashSet<String> {
    let text = regular::read_to_string(&directory.join(LIST)).unwrap_or_default();
    let mut listed = HashSet::new();
    for line in text.lines() {
        match line.strip_prefix(RELEASED) {
            Some(released) => drop(listed.remove(released)),
            None => drop(listed.insert(line.to_owned())),
        }
    }
    listed
}

/// Whether somebody works in a directory of a store's `work/`.
pub fn is_owned(directory: &Path) -> bool {
    directory.exists() && lock::own_existing(directory).is_ok_and(|free| free.is_none())
}
