//! A store as one thing: where it lies, how it is used, and the locks between those who lease and those who evict.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use osbc_ir::size;

use crate::disk::Disk;
use crate::error::{NEARLY_FULL, PERHAPS_FULL, StoreError, free_space, inodes_in_use};
use crate::fs::lock;
use crate::history::{self, History, HistoryLine};
use crate::objects::abilities::Abilities;
use crate::objects::layout::Layout;
use crate::objects::object;

/// How a result is kept that goes on from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// In the best way that the file system can do: [`Overlay`](crate::Way::Overlay), else
    /// [`Reflink`](crate::Way::Reflink), else [`Copy`](crate::Way::Copy).
    #[default]
    Auto,
    /// As a layer, or not at all.
    Overlay,
    /// As a whole tree that shares its bytes with the other, or not at all.
    Reflink,
    /// As a whole tree with bytes of its own.
    Copy,
    /// As layers, which list directories' files in another order than all others do, where there are layers.
    Shuffled,
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
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) settings: StoreSettings,
    pub(crate) disk: Arc<dyn Disk>,
    /// Whether results stay when the build that made them is over.
    pub(crate) keeps: bool,
    pub(crate) boot: Option<String>,
    /// What the file system can do; found out when it is first needed.
    pub(crate) abilities: OnceLock<Abilities>,
    /// Below this many bytes no eviction is tried, since the last one could not do more.
    pub(crate) evict_above: AtomicU64,
}

impl Store {
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

    /// Notes how long stages took, and what they took.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn add_to_history(&self, lines: &[HistoryLine]) -> io::Result<()> {
        history::append(&self.layout().history(), lines)
    }

    /// The directory with the records of builds, each in a directory of its own.
    pub fn logs(&self) -> PathBuf {
        self.layout().logs()
    }

    /// The file that says which results came of which content.
    pub fn contents(&self) -> PathBuf {
        self.layout().contents()
    }

    /// What to say behind the failure of a stage, which has written so many bytes, when the store's file system has
    /// nearly no room left; none while it has.
    ///
    /// `known` is what the stage's result took before.
    pub fn full(&self, written: impl FnOnce() -> u64, known: Option<u64>) -> Option<String> {
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

    /// What to say behind the failure of a stage that says itself that there was no space, when the store's file system
    /// may be what it meant: a copy that found no room is gone by then. None while there is plenty.
    pub fn perhaps_full(&self) -> Option<String> {
        let (total, free) = self.file_system();
        if free >= PERHAPS_FULL {
            return None;
        }
        let limit = self.limit().map(|limit| format!(", and the store's limit is {}", size(limit))).unwrap_or_default();
        Some(format!(
            "; perhaps there was no space left in the store {}: {} of {} are free{limit}; a file that a stage changes is \
             copied before, whatever its size",
            self.path().display(),
            size(free),
            size(total)
        ))
    }

    pub(crate) fn at(layout: Layout, settings: StoreSettings, disk: Arc<dyn Disk>, keeps: bool) -> Self {
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
    pub(crate) fn share(&self) -> Result<OwnedFd, StoreError> {
        let path = self.layout().lock();
        self.change("lock", &path, || lock::share(&path))
    }

    /// Waits until nobody leases, commits or evicts, and keeps others from it.
    pub(crate) fn alone(&self) -> Result<OwnedFd, StoreError> {
        let path = self.layout().lock();
        self.change("lock", &path, || lock::exclude(&path))
    }

    pub(crate) fn reader(&self) -> object::Reader<'_> {
        object::Reader::new(&self.shared.layout, self.shared.boot.as_deref())
    }
}

impl Store {
    /// Does one change at `path`.
    pub(crate) fn change<T>(
        &self,
        act: &'static str,
        path: impl AsRef<Path>,
        mut change: impl FnMut() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let mut done = None;
        let path = path.as_ref();
        let changed = self.shared.disk.change(act, path, &mut || {
            done = Some(change()?);
            Ok(())
        });
        changed.map_err(StoreError::io(act, path))?;
        Ok(done.expect("a disk that succeeds has made the change"))
    }

    pub(crate) fn make_directory(&self, path: &Path) -> Result<(), StoreError> {
        self.change("make", path, || std::fs::create_dir(path))
    }
}
