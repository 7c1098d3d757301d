//! A tree in the making: what a segment's stages change, on top of a sealed base.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use osbc_ir::StageId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec};

use super::error::StoreError;
use super::layout::{LAYER, TREE};
use super::lease::Lease;
use super::object::Lower;
use super::{Layers, Store};
use crate::copy::{Ownership, copy_attributes, copy_tree};
use crate::delete::remove_tree;
use crate::overlay;
use crate::request::{TreeStack, Upper};

/// How many layers a tree may have: look-ups through a hundred cost seventeen times those through one.
pub(super) const MAX_LAYERS: usize = 32;

/// The future object in the folder of a work.
const OBJECT: &str = "object";
/// The folder for overlayfs's own use.
const OVERLAY: &str = "overlay";
/// The folder for a stage's scratch files.
const SCRATCH: &str = "scratch";

/// A tree in the making. Dropped without being sealed, nothing of it remains.
#[derive(Debug)]
pub struct Work<'a> {
    pub(super) lease: &'a Lease,
    pub(super) folder: PathBuf,
    pub(super) base: Option<StageId>,
    /// The objects whose layers lie below, lowest first.
    pub(super) lowers: Vec<Lower>,
    pub(super) stack: TreeStack,
    /// When the tree was created, by the clock that stamps its files.
    pub(super) created: Timespec,
}

impl Lease {
    /// Begins a tree that continues a leased or just sealed result, or an empty one.
    ///
    /// # Errors
    /// The store cannot be written to or has no room.
    ///
    /// # Panics
    /// The base is not under this lease.
    pub fn work(&self, base: Option<StageId>) -> Result<Work<'_>, StoreError> {
        let folder = self.new_path();
        make_folder(&folder)?;
        // Not the clock of the process, which is a little ahead of the one that stamps files.
        let stat = rustix::fs::stat(&folder).map_err(StoreError::io("read", &folder))?;
        let created = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        let upper = Upper { dir: folder.join(OBJECT).join(TREE), work: folder.join(OVERLAY) };
        let mut work = Work {
            lease: self,
            base,
            lowers: Vec::new(),
            stack: TreeStack { lower: Vec::new(), upper: Some(upper) },
            created,
            folder,
        };
        make_folder(&work.folder.join(OBJECT))?;
        let Some(id) = base else {
            make_folder(&work.upper().dir)?;
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::chmodat(CWD, &work.upper().dir, mode, AtFlags::empty())
                .map_err(StoreError::io("make", &work.upper().dir))?;
            return Ok(work);
        };
        let below = self.object(id).expect("a base is leased or was sealed under the lease");
        let stack = self.stack(&below);
        // What is kept must not lie on what is not.
        let ends_sooner = self.store().keeps() && self.is_elsewhere(id);
        if !ends_sooner && below.lowers.len() + 2 <= MAX_LAYERS && self.store().has_layers(self.folder())? {
            work.lowers = below.lowers.iter().cloned().chain([below.as_lower()]).collect();
            work.put_on(stack)?;
        } else {
            work.copy_from(&stack)?;
        }
        Ok(work)
    }
}

impl Work<'_> {
    /// The tree, ready for the next stage to mount and change.
    ///
    /// # Errors
    /// What the mount of the last stage left cannot be removed.
    pub fn stack(&self) -> Result<TreeStack, StoreError> {
        let overlay = &self.upper().work;
        overlay::settle(overlay).map_err(StoreError::io("clean", overlay))?;
        Ok(self.stack.clone())
    }

    /// An empty folder for one stage; what the one before had is removed.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(SCRATCH);
        remove_tree(&path).map_err(StoreError::io("remove", &path))?;
        make_folder(&path)?;
        Ok(path)
    }

    pub(super) fn upper(&self) -> &Upper {
        self.stack.upper.as_ref().expect("a work has an upper folder from the start")
    }

    pub(super) fn object(&self) -> PathBuf {
        self.folder.join(OBJECT)
    }

    /// Makes an empty layer on `stack`, its root with the attributes of the root below.
    fn put_on(&mut self, stack: TreeStack) -> Result<(), StoreError> {
        let layer = self.object().join(LAYER);
        make_folder(&layer)?;
        let overlay = self.upper().work.clone();
        make_folder(&overlay)?;
        let top = stack.lower.last().expect("an object has a folder of its own");
        let copied = open_folder(top).and_then(|top| {
            let stat = rustix::fs::fstat(&top)?;
            copy_attributes(top.as_fd(), open_folder(&layer)?.as_fd(), &stat)
        });
        copied.map_err(StoreError::io("make", &layer))?;
        self.stack = TreeStack { lower: stack.lower, upper: Some(Upper { dir: layer, work: overlay }) };
        Ok(())
    }

    /// Makes a whole tree of its own with the content of `stack`.
    fn copy_from(&self, stack: &TreeStack) -> Result<(), StoreError> {
        let tree = &self.upper().dir;
        make_folder(tree)?;
        let from = overlay::open(stack).map_err(StoreError::io("open the layers below", tree))?;
        let to = open_folder(tree).map_err(StoreError::io("open", tree))?;
        let copied = copy_tree(from.as_fd(), to.as_fd(), Ownership::Keep).map_err(StoreError::copy(tree))?;
        match copied.lost.into_iter().next() {
            None => Ok(()),
            Some(lost) => {
                Err(StoreError::Lossy { path: tree.join(lost.path), attribute: lost.attribute, reason: lost.reason })
            }
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // What cannot be removed now goes with the lease, or is swept when the store is next opened.
        remove_tree(&self.folder).ok();
    }
}

impl Store {
    /// Whether results are kept as layers here; tried in `folder`, once.
    fn has_layers(&self, folder: &Path) -> Result<bool, StoreError> {
        let known = &self.shared.overlay;
        if self.shared.layers == Layers::Plain {
            return Ok(false);
        }
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let refused = probe(folder)?;
        match (refused, self.shared.layers) {
            (Some(source), Layers::Overlay) => Err(StoreError::NoLayers { path: self.path().to_owned(), source }),
            (refused, _) => Ok(*known.get_or_init(|| refused.is_none())),
        }
    }
}

/// Tries what layers need: a mount on two lower ones, and the renaming of a folder out of them. Gives why it cannot be
/// done.
fn probe(folder: &Path) -> Result<Option<io::Error>, StoreError> {
    let act = "try layers in";
    let place = tempfile::Builder::new().prefix("probe-").tempdir_in(folder).map_err(StoreError::io(act, folder))?;
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "lower/folder", "middle", "upper", "work"] {
        std::fs::create_dir(path(name)).map_err(StoreError::io(act, path(name)))?;
    }
    let upper = Upper { dir: path("upper"), work: path("work") };
    let stack = TreeStack { lower: vec![path("lower"), path("middle")], upper: Some(upper) };
    let renamed = overlay::open(&stack).and_then(|root| Ok(rustix::fs::renameat(&root, "folder", &root, "renamed")?));
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(StoreError::io(act, folder)(error)),
        other => Ok(other.err()),
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    std::fs::create_dir(path).map_err(StoreError::io("make", path))
}

fn open_folder(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
