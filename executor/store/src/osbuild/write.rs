//! A new object in osbuild's store: made under a name of its own, counted, and put in place by one rename.

use std::path::Path;

use osbc_ir::CompatId;
use rustix::io::Errno;
use serde_json::json;

use super::{Cache, DATA, OBJECT_INFO, OBJECT_LOCK, file, info, room};
use crate::error::StoreError;

impl Cache {
    /// Makes an object whose data directory is filled by `fill`.
    ///
    /// As osbuild has it, nobody can rely on it being there afterwards: it is dropped where it exceeds the store's
    /// limit, and where there is one of that id already.
    ///
    /// # Errors
    /// The store cannot be written to, or `fill` fails; nothing of it remains.
    pub(crate) fn store(
        &self,
        id: CompatId,
        fill: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let place = self.object(&id.to_string());
        if !self.info.is_known() || place.join(OBJECT_INFO).is_file() {
            return Ok(());
        }
        let unfinished = self.object(&format!("uuid-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&unfinished).map_err(StoreError::io("make", &unfinished))?;
        let lock = unfinished.join(OBJECT_LOCK);
        let held = file::create_locked(&self.root, &lock).map_err(StoreError::io("make", &lock));
        let stored = held.and_then(|held| {
            let stored = self.fill_and_place(&unfinished, &place, fill);
            Ok((stored?, held))
        });
        let removed = match &stored {
            Ok((true, _)) => Ok(()),
            _ => room::remove(&unfinished).map_err(StoreError::io("remove", &unfinished)),
        };
        stored.and(removed)
    }

    /// Says whether the object is in its place.
    fn fill_and_place(
        &self,
        unfinished: &Path,
        place: &Path,
        fill: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let data = unfinished.join(DATA);
        std::fs::create_dir(&data).map_err(StoreError::io("make", &data))?;
        fill(&data)?;
        let size = room::space(&data).map_err(StoreError::io("read", &data))?;
        if !self.claim(size)? {
            return Ok(false);
        }
        let placed = complete(unfinished, place, size);
        let given_back = if matches!(placed, Ok(true)) { Ok(()) } else { self.give_back(size) };
        placed.and_then(|placed| given_back.map(|()| placed))
    }
}

/// Marks an object as complete and moves it to its place; false if that is taken.
fn complete(unfinished: &Path, place: &Path, size: u64) -> Result<bool, StoreError> {
    let path = unfinished.join(OBJECT_INFO);
    let mut text = json!({"size": size});
    if let Some(boot) = info::boot() {
        text["creation-boot-id"] = json!(boot);
    }
    std::fs::write(&path, text.to_string()).map_err(StoreError::io("write", &path))?;
    match rustix::fs::rename(unfinished, place) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(StoreError::io("put in place", place)(error)),
    }
}
