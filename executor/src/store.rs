//! The store: fetched items, sealed results, and what is in progress. Knows files, locks and layers; no manifest, no
//! schedule, no sandbox.
//!
//! ```text
//! <store>/format                               the number of this layout; below it the ids of who made it, without root
//! <store>/CACHEDIR.TAG                         tells backups to leave it out
//! <store>/lock                                 between those who lease and those who evict
//! <store>/sources/<content type>/<checksum>    fetched items, in osbuild's layout (and place, if it is osbuild's store)
//! <store>/stamps/<content type>:<checksum>     the stamp of an item when it was found sound, and its last use ([`stamps`])
//! <store>/objects/<id>/meta.json               a sealed result: what it is, and what it lies on
//! <store>/objects/<id>/tree-<instance>/          its whole tree, or what it changes in the tree of those below it
//!                                                (overlayfs)
//! <store>/objects/<id>/durable                   all of it has reached the disk
//! <store>/objects/<id>/digest                    the digest of its tree, where that was needed
//! <store>/objects/<id>/stamp                     a stamp of its tree, newer than that in its description
//! <store>/objects/<id>/alias.json              no tree of its own: another object that it is equal to
//! <store>/work/<uuid>/                         one lease: its list of what it uses, and what it is making
//! <store>/downloads/<content type>:<checksum>/ the part of an item that was fetched so far
//! <store>/prepared/<id>-<runner>-<revision>     what a runner makes in a build tree (crate::prepared)
//! <store>/logs/<build>/                        a build's record (crate::record) and its stages' output
//! <store>/damaged/<name>.<uuid>                what was found damaged and set aside, until the next `osbc store gc`
//! <store>/usage                                how many bytes objects and items take
//! <store>/history.jsonl                        how long stages took
//! <store>/contents                             what results came of which content (early cutoff)
//! ```
//!
//! **Objects.** An object appears by one rename, complete, and never changes after it; there is no other way into
//! `objects/`. It can be trusted as long as the system runs that made it, since the kernel serves what was written
//! whether or not it has reached the disk. Once it has, the object gets its mark `durable`, and can be trusted for
//! good. So a process that dies loses no sealed result; a system that dies loses those of its last seconds, never more
//! than that, and never silently: without the mark and from another boot an object counts as absent. This keeps the
//! price of a seal at one rename; the disk is synced behind it, many results at a time, and a build waits for that, and
//! for the marks themselves, only at its end. A damaged object, a foreign directory, or one whose lower layers are
//! missing or not those that it was made on counts as absent too, and is set aside when its result is sealed again.
//! What an object holds has a digest in its description, which is checked when it is exported and by `verify`. Before
//! stages read it, only its stamp is ([`look`]).
//!
//! **Aliases.** A result that was not built because an earlier one is known to be equal is an object with nothing but
//! the name of that one ([`alias`]). Reading it gives the other; when that is gone or was built again, it is absent.
//!
//! **Locks.** All are `flock`s, gone with the process that holds them.
//! - Who uses a store holds a [`Lease`]: a directory below `work/`, locked for as long as it lives, with the list of
//!   the
//!   objects and items that nobody may take away. One lock, however many objects.
//! - Making that list is done under the shared side of `lock`, so that nothing disappears between the look and the
//!   list. Who evicts takes the exclusive side, reads the lists of all locked leases, and renames what is in none of
//!   them (nor below one that is) out of `objects/` before letting go.
//! - A new object is put on its maker's list before it appears, and both under the shared side of `lock`.
//! - Who fetches an item holds a lock on its directory in `downloads/`; whose lock is free is only a part, and may go.
//! - What lies in an unlocked directory of `work/` belongs to nobody and is swept when a store is opened.
//! - Two processes may make the same object: the second rename finds the place taken and drops its own.

mod alias;
mod census;
mod checkpoints;
mod clamp;
mod digests;
mod disk;
pub mod error;
mod evict;
mod items;
mod layout;
mod lease;
mod links;
mod look;
pub(crate) mod object;
pub mod osbuild;
mod prepared;
mod remove;
mod scatter;
mod seal;
mod stamps;
mod sweep;
mod sync;
mod usage;
mod used;
mod verify;
mod ways;
mod work;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use osbc_ir::{Graph, Have, NodeId, size};

pub use census::{Census, Item, Kept, Part};
pub use error::StoreError;
pub(crate) use error::{free_space, inodes_in_use};
pub use evict::Evicted;
pub use items::{Download, Slot};
pub use lease::Lease;
pub use object::{InCommon, Lower, ObjectMeta, StepRecord};
pub use seal::Sealing;
pub use verify::{CheckItem, Damage, Fate, Verified};
pub use ways::Way;
pub use work::Work;

use crate::history::History;
use crate::rootless::Ids;
use crate::{lock, regular};
use disk::{Disk, RealDisk};
use layout::Layout;

/// The format of the layout above.
const FORMAT: u32 = 1;

