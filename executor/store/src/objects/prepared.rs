//! Keeps what runners made in build roots, in one file for each build tree and runner.
//!
//! The number of files is limited. That of the host's tree, which may change, ends with the lease.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::StoreError;
use crate::transaction::Transaction;

/// How many are kept, a tenth of a megabyte each.
const KEPT: usize = 100;

impl Transaction {
    /// The file that was kept under this name, for as long as the lease lives; `None` if there is none.
    pub fn prepared(&self, name: &str) -> Option<PathBuf> {
        let link = self.new_path();
        // Whoever forgets it leaves the link.
        fs::hard_link(self.store().layout().prepared().join(name), &link).ok()?;
        // Nobody is to wait for what is no file.
        link.symlink_metadata().is_ok_and(|metadata| metadata.is_file()).then_some(link)
    }

    /// Keeps a text for as long as the lease lives, and where it has a name, for later leases; returns its file.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn keep_prepared(&self, name: Option<&str>, text: &str) -> Result<PathBuf, StoreError> {
        let (store, made) = (self.store(), self.new_path());
        store.change("write", &made, || fs::write(&made, text))?;
        let Some(name) = name else { return Ok(made) };
        let (directory, link) = (store.layout().prepared(), self.new_path());
        store.change("make", &directory, || fs::create_dir_all(&directory))?;
        store.change("link", &link, || fs::hard_link(&made, &link))?;
        let kept = directory.join(name);
        store.change("rename to", &kept, || fs::rename(&link, &kept))?;
        store.change("clear", &directory, || {
            let mut all = Vec::new();
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                all.push((entry.metadata()?.modified()?, entry.path()));
            }
            all.sort();
            let excess = all.len().saturating_sub(KEPT);
            all.into_iter().take(excess).try_for_each(|(_, old)| fs::remove_file(old).or_else(gone))
        })?;
        Ok(made)
    }
}

/// Another process may have been faster.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
