//! The ways of keeping a tree that goes on from another one, and which of them a file system can do.

use std::io;
use std::path::Path;

use super::error::StoreError;
use super::lease::Lease;
use super::{Layers, Store};
use crate::request::{TreeStack, Upper};
use crate::{overlay, rootless};

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
pub(super) struct Abilities {
    /// Why it has no layers, where it has none.
    overlay: Option<io::Error>,
    /// Why it has no reflinks, where it has none.
    reflink: Option<io::Error>,
}

impl Abilities {
    /// Tries, in `directory`.
    fn find_out(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self { overlay: try_overlay(directory)?, reflink: try_reflink(directory)? })
    }

    /// The best of what can be done.
    fn best(&self) -> Way {
        match (&self.overlay, &self.reflink) {
            (None, _) => Way::Overlay,
            (_, None) => Way::Reflink,
            _ => Way::Copy,
        }
    }

    fn why(&self) -> String {
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

impl Store {
    /// How trees are kept here that go on from others; found out in `directory`, once.
    pub(super) fn way(&self, directory: &Path) -> Result<Way, StoreError> {
        let path = || self.path().to_owned();
        let of = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let abilities = || self.abilities(directory);
        match self.shared.settings.layers {
            Layers::Auto => Ok(abilities()?.best()),
            Layers::Overlay => match &abilities()?.overlay {
                None => Ok(Way::Overlay),
                Some(error) => Err(StoreError::NoLayers { path: path(), source: of(error) }),
            },
            Layers::Reflink => match &abilities()?.reflink {
                None => Ok(Way::Reflink),
                Some(error) => Err(StoreError::NoReflinks { path: path(), source: of(error) }),
            },
            Layers::Copy => Ok(Way::Copy),
            Layers::Scattered if abilities()?.overlay.is_none() => Ok(Way::Overlay),
            Layers::Scattered => Ok(Way::Copy),
        }
    }

    /// Whether files were found to share bytes here; not, as long as nobody had to know.
    pub(super) fn has_reflinks(&self) -> bool {
        self.shared.abilities.get().is_some_and(|abilities| abilities.reflink.is_none())
    }

    fn abilities(&self, directory: &Path) -> Result<&Abilities, StoreError> {
        if let Some(known) = self.shared.abilities.get() {
            return Ok(known);
        }
        let found = Abilities::find_out(directory)?;
        Ok(self.shared.abilities.get_or_init(|| found))
    }

    /// How trees are kept here that go on from others, and why in that way.
    ///
    /// # Errors
    /// The store cannot be written to, or cannot do what it is set to.
    pub fn keeping(&self) -> Result<(Way, String), StoreError> {
        let lease = Lease::new(self.clone())?;
        let way = self.way(lease.directory())?;
        let why = match self.shared.settings.layers {
            Layers::Auto => self.abilities(lease.directory())?.why(),
            _ => "it was asked for".to_owned(),
        };
        Ok((way, why))
    }
}

/// Tries what layers need: a mount on two lower ones, and the renaming of a directory out of them, which without root
/// is only refused in the way that tools know from other file systems. Gives why it cannot be done.
fn try_overlay(directory: &Path) -> Result<Option<io::Error>, StoreError> {
    let act = "try layers in";
    let place =
        tempfile::Builder::new().prefix("probe-").tempdir_in(directory).map_err(StoreError::io(act, directory))?;
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "lower/directory", "middle", "upper", "work"] {
        std::fs::create_dir(path(name)).map_err(StoreError::io(act, path(name)))?;
    }
    let upper = Upper { dir: path("upper"), work: path("work") };
    let stack = TreeStack { lower: vec![path("lower"), path("middle")], upper: Some(upper) };
    let renamed =
        overlay::open(&stack).and_then(|root| Ok(rustix::fs::renameat(&root, "directory", &root, "renamed")?));
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(StoreError::io(act, directory)(error)),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices && rootless::in_namespace() => Ok(None),
        other => Ok(other.err()),
    }
}

/// Tries to have one file share the bytes of another. Gives why it cannot be done.
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
