//! Temporary directories that are owned: removed when their owner is done or, if it was killed, by the next one that
//! makes such a directory at the same place.
//!
//! A lock, which the kernel releases with its holder, says who is alive.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::fs::delete::remove_tree;
use crate::fs::lock;

/// The directories of `osbc build --check`, beside the store.
pub const CHECK: &str = ".osbc-check-";
/// Those of other commands, in the directory for temporary files.
pub const COMMAND: &str = ".osbc-command-";

/// How many random characters follow the prefix.
const RANDOM: usize = 6;
/// How often a new directory may be mistaken for an abandoned one before it is locked.
const ATTEMPTS: u32 = 8;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct OwnedDirectory {
    path: PathBuf,
    _lock: OwnedFd,
}

impl OwnedDirectory {
    /// Makes a directory in `parent`, its name `prefix` and random characters, after it has removed abandoned ones.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        sweep(parent, prefix);
        for _ in 0..ATTEMPTS {
            let path = tempfile::Builder::new().prefix(prefix).rand_bytes(RANDOM).tempdir_in(parent)?.keep();
            if let Some(lock) = lock::own_existing(&path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "others remove it as soon as it is made"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnedDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is abandoned.
        remove_tree(&self.path).ok();
    }
}

/// Returns this user's directories in `parent` whose owner is dead.
pub fn abandoned(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    owned_by_nobody(parent, prefix).map(|(path, _)| path).collect()
}

/// Removes a directory, unless it has an owner by now.
///
/// # Errors
/// It cannot be removed.
pub fn remove_abandoned(path: &Path) -> io::Result<()> {
    match lock::own_existing(path)? {
        Some(_lock) => remove_tree(path),
        None => Ok(()),
    }
}

/// Removes this user's directories in `parent` whose owner is dead; those that cannot be removed are in nobody's way.
pub(crate) fn sweep(parent: &Path, prefix: &str) {
    for (path, _lock) in owned_by_nobody(parent, prefix) {
        remove_tree(&path).ok();
    }
}

fn owned_by_nobody(parent: &Path, prefix: &str) -> impl Iterator<Item = (PathBuf, OwnedFd)> {
    let user = rustix::process::geteuid().as_raw();
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name();
        let is_ours = name.to_str()?.strip_prefix(prefix)?.len() == RANDOM && entry.metadata().ok()?.uid() == user;
        let lock = is_ours.then(|| lock::own_existing(&entry.path()).ok()).flatten().flatten()?;
        Some((entry.path(), lock))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner_or_with_the_next_one() {
        let place = tempfile::tempdir().expect("a directory");
        let make = || OwnedDirectory::new(place.path(), COMMAND).expect("makes it");
        let names = || std::fs::read_dir(place.path()).expect("is there").count();
        let (alive, done) = (make(), make());
        assert_ne!(alive.path(), done.path());
        drop(done);
        assert_eq!(names(), 1);

        // As one that was killed leaves it, and what only looks like one.
        let dead = place.path().join(format!("{COMMAND}abc123"));
        std::fs::create_dir_all(dead.join("a/b")).expect("makes");
        std::fs::create_dir(place.path().join(format!("{COMMAND}of-somebody-else"))).expect("makes");
        assert_eq!(abandoned(place.path(), COMMAND), [dead.as_path()]);
        let next = make();
        assert!(!dead.exists() && alive.path().exists() && next.path().exists());
        assert_eq!(names(), 3);
    }
}
