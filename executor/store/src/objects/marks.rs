//! Trees that overlayfs would misread: those with devices or attributes of the kind that it marks its own layers with.
//!
//! A tree may hold a container's storage, or have been a layer itself. As a lower layer it would lose those entries, so
//! what continues it is a copy, and not a layer on it. Within a layer the kernel keeps such attributes under other names
//! (`trusted.overlay.overlay.…`), and refuses such devices: a stage that makes one runs again on a plain directory.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;

use crate::error::StoreError;
use crate::fs::copy::has_attribute;
use crate::fs::{overlay, walk};
use crate::objects::object::ObjectMeta;
use crate::transaction::Transaction;

/// Returns whether the whole tree at `root`, whose digest was not made, holds something that a layer cannot.
///
/// # Errors
/// An entry cannot be read.
pub(crate) fn are_below(root: &Path) -> io::Result<bool> {
    let found = AtomicBool::new(false);
    walk::entries(root, |entry| {
        let marked = overlay::is_whiteout(FileType::from_raw_mode(entry.stat.st_mode), &entry.stat)
            || has_attribute(entry.directory, entry.name, overlay::notes().as_bytes())?;
        found.fetch_or(marked, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(found.into_inner())
}

impl Transaction {
    /// Returns whether nothing can be laid on an object's tree; looks, where its commit did not.
    pub(crate) fn has_marks(&self, object: &ObjectMeta) -> Result<bool, StoreError> {
        match object.marks {
            Some(known) => Ok(known),
            None if object.lowers.is_empty() => {
                let tree = self.place(&object.reference());
                are_below(&tree).map_err(StoreError::io("read", tree))
            }
            None => Ok(false),
        }
    }
}
