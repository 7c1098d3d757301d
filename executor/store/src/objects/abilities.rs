//! What a store's file system can do, found out by trying.

use std::io;
use std::path::Path;

use crate::error::StoreError;
use crate::fs::overlay;
use crate::tree_stack::{TreeStack, Upper};
use crate::user_namespace;

/// How a tree is kept that goes on from another one. One from nothing is a plain directory in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a layer, which holds what differs.
    Overlay,
    /// As a whole tree, whose files share their bytes with those of the other one.
    Reflink,
    /// As a whole tree.
    Copy,
}

/// What a file system can do, found out by trying.
#[derive(Debug)]
pub(crate) struct Abilities {
    /// Why it has no layers, where it has none.
    pub(crate) overlay: Option<io::Error>,
    /// Why it has no reflinks, where it has none.
    pub(crate) reflink: Option<io::Error>,
}

impl Abilities {
    /// Tries, in `directory`.
    pub(crate) fn find_out(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self { overlay: try_overlay(directory)?, reflink: try_reflink(directory)? })
    }

    /// The best of what can be done.
    pub(crate) fn best(&self) -> Way {
        match (&self.overlay, &self.reflink) {
            (None, _) => Way::Overlay,
            (_, None) => Way::Reflink,
            _ => Way::Copy,
        }
    }

    pub(crate) fn why(&self) -> String {
        let cannot = |what: &str, error: &io::Error| format!("it cannot hold {what} ({error})");
        match (&self.overlay, &self.reflink) {
            (None, _) => "its file system can hold overlayfs layers".to_owned(),
            (Some(overlay), None) => format!("{}, but has reflinks", cannot("overlayfs layers", overlay)),
            (Some(overlay), Some(reflink)) => {
                format!("{}, nor has it reflinks ({reflink})", cannot("overlayfs layers", overlay))
            }
        }
    }
}

/// Tries what layers need: a mount on two lower ones, and the renaming of a directory out of them, which without root
/// is only refused in the way that tools know from other file systems.
///
/// Returns why it cannot be done.
fn try_overlay(directory: &Path) -> Result<Option<io::Error>, StoreError> {
    let act = "try layers in";
    let place =
        tempfile::Builder::new().prefix("probe-").tempdir_in(directory).map_err(StoreError::io(act, directory))?;
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "lower/directory", "middle", "upper", "work"] {
        std::fs::create_dir(path(name)).map_err(StoreError::io(act, path(name)))?;
    }
    let upper = Upper { dir: path("upper"), work: path("work"), metacopy: true };
    let stack = TreeStack { lower: vec![path("lower"), path("middle")], upper: Some(upper) };
    let renamed =
        overlay::open(&stack).and_then(|root| Ok(rustix::fs::renameat(&root, "directory", &root, "renamed")?));
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(StoreError::io(act, directory)(error)),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices && user_namespace::in_namespace() => Ok(None),
        other => Ok(other.err()),
    }
}

/// Tries to have one file share the bytes of another. Returns why it cannot be done.
fn try_reflink(directory: &Path) -> Result<Option<io::Error>, StoreError> {
    use std::io::Write as _;
    let failed = |error: io::Error| StoreError::io("try reflinks in", directory)(error);
    let mut one = tempfile::tempfile_in(directory).map_err(failed)?;
    let other = tempfile::tempfile_in(directory).map_err(failed)?;
    one.write_all(&[1; 4096]).map_err(failed)?;
    match rustix::fs::ioctl_ficlone(&other, &one) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::NOSPC) => Err(failed(io::ErrorKind::StorageFull.into())),
        Err(error) => Ok(Some(error.into())),
    }
}
