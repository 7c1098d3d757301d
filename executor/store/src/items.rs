//! Source items: where they are, and how a new one comes in.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, ItemId, ItemKey, NodeId, SourceItem};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::fs::lock;
use crate::lease::Lease;
use crate::reclaim::inventory::bytes_of;
use crate::reclaim::size::Placed;
use crate::store::Store;
use crate::transaction::Transaction;

/// How often it is asked whether another process is done with an item.
const DOWNLOAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The modification time of every item, in seconds since 1970: 1 February 1980, which no archive format in any time
/// zone is too young for.
///
/// Stages copy items into trees with their times, and when an item was fetched must not show there.
pub(crate) const TIME: i64 = 318_211_200;
/// The mode of every item, whatever the umask was when it was fetched.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

/// The fetched bytes in the directory of a download.
const DATA: &str = "data";

/// What to do about an item that the lease did not find.
#[derive(Debug)]
pub enum Slot {
    /// Another process has fetched it meanwhile.
    There(PathBuf),
    /// Fetch it.
    Fetch(Download),
}

/// An item being fetched, by nobody else at the same time. Dropped without [`Download::commit`], what was fetched so
/// far is kept for the next try.
#[derive(Debug)]
pub struct Download {
    store: Store,
    /// Holds the lock on the directory.
    _owner: OwnedFd,
    directory: PathBuf,
    item: PathBuf,
    key: ItemKey,
}

impl Store {
    /// Returns an item of a graph; `None` if the graph or the store does not have it.
    pub(crate) fn item_of<'g>(&self, graph: &'g Graph, id: ItemId) -> Option<&'g SourceItem> {
        let node = graph.by_id.get(&NodeId::Item(id))?;
        let (_, item) = graph.item(graph.item_node(*node)?);
        let path = self.layout().item(&item.key)?;
        path.symlink_metadata().is_ok().then_some(item)
    }

    /// Returns the absolute path of the directory with all items, for on-disk modules.
    ///
    /// # Errors
    /// It is not UTF-8, as everything in their messages has to be.
    pub fn sources_to_tell(&self) -> Result<PathBuf, StoreError> {
        let sources = self.layout().sources();
        let sources = std::path::absolute(&sources).map_err(StoreError::io("find", &sources))?;
        if sources.to_str().is_none() {
            return Err(StoreError::NotText { path: self.path().to_owned() });
        }
        Ok(sources)
    }

    /// How many bytes the source items among a stage's inputs have, as far as they are here or the manifest says.
    pub fn input_bytes(&self, graph: &Graph, stage: NodeIndex) -> u64 {
        let items = graph.needs(stage).filter_map(|(node, _)| graph.item_node(node)).map(|item| graph.item(item).1);
        let size = |item: &SourceItem| {
            let here = self.layout().item(&item.key).and_then(|path| path.metadata().ok());
            item.size.or_else(|| here.map(|metadata| metadata.len())).unwrap_or(0)
        };
        items.map(size).sum()
    }
}

impl Lease {
    /// Where an item lies, or would lie.
    ///
    /// # Errors
    /// Its name cannot be a file's.
    pub fn item(&self, key: &ItemKey) -> Result<PathBuf, StoreError> {
        let path = self.store().layout().item(key);
        path.ok_or_else(|| StoreError::ItemName { name: key.to_string() })
    }
}

impl Transaction {
    /// Takes on the fetching of an item that is not there; waits while another process fetches it.
    ///
    /// # Errors
    /// The store cannot be written to, or `interrupted` said so while it waited.
    pub fn download(&self, key: &ItemKey, interrupted: &dyn Fn() -> bool) -> Result<Slot, StoreError> {
        let (store, item) = (self.store(), self.item(key)?);
        let nobody_evicts = store.share()?;
        self.note_item(key)?;
        drop(nobody_evicts);
        let directory = store.layout().downloads().join(format!("{}:{}", key.content_type, key.checksum));
        let owner = loop {
            if let Some(owner) = store.change("make", &directory, || lock::own_directory(&directory))? {
                break owner;
            }
            if interrupted() {
                return Err(StoreError::Interrupted);
            }
            std::thread::sleep(DOWNLOAD_POLL_INTERVAL);
        };
        let download = Download { store: store.clone(), _owner: owner, directory, item, key: key.clone() };
        // What becomes of the part is counted when that is known.
        store.uncount(download.part());
        if download.target().symlink_metadata().is_ok_and(|part| !part.is_file() && !part.is_dir()) {
            // Whoever opened a pipe to go on with it would wait.
            download.clear()?;
        }
        let is_there = download.item.symlink_metadata().is_ok();
        Ok(if is_there { Slot::There(download.item.clone()) } else { Slot::Fetch(download) })
    }
}