/// With less room than this, in bytes, a failed stage is taken to have failed for want of it.
const NEARLY_FULL: u64 = 1 << 20;

/// The text that marks a directory as a cache (bford.info/cachedir).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is the store of osbc.\n";

/// How a result is kept that goes on from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// In the best way that the file system can do: [`Way::Overlay`], else [`Way::Reflink`], else [`Way::Copy`].
    #[default]
    Auto,
    /// As a layer, or not at all.
    Overlay,
    /// As a whole tree that shares its bytes with the other, or not at all.
    Reflink,
    /// As a whole tree with bytes of its own.
    Copy,
    /// As layers, which list directories' files in another order than all others do, where there are layers.
    Scattered,
}

/// How much a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// A tenth of the file system.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// All that there is.
    Unlimited,
}

/// How a store is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreSettings {
    /// How results are kept.
    pub layers: Layers,
    /// How much it may take.
    pub limit: Limit,
}

impl From<Layers> for StoreSettings {
    fn from(layers: Layers) -> Self {
        Self { layers, ..Self::default() }
    }
}

/// A store on disk. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    settings: StoreSettings,
    disk: Arc<dyn Disk>,
    /// Whether results stay when the build that made them is over.
    keeps: bool,
    boot: Option<String>,
    /// What the file system can do; found out when it is first needed.
    abilities: OnceLock<ways::Abilities>,
    /// Below this many bytes no eviction is tried, since the last one could not do more.
    evict_above: AtomicU64,
}

impl Store {
    /// Opens the store at `path` for building, making it where there is none, and sweeps away what dead processes
    /// left there.
    ///
    /// # Errors
    /// The directory holds something else or a newer format, was made under other ids, or cannot be written to.
    pub fn open(path: &Path, settings: impl Into<StoreSettings>) -> Result<Self, StoreError> {
        Self::open_on(path, settings.into(), Arc::new(RealDisk))
    }

    /// The same with changes done by `disk`.
    fn open_on(path: &Path, settings: StoreSettings, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(StoreError::io("make the store", path))?;
        let path = path.canonicalize().map_err(StoreError::io("find the store", path))?;
        Self::open_layout(Layout::new(path), settings, disk, true)
    }

    /// Opens osbc's part of a store of osbuild's, making it where there is none. Of what is sealed there nothing stays
    /// when a build is over, unless `keeps` says so; what the next builds of both tools find are the checkpoints
    /// ([`Lease::use_checkpoints`]).
    ///
    /// # Errors
    /// The directory cannot be written to, or was made by a newer osbc.
    pub fn open_within(cache: &osbuild::Cache, keeps: bool) -> Result<Self, StoreError> {
        let layout = Layout::within_osbuilds(cache.path());
        std::fs::create_dir_all(&layout.root).map_err(StoreError::io("make", &layout.root))?;
        Self::open_layout(layout, StoreSettings::default(), Arc::new(RealDisk), keeps)
    }

