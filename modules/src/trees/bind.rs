//! Bind mounts by handle: what is shown, and where, was resolved before, so no link in between can lead elsewhere.
//!
//! Knows nothing of modules. Callers work in a mount namespace of their own; nothing here is unmounted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use osbc_module_api::MountChange;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// What may be done through a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// All that the source allows.
    AsIs,
    /// Reading alone.
    ReadOnly,
    /// All that the source allows but device nodes and programs with others' rights.
    WithoutDevices,
    /// Writing too, where the file system can, even if the source's mount refuses it.
    Writable,
}

/// Shows `source`, with all that is mounted below it, at `target`: both directories, or both none.
///
/// # Errors
/// The process may not mount.
pub(crate) fn bind(source: impl AsFd, target: impl AsFd, access: Access) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let copy = open_tree(source, "", flags)?;
    restrict(&copy, access)?;
    Ok(attach(&copy, target)?)
}

/// A copy of the mount of a directory, without what is mounted below it, to be attached.
///
/// # Errors
/// The process may not mount.
pub(crate) fn copy_alone(source: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(source, "", flags)?;
    restrict(&copy, Access::AsIs)?;
    Ok(copy)
}

/// Puts a mount that is not attached yet over `target`.
///
/// # Errors
/// The process may not mount, or one is a directory and the other is none.
pub(crate) fn attach(mount: &OwnedFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Cuts a mount that is not attached yet off from what happens to its source, and makes it read-only or not where
/// asked.
fn restrict(mount: &OwnedFd, access: Access) -> io::Result<()> {
    let none = MountAttrFlags::empty();
    let (set, clear) = match access {
        Access::AsIs => (none, none),
        Access::ReadOnly => (MountAttrFlags::MOUNT_ATTR_RDONLY, none),
        Access::WithoutDevices => (MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV, none),
        Access::Writable => (none, MountAttrFlags::MOUNT_ATTR_RDONLY),
    };
    MountChange { set, clear, private: true, recursive: true }.apply(mount)
}

/// Runs a test's work in a mount namespace of its own, so that what it mounts is gone afterwards however it ends.
#[cfg(test)]
pub(crate) fn in_own_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let worker = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(worker).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use osbc_fixtures::has_root;

    use super::*;

    #[test]
    fn root_a_read_only_bind_shows_what_is_there_and_refuses_writes_also_in_mounts_below() {
        if !has_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("source"), directory.path().join("target"));
        fs::create_dir_all(source.join("below")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::create_dir(directory.path().join("other")).unwrap();
        fs::write(directory.path().join("other/file"), "deep").unwrap();
        in_own_namespace(|| {
            let open = |path: &std::path::Path| File::open(path).unwrap();
            bind(open(&directory.path().join("other")), open(&source.join("below")), Access::AsIs).unwrap();
            bind(open(&source), open(&target), Access::ReadOnly).unwrap();
            assert_eq!(fs::read_to_string(target.join("below/file")).unwrap(), "deep");
            let refused = |path| fs::write(path, "").unwrap_err().raw_os_error() == Some(Errno::ROFS.raw_os_error());
            assert!(refused(target.join("new")));
            assert!(refused(target.join("below/file")));
            fs::write(source.join("new"), "").unwrap();
            assert!(target.join("new").exists());
        });
        assert!(!target.join("new").exists(), "the test's own namespace kept the mounts to itself");
    }
}
