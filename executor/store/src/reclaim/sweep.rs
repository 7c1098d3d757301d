//! Clears away what dead processes left behind.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::fs::{lock, temporary};
use crate::objects::layout::Layout;

/// For how long the part of an item that was fetched is kept for a next try.
const KEEP_DOWNLOADS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes every directory of `work/` that nobody owns any more, the parts of items that nobody has fetched on with for
/// a week, and what checks left beside the store.
pub(crate) fn sweep(layout: &Layout) -> Result<(), StoreError> {
    if let Some(parent) = layout.root.parent() {
        temporary::sweep(parent, temporary::CHECK);
    }
    each_unowned(&layout.work(), |_| true)?;
    each_unowned(&layout.downloads(), |directory| {
        let changed = directory.symlink_metadata().and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > KEEP_DOWNLOADS))
    })
}

fn each_unowned(directory: &Path, is_old: impl Fn(&Path) -> bool) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        let path = entry.map_err(StoreError::io("read", directory))?.path();
        if !is_old(&path) {
            continue;
        }
        let owned = match lock::own_existing(&path) {
            Ok(Some(owned)) => owned,
            Ok(None) => continue,
            Err(error) => return Err(StoreError::io("lock", &path)(error)),
        };
        match remove_tree(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path)(error));
            }
            _ => drop(owned),
        }
    }
    Ok(())
}
