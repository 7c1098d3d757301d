//! Everything that a store holds, looked at once: for who shows it, counts it, or chooses what has to go. Reads only.

use std::collections::{HashMap, HashSet};
use std::fs::{DirEntry, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use osbc_ir::{ItemKey, StageId};
use rayon::prelude::*;

use crate::check::stamps;
use crate::error::StoreError;
use crate::fs::{lock, walk};
use crate::lease::{item_line, listed, object_line};
use crate::objects::layout::{ALIAS, DIGEST, Layout, META, STAMP};
use crate::objects::object;
use crate::objects::object::{ObjectMeta, ObjectRef};
use crate::reclaim::last_used;
use crate::store::Store;

/// What a store holds at one moment.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The objects that can be used.
    pub objects: HashMap<StageId, Kept>,
    /// The fetched items.
    pub items: Vec<Item>,
    /// The parts of items that were fetched so far and that nobody goes on with at the moment.
    pub parts: Vec<Part>,
    /// Results that stand for others, which they are equal to.
    pub aliases: HashMap<StageId, StageId>,
    /// What those take on disk.
    alias_bytes: u64,
    /// What lies among the objects and is of no use: damaged, half there, or without what it lies on; and nothing else
    /// lies on it.
    pub useless: Vec<PathBuf>,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it says about itself.
    pub meta: Arc<ObjectMeta>,
    /// When it, or one that lies on it, was last used.
    pub used: SystemTime,
    /// What it takes on disk, with all that is noted of it. What it shares with another one that is there is that
    /// one's.
    pub bytes: u64,
}

impl Kept {
    /// Returns whether it is a whole tree that continues another one.
    pub fn is_whole_copy(&self) -> bool {
        self.meta.base.is_some() && self.meta.lowers.is_empty()
    }
}

/// A fetched item.
#[derive(Debug, Clone)]
pub struct Item {
    /// What names it, and its path below `sources/`.
    pub key: ItemKey,
    /// Where it lies.
    pub path: PathBuf,
    /// What it takes on disk.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// The part of an item that was fetched so far.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its directory.
    pub path: PathBuf,
    /// What it takes on disk.
    pub bytes: u64,
}

impl Item {
    /// The item of that name; `None` if there is nothing. What has no checksum for a name is something that a source
    /// keeps for itself.
    pub(crate) fn of(layout: &Layout, key: &ItemKey) -> Option<Self> {
        let path = layout.item(key).filter(|_| key.checksum.contains(':'))?;
        // One that has just been evicted is none.
        let metadata = path.symlink_metadata().ok()?;
        Some(Self {
            key: key.clone(),
            bytes: bytes_of(&path, &metadata),
            used: stamps::last_use(layout, key, &metadata),
            path,
        })
    }
}

impl Inventory {
    /// What all of it takes on disk.
    pub fn bytes(&self) -> u64 {
        let objects: u64 = self.objects.values().map(|kept| kept.bytes).sum();
        let items: u64 = self.items.iter().map(|item| item.bytes).sum();
        objects + self.alias_bytes + items + self.parts.iter().map(|part| part.bytes).sum::<u64>()
    }

    /// Whether an object's whole stack is there. It does not take the descriptions of those below.
    fn stands(&self, store: &Store, meta: &ObjectMeta) -> bool {
        meta.lowers.iter().all(|lower| self.has(lower) || object::is_directory(&lower.content(store.layout())))
    }

    /// The object that one lies on directly, or shares blocks of the disk with: nothing is won when that one goes
    /// first.
    pub(crate) fn below(&self, meta: &ObjectMeta) -> Option<StageId> {
        let shares = || meta.shared.as_ref().map(|shared| &shared.with).filter(|with| self.has(with));
        meta.lowers.last().or_else(shares).map(|lower| lower.id)
    }

    /// Whether that very object is there.
    fn has(&self, lower: &ObjectRef) -> bool {
        self.objects.get(&lower.id).is_some_and(|kept| kept.meta.instance == lower.instance)
    }

