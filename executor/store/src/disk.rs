//! The one way by which the store changes what is on its disk. It is chosen when a store is opened, so that a test can
//! have any single change fail as a disk would.

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::StoreError;
use crate::store::Store;

/// Does changes.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Does one change at `path`, which `act` names for people.
    fn change(&self, act: &'static str, path: &Path, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

/// Does them.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn change(&self, _act: &'static str, _path: &Path, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        change()
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