    fn open_layout(
        layout: Layout,
        settings: StoreSettings,
        disk: Arc<dyn Disk>,
        keeps: bool,
    ) -> Result<Self, StoreError> {
        let store = Self::at(layout, settings, disk, keeps);
        let layout = &store.shared.layout;
        let format = layout.format();
        let is_new = !store.check_format()?;
        if is_new {
            // First of all: with it the directory is ours, and what a crash keeps from being made is made next time.
            store.change("write", &format, || regular::write(&format, format!("{FORMAT}\n{}", own_ids())))?;
        } else {
            store.check_ids()?;
        }
        let tag = layout.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            store.change("write", &tag, || regular::write(&tag, CACHEDIR_TAG))?;
        }
        for directory in [layout.objects(), layout.work(), layout.downloads(), layout.sources(), layout.logs()] {
            store.change("make", &directory, || match std::fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            })?;
        }
        let path = layout.usage();
        if is_new && usage::read(&path).is_none() {
            store.change("write", &path, || usage::set(&path, 0))?;
        }
        sweep::sweep(layout)?;
        Ok(store)
    }

    /// Opens the store at `path` to look at it, changing nothing; none if there is none yet.
    ///
    /// # Errors
    /// The directory holds something else or a newer format, or cannot be read.
    pub fn look(path: &Path) -> Result<Option<Self>, StoreError> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("find the store", path)(error)),
        };
        let store = Self::at(Layout::new(path), StoreSettings::default(), Arc::new(RealDisk), true);
        Ok(store.check_format()?.then_some(store))
    }

    /// The directory that it lies in.
    pub fn path(&self) -> &Path {
        &self.shared.layout.root
    }

    /// What is known of stages that ran with this store.
    ///
    /// # Errors
    /// The history is there and cannot be read.
    pub fn history(&self) -> Result<History, StoreError> {
        let path = self.layout().history();
        History::read(&path).map_err(StoreError::io("read", path))
    }

    /// Which of these nodes of a graph it has right now. Nothing keeps them there: who goes on to use them takes a
    /// [`Store::lease`].
    pub fn present(&self, graph: &Graph, ids: impl IntoIterator<Item = NodeId>) -> Have {
        self.present_asked(graph, |has| {
            for id in ids {
                has(id);
            }
        })
    }

    /// The same for all that `ask` asks for; it is told whether each is there, and may ask on accordingly.
    pub fn present_asked(&self, graph: &Graph, ask: impl FnOnce(&mut dyn FnMut(NodeId) -> bool)) -> Have {
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

    /// The same for all that `ask` asks for; it is told whether each is there, and may ask on accordingly.
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

    /// What to say behind the failure of a stage, which has written so many bytes, when the store's file system has
    /// nearly no room left; none while it has. `known` is what the stage's result took before.
    pub(crate) fn full(&self, written: impl FnOnce() -> u64, known: Option<u64>) -> Option<String> {
        let (free, store) = (free_space(self.path()), self.path().display());
        if let Some(total) = inodes_in_use(self.path()) {
            return Some(format!(
                "; no space left for more files in the store {store}: all {total} inodes of its file system are in use"
            ));
        }
        if free >= NEARLY_FULL {
            return None;
        }
        // What the stage has written goes when it has failed.
        let have = free + written();
        let needs = match known.filter(|need| *need > have) {
            Some(need) => format!("it needs about {}, as before, and has {}", size(need), size(have)),
            None => format!("it needs more than the {} that it has", size(have)),
        };
        Some(format!("; no space left for the stage in the store {store}: {needs}"))
    }

    fn at(layout: Layout, settings: StoreSettings, disk: Arc<dyn Disk>, keeps: bool) -> Self {
        let shared = Shared {
            layout,
            settings,
            disk,
            keeps,
            boot: object::boot(),
            abilities: OnceLock::new(),
            evict_above: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Whether results stay when the build that made them is over.
    pub fn keeps(&self) -> bool {
        self.shared.keeps
    }

    /// Keeps others from evicting.
    fn share(&self) -> Result<OwnedFd, StoreError> {
        let path = self.layout().lock();
        self.change("lock", &path, || lock::share(&path))
    }

    /// Waits until nobody leases, seals or evicts, and keeps others from it.
    fn alone(&self) -> Result<OwnedFd, StoreError> {
        let path = self.layout().lock();
        self.change("lock", &path, || lock::exclude(&path))
    }

    fn reader(&self) -> object::Reader<'_> {
        object::Reader::new(&self.shared.layout, self.shared.boot.as_deref())
    }

    /// Whether who made the store had the ids of this process: else what is one user's to them is another's to it. A
    /// store that has no trees takes those of whoever comes.
    fn check_ids(&self) -> Result<(), StoreError> {
        let format = self.layout().format();
        let text = regular::read_to_string(&format).map_err(StoreError::io("read", &format))?;
        let (found, own) = (text.lines().nth(1).unwrap_or_default(), own_ids());
        if found == own.trim_end() {
            return Ok(());
        }
        if std::fs::read_dir(self.layout().objects()).is_ok_and(|mut objects| objects.next().is_none()) {
            return self.change("write", &format, || regular::write(&format, format!("{FORMAT}\n{own}")));
        }
        let (path, found, own) = (self.path().to_owned(), found.to_owned(), own.trim_end().to_owned());
        Err(StoreError::OtherIds { path, found, own })
    }

    /// Whether the directory is a store of the known format; false if it is empty.
    fn check_format(&self) -> Result<bool, StoreError> {
        let (layout, path) = (self.layout(), self.path());
        let not_a_store = || StoreError::NotAStore { path: path.to_owned() };
        match regular::read_to_string(&layout.format()) {
            Ok(text) if text.is_empty() => return Ok(false),
            Ok(text) => {
                let first = text.lines().next().unwrap_or_default();
                let found: u32 = first.trim().parse().map_err(|_| not_a_store())?;
                if found > FORMAT {
                    return Err(StoreError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
                }
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(not_a_store()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("read", layout.format())(error));
            }
            Err(_) => {}
        }
        let entries = std::fs::read_dir(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => not_a_store(),
            _ => StoreError::io("read", path)(error),
        })?;
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read", path))?;
            // A file system of the store's own begins with that directory.
            if entry.file_name() != "lost+found" {
                // Whoever makes a store begins with that file, perhaps just now.
                return if layout.format().exists() { self.check_format() } else { Err(not_a_store()) };
            }
        }
        Ok(false)
    }
}

/// The line that says which ids trees are made under by this process; empty for the machine's own.
fn own_ids() -> String {
    let ids = Ids::current();
    if ids.are_the_machines() { String::new() } else { format!("{ids}\n") }
}

/// Whether somebody works in a directory of a store's `work/`.
pub fn is_owned(directory: &Path) -> bool {
    directory.exists() && crate::lock::own_existing(directory).is_ok_and(|free| free.is_none())
}

#[cfg(test)]
mod tests;