    /// The results that stand for one.
    pub(crate) fn aliases_of(&self, id: StageId) -> impl Iterator<Item = StageId> {
        self.aliases.iter().filter(move |(_, target)| **target == id).map(|(alias, _)| *alias)
    }

    /// Looks at what it does not know yet, and forgets what is gone.
    pub(crate) fn renew(&mut self, store: &Store) -> Result<(), StoreError> {
        let entries = entries(&store.layout().objects())?;
        let known = |entry: &DirEntry| {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<StageId>().ok());
            id.filter(|id| self.objects.contains_key(id))
        };
        let there: HashSet<StageId> = entries.iter().filter_map(known).collect();
        let new: Vec<&DirEntry> = entries.iter().filter(|entry| known(entry).is_none()).collect();
        let looked: Vec<_> = new.into_par_iter().map(|entry| (entry.path(), look_at(store, entry))).collect();
        self.objects.retain(|id, _| there.contains(id));
        self.useless.clear();
        let (kept, others): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(_, kept)| kept.is_some());
        self.objects.extend(kept.into_iter().filter_map(|(_, kept)| kept.map(|kept| (kept.meta.id, kept))));
        self.useless.extend(others.into_iter().map(|(path, _)| path));
        self.drop_fallen(store);
        self.find_aliases(store);
        self.pass_on_use();
        self.count(store);
        self.renew_parts(store)?;
        self.renew_items(store)
    }

    fn renew_parts(&mut self, store: &Store) -> Result<(), StoreError> {
        self.parts.clear();
        for entry in entries(&store.layout().downloads())? {
            let path = entry.path();
            // What somebody goes on with is in the making, and counts as little as other work.
            if !matches!(lock::own_existing(&path), Ok(Some(_))) {
                continue;
            }
            let bytes =
                entries(&path)?.iter().filter_map(|file| Some(bytes_of(&file.path(), &file.metadata().ok()?))).sum();
            self.parts.push(Part { path, bytes });
        }
        Ok(())
    }

    fn renew_items(&mut self, store: &Store) -> Result<(), StoreError> {
        self.items.clear();
        let Some(sources) = store.layout().own_sources() else { return Ok(()) };
        for directory in entries(sources)? {
            let content_type = directory.file_name().to_string_lossy().into_owned();
            for entry in entries(&directory.path())? {
                let checksum = entry.file_name();
                self.items.extend(
                    checksum.to_str().and_then(|name| Item::of(store.layout(), &ItemKey::new(&*content_type, name))),
                );
            }
        }
        Ok(())
    }

    /// Those whose stack is not whole count as useless. A layer names all that lie below it, so one look at each will
    /// do.
    fn drop_fallen(&mut self, store: &Store) {
        let falls = self.objects.values().filter(|kept| !self.stands(store, &kept.meta));
        let fallen: Vec<StageId> = falls.map(|kept| kept.meta.id).collect();
        for id in fallen {
            self.objects.remove(&id);
            self.useless.push(store.layout().object(id));
        }
        let below: HashSet<PathBuf> = self
            .objects
            .values()
            .flat_map(|kept| &kept.meta.lowers)
            .map(|lower| store.layout().object(lower.id))
            .collect();
        self.useless.retain(|path| !below.contains(path));
    }

    /// Of what seems useless, that which stands for an object that is there.
    fn find_aliases(&mut self, store: &Store) {
        self.aliases.clear();
        let reader = store.reader();
        self.useless.retain(|path| {
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<StageId>().ok());
            let target = id.and_then(|id| Some((id, reader.alias(id)?)));
            let Some((id, target)) = target else { return true };
            let there = self.objects.get(&target.id).is_some_and(|kept| kept.meta.instance == target.instance);
            if there {
                self.aliases.insert(id, target.id);
            }
            !there
        });
    }

    /// Counts what each object takes now.
    fn count(&mut self, store: &Store) {
        let alone: Vec<StageId> = {
            let shares = self.objects.iter().filter_map(|(id, kept)| Some((*id, kept.meta.shared.as_ref()?)));
            shares.filter(|(_, shared)| !self.has(&shared.with)).map(|(id, _)| id).collect()
        };
        let notes = |id: StageId| notes(&store.layout().object(id));
        self.objects.par_iter_mut().for_each(|(id, kept)| kept.bytes = kept.meta.bytes + notes(*id));
        for id in alone {
            if let Some(kept) = self.objects.get_mut(&id) {
                kept.bytes += kept.meta.shared.as_ref().map_or(0, |shared| shared.bytes);
            }
        }
        self.alias_bytes = self.aliases.par_iter().map(|(id, _)| notes(*id)).sum();
    }

    /// Who uses an object uses those below it.
    fn pass_on_use(&mut self) {
        let uses: Vec<(StageId, SystemTime)> =
            self.objects.values().flat_map(|kept| kept.meta.lowers.iter().map(|lower| (lower.id, kept.used))).collect();
        for (id, used) in uses {
            if let Some(below) = self.objects.get_mut(&id) {
                below.used = below.used.max(used);
            }
        }
    }
}