impl Download {
    /// The file or directory to make; a part of it may be there from an earlier try.
    pub fn target(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// Removes what was fetched so far, since it cannot become the item.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn clear(&self) -> Result<(), StoreError> {
        let target = self.target();
        self.store.change("remove", &target, || remove_tree(&target).or_else(unless_absent))
    }

    /// What was fetched so far takes so many bytes on the disk.
    fn part(&self) -> u64 {
        let target = self.target();
        target.symlink_metadata().map_or(0, |metadata| bytes_of(&target, &metadata))
    }

    /// The directory of all items of the content type, made.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn shared(&self) -> Result<&Path, StoreError> {
        let directory = self.item.parent().unwrap_or(Path::new("/"));
        self.store.change("make", directory, || std::fs::create_dir_all(directory))?;
        Ok(directory)
    }

    /// Puts the fetched and verified item in its place; returns its size in bytes.
    ///
    /// One that its source keeps elsewhere, so that nothing was made, has no place and no size.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn commit(self) -> Result<u64, StoreError> {
        let (target, store) = (self.target(), &self.store);
        let file = match File::open(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file.map_err(StoreError::io("open", &target))?,
        };
        let metadata = file.metadata().map_err(StoreError::io("read", &target))?;
        settle(store, &file, &metadata, &target)?;
        self.shared()?;
        let _nobody_evicts = store.share()?;
        store.count(bytes_of(&target, &metadata), || {
            store.change("put in place", &self.item, || std::fs::rename(&target, &self.item)).map(|()| Placed::There)
        })?;
        if let Some(stamp) = store.item_stamp(&self.key) {
            store.know_item(&self.key, &stamp);
        }
        size(&self.item, &metadata)
    }

    /// Takes on the item that an on-disk source put in its place itself; returns its size in bytes, or none where it
    /// put it elsewhere.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn adopt(self) -> Result<Option<u64>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&self.item, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &self.item)(io::Error::from(error))),
        };
        let metadata = file.metadata().map_err(StoreError::io("read", &self.item))?;
        settle(&self.store, &file, &metadata, &self.item)?;
        self.store.count(bytes_of(&self.item, &metadata), || Ok(Placed::There))?;
        size(&self.item, &metadata).map(Some)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Stays when it holds a part to go on with, which takes room until somebody does.
        if std::fs::remove_dir(&self.directory).is_err() {
            self.store.count(self.part(), || Ok(Placed::There)).ok();
        }
    }
}

fn unless_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Returns an item the attributes that every item has, and waits until the disk has it.
fn settle(store: &Store, file: &File, metadata: &std::fs::Metadata, path: &Path) -> Result<(), StoreError> {
    if metadata.is_dir() {
        return store.change("write to the disk", path, || Ok(rustix::fs::syncfs(file)?));
    }
    let time = Timespec { tv_sec: TIME, tv_nsec: 0 };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }, last_modification: time };
    store.change("set the time of", path, || {
        rustix::fs::fchmod(file, MODE)?;
        Ok(rustix::fs::futimens(file, &times)?)
    })?;
    store.change("write to the disk", path, || file.sync_all())
}

fn size(item: &Path, metadata: &Metadata) -> Result<u64, StoreError> {
    let size = if metadata.is_dir() { directory_size(item) } else { Ok(metadata.len()) };
    size.map_err(StoreError::io("read", item))
}

fn directory_size(directory: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() { directory_size(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}
