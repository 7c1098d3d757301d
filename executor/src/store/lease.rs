//! A lease: what one build uses of a store and what it is making there, held as long as it lives.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use osbc_ir::{Graph, Have, NodeId, StageId};

use super::Store;
use super::checkpoints::Checkpoints;
use super::digests::Digests;
use super::error::StoreError;
use super::object::ObjectMeta;
use super::sync::Syncer;
use crate::delete::remove_tree;
use crate::lock;
use crate::request::TreeStack;

/// The file in a lease's folder with the names of what it uses, a line each: `object <id>` or
/// `item <content type>/<checksum>`.
const LIST: &str = "lease";

/// What one build uses and makes. While it lives nothing that it names is evicted, and the folder that it works in is
/// nobody else's; both end with it or with its process.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    folder: PathBuf,
    /// Holds the lock on the folder.
    _owner: OwnedFd,
    pub(super) present: Have,
    objects: Mutex<HashMap<StageId, Arc<ObjectMeta>>>,
    /// Those of the objects that do not lie in the store's own place, and where they do.
    elsewhere: Mutex<HashMap<StageId, PathBuf>>,
    pub(super) checkpoints: Option<Checkpoints>,
    list: Mutex<std::fs::File>,
    next: AtomicU64,
    syncer: Syncer,
    pub(super) digests: Mutex<Digests>,
}

impl Lease {
    pub(super) fn take(store: Store, graph: &Graph, ids: impl IntoIterator<Item = NodeId>) -> Result<Self, StoreError> {
        let (folder, owner) = own_new_folder(&store.layout().work())?;
        let list_path = folder.join(LIST);
        let mut list = std::fs::File::create(&list_path).map_err(StoreError::io("write", &list_path))?;
        let lock_path = store.layout().lock();
        let shared = lock::share(&lock_path).map_err(StoreError::io("lock", &lock_path))?;
        let mut present = Vec::new();
        let mut objects = HashMap::new();
        let mut lines = String::new();
        let mut reader = store.reader();
        for id in ids {
            match id {
                NodeId::Stage(stage) => {
                    let Some(meta) = reader.read(stage) else { continue };
                    lines.push_str(&object_line(stage));
                    if meta.id != stage {
                        lines.push_str(&object_line(meta.id));
                    }
                    objects.insert(stage, meta);
                }
                NodeId::Item(item) => {
                    let Some((source, entry)) = store.item_of(graph, item) else { continue };
                    lines.push_str(&item_line(&source.content_type, &entry.checksum));
                }
            }
            present.push(id);
        }
        drop(reader);
        list.write_all(lines.as_bytes()).map_err(StoreError::io("write", &list_path))?;
        drop(shared);
        let syncer = Syncer::new(store.layout().clone());
        Ok(Self {
            store,
            folder,
            _owner: owner,
            present: present.into_iter().collect(),
            objects: Mutex::new(objects),
            elsewhere: Mutex::default(),
            checkpoints: None,
            list: Mutex::new(list),
            next: AtomicU64::new(0),
            syncer,
            digests: Mutex::default(),
        })
    }

    /// The store that it is on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which of the nodes that it was asked for are there.
    pub fn present(&self) -> &Have {
        &self.present
    }

    /// The description of a result that is leased or was sealed under this lease; of one that stands for another, the
    /// other's.
    pub fn object(&self, id: StageId) -> Option<Arc<ObjectMeta>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The tree of such a result, to be read.
    pub fn tree(&self, id: StageId) -> Option<TreeStack> {
        let object = self.object(id)?;
        Some(self.stack(&object))
    }

    /// Waits until all that was sealed under this lease has reached the disk.
    ///
    /// # Errors
    /// The disk refused; the results of its last moments were taken back.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.syncer.settle()
    }

    /// The folders of an object under this lease, as a tree to read.
    pub(super) fn stack(&self, object: &ObjectMeta) -> TreeStack {
        let elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        object.stack(|id| elsewhere.get(&id).cloned().unwrap_or_else(|| self.store.layout().object(id)))
    }

    /// Where a new object goes: to its place in the store or, in one that keeps nothing, to where it ends with the
    /// lease.
    pub(super) fn place_for(&self, id: StageId) -> PathBuf {
        if self.store.keeps() {
            return self.store.layout().object(id);
        }
        let place = self.new_path();
        self.lie_elsewhere(id, place.clone());
        place
    }

    /// Whether what lies on this object must not outlive the lease.
    pub(super) fn is_elsewhere(&self, id: StageId) -> bool {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Notes that an object lies outside of the store's own place.
    pub(super) fn lie_elsewhere(&self, id: StageId, place: PathBuf) {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).insert(id, place);
    }

    /// The folder that is this lease's alone.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name below the lease's folder that was not used yet.
    pub(super) fn new_path(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Puts an object on the list, before it appears or is used.
    pub(super) fn note_object(&self, id: StageId) -> Result<(), StoreError> {
        self.note(&object_line(id))
    }

    /// Puts an item on the list, before it appears or is used.
    pub(super) fn note_item(&self, content_type: &str, checksum: &str) -> Result<(), StoreError> {
        self.note(&item_line(content_type, checksum))
    }

    fn note(&self, line: &str) -> Result<(), StoreError> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.write_all(line.as_bytes()).map_err(StoreError::io("write", self.folder.join(LIST)))
    }

    /// Makes a result known under this lease: the object `id`, or what that stands for.
    pub(super) fn hold(&self, id: StageId, meta: Arc<ObjectMeta>) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(id, meta);
    }

    /// Has the disk synced behind an object that has just appeared.
    pub(super) fn sync_later(&self, id: StageId) {
        self.syncer.add(id);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A build that cares settles first and learns of errors; here it is only about not leaving the thread alone.
        self.syncer.settle().ok();
        // What cannot be removed now is swept when the store is next opened.
        remove_tree(&self.folder).ok();
    }
}

fn object_line(id: StageId) -> String {
    format!("object {id}\n")
}

fn item_line(content_type: &str, checksum: &str) -> String {
    format!("item {content_type}/{checksum}\n")
}

fn own_new_folder(work: &Path) -> Result<(PathBuf, OwnedFd), StoreError> {
    loop {
        let folder = work.join(uuid::Uuid::new_v4().to_string());
        // A sweep may take a new folder for one of a dead process in the moment before it is locked.
        if let Some(owner) = lock::own_folder(&folder).map_err(StoreError::io("make", &folder))? {
            return Ok((folder, owner));
        }
    }
}
