//! Opens stores: makes what is missing, and refuses what is no store, or one of other ids or a newer format.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::error::StoreError;
use crate::fs::regular;
use crate::objects::layout::Layout;
use crate::osbuild;
use crate::reclaim::{size, sweep};
use crate::store::{Store, StoreSettings};
use crate::user_namespace::Ids;

/// The format of a store's layout, which [`crate`] describes.
const FORMAT: u32 = 1;

/// The text that marks a directory as a cache (bford.info/cachedir).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is the store of osbc.\n";

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
    pub(crate) fn open_on(path: &Path, settings: StoreSettings, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(StoreError::io("make the store", path))?;
        let path = path.canonicalize().map_err(StoreError::io("find the store", path))?;
        Self::open_layout(Layout::new(path), settings, disk, true)
    }

    /// Opens osbc's part of a store of osbuild's, and makes it if there is none.
    ///
    /// What is committed there ends with the build, unless `keeps`. The next builds of both tools find the checkpoints
    /// ([`Transaction::with_checkpoints`](crate::Transaction::with_checkpoints)).
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
        if is_new && size::read(&path).is_none() {
            store.change("write", &path, || size::set(&path, 0))?;
        }
        sweep::sweep(layout)?;
        Ok(store)
    }

    /// Opens the store at `path` to look at it, changing nothing; `None` if there is none yet.
    ///
    /// # Errors
    /// The directory holds something else or a newer format, or cannot be read.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("find the store", path)(error)),
        };
        let store = Self::at(Layout::new(path), StoreSettings::default(), Arc::new(RealDisk), true);
        Ok(store.check_format()?.then_some(store))
    }

    /// Whether who made the store had the ids of this process: else what is one user's to them is another's to it.
    ///
    /// A store that has no trees takes those of whoever comes.
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
