//! How much the objects of osbuild's store take: the sum in `cache.size`, and the removal of those that were used
//! longest ago when a new one would exceed the limit.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::file::{self, Held, Lock, Wait};
use super::{CACHE_SIZE, Cache, OBJECT_INFO, OBJECT_LOCK, is_absent};
use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::fs::regular;

impl Cache {
    /// Adds `size` bytes to the sum if the limit allows it; where it does not, older objects are removed first. Says
    /// whether they were added.
    pub(crate) fn claim(&self, size: u64) -> Result<bool, StoreError> {
        if self.info.most().is_some_and(|most| size > most) {
            return Ok(false);
        }
        if self.add(size)? {
            return Ok(true);
        }
        self.make_room(size)?;
        self.add(size)
    }

    /// Takes `size` bytes from the sum.
    pub(crate) fn give_back(&self, size: u64) -> Result<(), StoreError> {
        self.change(|sum| Some(sum.saturating_sub(size))).map(drop)
    }

    fn add(&self, size: u64) -> Result<bool, StoreError> {
        let most = self.info.most().unwrap_or(u64::MAX);
        self.change(|sum| sum.checked_add(size).filter(|sum| *sum <= most))
    }

    /// Changes the sum, unless there is no new one; says whether there was.
    fn change(&self, next: impl FnOnce(u64) -> Option<u64>) -> Result<bool, StoreError> {
        let path = self.root.join(CACHE_SIZE);
        let held = file::open(&path, Lock::Exclusive, Wait::Yes, OFlags::empty());
        let held = held.map_err(StoreError::io("lock", &path))?;
        let text = regular::read_to_string(&path).map_err(StoreError::io("read", &path))?;
        let Ok(sum) = text.trim().parse::<u64>() else { return Err(StoreError::NotOsbuilds { path }) };
        let next = next(sum);
        if let Some(next) = next {
            file::replace(&self.root, &path, next.to_string().as_bytes()).map_err(StoreError::io("write", &path))?;
        }
        drop(held);
        Ok(next.is_some())
    }

    /// Removes objects, the one that was used longest ago first, until twice as much has become free as is needed, so
    /// that it need not be done again soon.
    ///
    /// Leaves alone what is in use.
    fn make_room(&self, needed: u64) -> Result<(), StoreError> {
        let directory = self.root.join("objects");
        let mut objects = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(StoreError::io("read", &directory))? {
            let object = entry.map_err(StoreError::io("read", &directory))?.path();
            // Without a lock it is no object, or none any more.
            if let Ok(used) = last_use(&object) {
                objects.push((used, object));
            }
        }
        objects.sort();
        let mut freed = 0;
        for (used, object) in objects {
            if freed >= needed.saturating_mul(2) {
                break;
            }
            let lock = object.join(OBJECT_LOCK);
            // As the time of its last use counts, opening it must not change that.
            let held = match file::open(&lock, Lock::Exclusive, Wait::No, OFlags::NOATIME) {
                Ok(Held::Yes(held)) => held,
                Ok(Held::ByOthers) => continue,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(StoreError::io("lock", &lock)(error)),
            };
            if last_use(&object).is_ok_and(|now| now == used) {
                let size = space(&object).map_err(StoreError::io("read", &object))?;
                remove(&object).map_err(StoreError::io("remove", &object))?;
                self.give_back(size)?;
                freed += size;
            }
            drop(held);
        }
        Ok(())
    }
}

/// When an object was used last.
fn last_use(object: &Path) -> io::Result<(i64, i64)> {
    let lock = object.join(OBJECT_LOCK).symlink_metadata()?;
    Ok((lock.atime(), lock.atime_nsec()))
}

/// Removes an object whose lock is held. First what makes it complete, last its lock, so that it is never taken for a
/// whole one.
pub(crate) fn remove(object: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    };
    gone(std::fs::remove_file(object.join(OBJECT_INFO)))?;
    let entries = match std::fs::read_dir(object) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != OBJECT_LOCK {
            remove_tree(&entry.path())?;
        }
    }
    gone(std::fs::remove_file(object.join(OBJECT_LOCK)))?;
    gone(std::fs::remove_dir(object))
}

/// What a directory and all that is in it take on the disk, as osbuild counts it: every name by itself.
pub(crate) fn space(path: &Path) -> io::Result<u64> {
    let metadata = path.symlink_metadata()?;
    let mut sum = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            sum += space(&entry?.path())?;
        }
    }
    Ok(sum)
}