impl Store {
    /// Looks at everything that is there.
    ///
    /// # Errors
    /// A directory of the store cannot be read.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::default();
        inventory.renew(self)?;
        Ok(inventory)
    }

    /// The objects and items that running processes hold, as lines of their lists, and how many such processes there
    /// are.
    pub(crate) fn held(&self) -> Result<(HashSet<String>, usize), StoreError> {
        let mut held = HashSet::new();
        let mut leases = 0;
        for entry in entries(&self.layout().work())? {
            let path = entry.path();
            let dead = lock::own_existing(&path).map_err(StoreError::io("lock", &path))?;
            if dead.is_none() {
                leases += usize::from(path.is_dir());
                held.extend(listed(&path));
            }
        }
        Ok((held, leases))
    }

    /// How many processes use the store at the moment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn leases(&self) -> Result<usize, StoreError> {
        Ok(self.held()?.1)
    }
}

/// What [`Store::held`] says of an object.
pub(crate) fn holds_object(held: &HashSet<String>, id: StageId) -> bool {
    held.contains(object_line(id).trim_end())
}

/// What [`Store::held`] says of an item.
pub(crate) fn holds_item(held: &HashSet<String>, item: &Item) -> bool {
    held.contains(item_line(&item.key).trim_end())
}

fn look_at(store: &Store, entry: &DirEntry) -> Option<Kept> {
    let id = entry.file_name().to_str()?.parse().ok()?;
    let used = last_used::when_object(&entry.metadata().ok()?);
    Some(Kept { meta: Arc::new(store.reader().read_alone(id)?), used, bytes: 0 })
}

/// What an object's directory takes on disk besides its tree.
pub(crate) fn notes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let all = ["", META, DIGEST, STAMP, ALIAS].map(|name| directory.join(name));
    all.iter().filter_map(|path| path.symlink_metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// What a file, or a directory with all that is in it, takes on disk.
pub(crate) fn bytes_of(path: &Path, metadata: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    if !metadata.is_dir() {
        return metadata.blocks() * 512;
    }
    let total = AtomicU64::new(0);
    let walked = walk::entries(path, |entry| {
        total.fetch_add(entry.stat.st_blocks as u64 * 512, Ordering::Relaxed);
        Ok(())
    });
    // What cannot be read, or has just gone, does not count.
    drop(walked);
    total.into_inner()
}

/// What is in a directory; nothing where there is none.
pub(crate) fn entries(directory: &Path) -> Result<Vec<DirEntry>, StoreError> {
    match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => {
            let entries = other.map_err(StoreError::io("read", directory))?;
            entries.collect::<io::Result<_>>().map_err(StoreError::io("read", directory))
        }
    }
}
