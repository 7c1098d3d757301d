//! The one way by which the store changes what is on its disk.
//!
//! It is chosen when a store is opened, so that a test can have any single change fail as a disk would.

use std::fmt;
use std::io;
use std::path::Path;

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
