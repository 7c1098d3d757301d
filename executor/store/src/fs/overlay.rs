//! Layers as one tree: how this crate mounts overlayfs, in the one place that knows its options.
//!
//! Knows directories and nothing of the store; the store's side and a stage's process both mount through here, since a
//! layer written under other options (redirected directories, indexed hard links) would not read back the same.
//!
//! A mount is made detached: no other process and no mount namespace sees it, it is gone when its descriptor is
//! closed, whatever happens to the process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::tree_stack::TreeStack;
use crate::user_namespace;

/// What overlayfs keeps in [`Upper::work`](crate::tree_stack::Upper::work) while a volatile mount lives; a new mount on
/// the same upper directory is refused until it is gone ([`settle`]).
const VOLATILE: &str = "work/incompat";

/// What marks a file of a layer as a placeholder: its data is that of the file of the same name below or, if there is
/// the other attribute, of the one that this names, as for a directory.
pub(crate) const METACOPY: &str = "metacopy";
pub(crate) const REDIRECT: &str = "redirect";
/// What marks what was copied from a lower layer, and a directory that hides the one below.
pub(crate) const ORIGIN: &str = "origin";
pub(crate) const OPAQUE: &str = "opaque";
/// What osbc notes of a file of which a layer has the changed blocks alone: the hash of the whole content. To overlayfs
/// it is one of its own notes, which it neither shows nor copies.
pub(crate) const DELTA: &str = "delta";

/// The longest path of a file that overlayfs notes as [`REDIRECT`] (the default of the kernel's `redirect_max`, less the
/// first `/`). Renaming or linking a placeholder of a file with a longer one gives `EXDEV`.
pub(crate) const LONGEST_REDIRECT: u64 = 255;

/// How the names of the attributes begin that overlayfs keeps its notes in. Only the machine's root may set `trusted.`
/// ones.
pub(crate) fn notes() -> &'static str {
    if user_namespace::in_namespace() { "user.overlay." } else { "trusted.overlay." }
}

/// Returns whether an entry is what overlayfs marks a missing one with.
pub(crate) fn is_whiteout(kind: FileType, stat: &Stat) -> bool {
    kind == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Returns the name of the attribute that a note is kept in, e.g. of [`METACOPY`].
pub(crate) fn note(name: &str) -> String {
    format!("{}{name}", notes())
}

/// Returns whether a file of a layer has a note.
///
/// # Errors
/// Its attributes cannot be read.
pub(crate) fn has_note(file: impl AsFd, name: &str) -> io::Result<bool> {
    has_attribute(file, &note(name))
}

/// Returns whether a file has an extended attribute.
///
/// # Errors
/// They cannot be read.
pub(crate) fn has_attribute(file: impl AsFd, name: &str) -> io::Result<bool> {
    match rustix::fs::fgetxattr(file, name, &mut [0; 0][..]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        other => other.map(|_| true).map_err(io::Error::from),
    }
}

/// Opens the root of a stack: of a plain directory for a single one, of a detached overlay mount otherwise.
///
/// Writing to it changes the stack's upper directory; without one it is read-only.
///
/// Options of the mount: `volatile` (else the kernel syncs the whole file system when a stage's mount goes; the store
/// syncs by itself), `index=on` (a hard-linked file stays one file when it is written to), `redirect_dir=on` (a
/// directory of a lower layer can be renamed), and `metacopy=on`, but for an upper directory that has
/// [`Upper::metacopy`](crate::tree_stack::Upper::metacopy) off: when the mode, owner, times, attributes or names of a
/// file of a lower layer change, the layer holds a placeholder, with the attribute [`METACOPY`], and the data stays
/// where it is. The data is copied when the file is opened for writing: then its time is that moment's, as if it had been
/// written to. Without root `userxattr` takes the place of all but the first: the kernel then keeps no index and makes
/// no placeholders (it copies the file), and who renames a directory of a lower layer gets `EXDEV`, as between file
/// systems.
///
/// # Errors
/// A directory is not there, the stack is empty, or the kernel refuses (it needs Linux 6.7 and `CAP_SYS_ADMIN`).
pub fn open(stack: &TreeStack) -> io::Result<OwnedFd> {
    match (&stack.upper, stack.lower.as_slice()) {
        (None, []) => Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty stack has no root")),
        (None, [only]) => open_directory(only),
        (Some(upper), []) => open_directory(&upper.dir),
        _ => mount_when_free(stack),
    }
}

/// Makes the upper directory of a stack ready for its next mount after the last one is gone.
///
/// # Errors
/// The rest of the last mount cannot be removed.
pub fn settle(work: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(work.join(VOLATILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// How long an upper directory may stay in use after its last mount was closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const RELEASE_INTERVAL: Duration = Duration::from_millis(2);

/// Mounts a stack once its upper directory is free: a process that another thread is starting inherits the descriptor
/// of the last mount, and holds it until it executes its program.
fn mount_when_free(stack: &TreeStack) -> io::Result<OwnedFd> {
    let start = Instant::now();
    loop {
        match mount(stack) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < RELEASE_TIMEOUT => {
                std::thread::sleep(RELEASE_INTERVAL);
            }
            result => return result,
        }
    }
}

/// The detached mount of a stack with at least two directories.
fn mount(stack: &TreeStack) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&context, key, value);
    // A string of a mount's configuration holds 255 bytes: the directories are named by descriptors, whatever their
    // path.
    let mut open = Vec::new();
    let mut directory = |key: &str, path: &Path| -> io::Result<()> {
        let descriptor = open_directory(path).map_err(|error| at(path, error))?;
        set(key, &format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
        open.push(descriptor);
        Ok(())
    };
    for layer in stack.lower.iter().rev() {
        directory("lowerdir+", layer)?;
    }
    if let Some(upper) = &stack.upper {
        directory("upperdir", &upper.dir)?;
        directory("workdir", &upper.work)?;
        rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    }
    if user_namespace::in_namespace() {
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
    } else {
        if stack.upper.is_some() {
            set("index", "on")?;
        }
        set("redirect_dir", "on")?;
        let makes_placeholders = stack.upper.as_ref().is_none_or(|upper| upper.metacopy);
        set("metacopy", if makes_placeholders { "on" } else { "off" })?;
    }
    rustix::mount::fsconfig_create(&context).map_err(|error| explained(context.try_clone(), error))?;
    let attributes = if stack.upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The kernel says more about a refused mount than the error's number: lines read from the context.
fn explained(context: io::Result<OwnedFd>, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    let Ok(context) = context else { return error };
    let mut buffer = [0; 4096];
    match io::Read::read(&mut File::from(context), &mut buffer) {
        Ok(length) if length > 0 => {
            let words = String::from_utf8_lossy(&buffer[..length]);
            io::Error::new(error.kind(), format!("overlayfs: {}: {error}", words.trim()))
        }
        _ => error,
    }
}
