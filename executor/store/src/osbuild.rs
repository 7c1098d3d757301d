//! A store of osbuild's, as osbuild lays it out and locks it, so that both can use one store, also at the same time.
//!
//! Knows its files; what a checkpoint means for a build is in [`crate::osbuild::checkpoints`].
//!
//! ```text
//! <store>/cache.info                          {version: 1, maximum-size?}
//! <store>/cache.lock                          held shared by everybody who uses the store
//! <store>/cache.size                          the sum of the sizes of all objects, in bytes
//! <store>/objects/<id>/object.lock            readers hold it shared, who removes the object exclusively
//! <store>/objects/<id>/object.info            {creation-boot-id, size}; there when the object is complete
//! <store>/objects/<id>/data/tree/             the tree after the stage of that id
//! <store>/objects/<id>/data/meta/<id>.json    what its stages said about it; `info.json`: when it was begun
//! <store>/objects/uuid-<…>/                   an object in the making, locked exclusively
//! <store>/stage/ tmp/                         where osbuild builds
//! <store>/sources/                            fetched items
//! <store>/osbc/                               what osbc adds ([`crate::objects::layout`])
//! ```
//!
//! All locks are of the open file description (`F_OFD_SETLK`). Nobody waits for the lock of an object: a reader that
//! does not get it takes the object for absent, and eviction leaves the object alone. The time of an object's last use
//! is the access time of its lock.

pub(crate) mod checkpoints;
mod file;
pub(crate) mod info;
mod room;
mod write;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use osbc_ir::{CompatId, Value};
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

pub use info::Limit;

pub use checkpoints::Checkpoints;

use crate::error::StoreError;
use crate::fs::regular;
use file::{Held, Lock};
use info::Info;

const CACHE_INFO: &str = "cache.info";
const CACHE_LOCK: &str = "cache.lock";
const CACHE_SIZE: &str = "cache.size";
const OBJECT_INFO: &str = "object.info";
const OBJECT_LOCK: &str = "object.lock";
const DATA: &str = "data";

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This directory is a store of osbuild's.\n";

/// A store of osbuild's, in use.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    info: Info,
    /// Holds `cache.lock`.
    _lock: OwnedFd,
}

/// A complete object, which nobody removes as long as this lives.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    data: PathBuf,
    /// Holds the lock of the object.
    _lock: OwnedFd,
}

impl Cache {
    /// Opens the store at `path`, making what is missing of it. A `limit` on what all objects may take together is
    /// noted in the store.
    ///
    /// # Errors
    /// The store cannot be read or written, or one of its files says nothing that osbuild could have written.
    pub fn open(path: &Path, limit: Option<Limit>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(StoreError::io("make the store", path))?;
        let root = path.canonicalize().map_err(StoreError::io("find the store", path))?;
        for name in ["objects", "stage", "tmp"] {
            let directory = root.join(name);
            std::fs::create_dir_all(&directory).map_err(StoreError::io("make", &directory))?;
        }
        let parts = [("CACHEDIR.TAG", TAG), (CACHE_INFO, info::NEW), (CACHE_LOCK, ""), (CACHE_SIZE, "0")];
        for (name, content) in parts {
            let path = root.join(name);
            if !path.exists() {
                file::create(&root, &path, content.as_bytes()).map_err(StoreError::io("make", &path))?;
            }
        }
        let lock = root.join(CACHE_LOCK);
        let held = file::open(&lock, Lock::Shared, file::Wait::Yes, OFlags::empty())
            .and_then(|held| held.taken())
            .map_err(StoreError::io("lock", &lock))?;
        let info = Info::read(&root)?;
        let info = match limit {
            Some(limit) => info.set_limit(&root, limit)?,
            None => info,
        };
        Ok(Self { root, info, _lock: held })
    }

    /// The directory that it lies in.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether there is an object of that id that can be read.
    pub fn has(&self, id: CompatId) -> bool {
        self.load(id).is_ok_and(|found| found.is_some())
    }

    /// An object, locked against removal; `None` if it is absent, incomplete or about to be removed. Counts as a use of
    /// it.
    pub(crate) fn load(&self, id: CompatId) -> Result<Option<Checkpoint>, StoreError> {
        let object = self.object(&id.to_string());
        if !self.info.is_known() {
            return Ok(None);
        }
        let lock = object.join(OBJECT_LOCK);
        let held = match file::open(&lock, Lock::Shared, file::Wait::No, OFlags::empty()) {
            Ok(Held::Yes(held)) => held,
            Ok(Held::ByOthers) => return Ok(None),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(StoreError::io("lock", lock)(error)),
        };
        let data = object.join(DATA);
        if !object.join(OBJECT_INFO).is_file() || !data.join("tree").is_dir() {
            return Ok(None);
        }
        let now = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        // Of another user's object it cannot be noted.
        rustix::fs::futimens(&held, &now).ok();
        Ok(Some(Checkpoint { data, _lock: held }))
    }

    fn object(&self, name: &str) -> PathBuf {
        self.root.join("objects").join(name)
    }
}

impl Checkpoint {
    /// The directory with `tree` and `meta`.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What a stage said about the tree; `null` if nothing.
    pub(crate) fn metadata(&self, id: CompatId) -> Value {
        let text = regular::read(&self.data.join("meta").join(format!("{id}.json")));
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// Whether a file is not there, or not any more.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
