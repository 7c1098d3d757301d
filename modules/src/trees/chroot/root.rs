//! What a program of a tree finds around it: a mount namespace whose root is the tree, with a small `/dev`, a read-only
//! `/sys` and an empty `/tmp`.
//!
//! `/proc` comes later, since it shows the namespace of the process that mounts it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use osbc_module_api::container::{DEVICE_LINKS, DEVICES};
use osbc_module_api::{Error, Tree};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use crate::trees::bind::{Access, bind};

/// The namespaces that a program does not share with the stage. That of the network is the stage's own already.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Moves the calling thread, and it alone, to namespaces of its own, with the tree at `root` for its root and nothing
/// else mounted but what is said here.
///
/// What it starts is in a pid namespace of its own.
///
/// # Errors
/// The kernel refuses, or the tree lacks a directory.
pub(super) fn enter(root: &Path, has_tmp: bool, shared: &[&str]) -> Result<(), Error> {
    unshare(NAMESPACES | CloneFlags::CLONE_FS).map_err(Error::io("make namespaces for", root))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Error::io("make mounts private for", root))?;
    // What becomes the root of a mount namespace must be a mount; device nodes in a tree are for later.
    let without_devices = |tree: File| bind(&tree, &tree, Access::WithoutDevices);
    File::open(root).and_then(without_devices).map_err(Error::io("mount the tree", root))?;
    if shared.is_empty() {
        surround(root, has_tmp)?;
    }
    for directory in shared {
        let place = Tree::open(root)?.path_for_tools(directory)?;
        mount_bind_recursive(Path::new("/").join(directory), &place)
            .map_err(Error::io("bind a directory to", &place))?;
    }
    // In a user namespace whoever mounts a `/proc` must see one already; it comes to lie over this one.
    let processes = Tree::open(root)?.path_for_tools("proc")?;
    mount_bind_recursive("/proc", &processes).map_err(Error::io("bind /proc to", &processes))?;
    // The old root comes to lie on the new one and is taken away, and with it all that is not the tree's.
    rustix::process::chdir(root).map_err(Error::io("enter", root))?;
    rustix::process::pivot_root(".", ".").map_err(Error::io("change the root to", root))?;
    unmount(".", UnmountFlags::DETACH).map_err(Error::io("leave the old root for", root))?;
    rustix::process::chdir("/").map_err(Error::io("enter", root))
}

/// Mounts what programs need at a root that is to be.
fn surround(root: &Path, has_tmp: bool) -> Result<(), Error> {
    let place = |directory: &str| -> Result<PathBuf, Error> { Tree::open(root)?.path_for_tools(directory) };
    show_system(&place("sys")?).map_err(Error::io("mount /sys of", root))?;
    fill_dev(&place("dev")?).map_err(Error::io("fill /dev of", root))?;
    if has_tmp {
        mount("tmpfs", place("tmp")?, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777"))
            .map_err(Error::io("mount /tmp of", root))?;
    }
    Ok(())
}

/// Mounts `/sys` read-only: that of the network namespace, or the stage's where the kernel gives no other.
fn show_system(target: &Path) -> io::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("sysfs", target, "sysfs", quiet | MountFlags::RDONLY, None).is_ok() {
        return Ok(());
    }
    bind(File::open("/sys")?, File::open(target)?, Access::ReadOnly)?;
    // A fresh one has no control groups mounted either.
    let groups = target.join("fs/cgroup");
    if groups.is_dir() {
        mount("tmpfs", groups, "tmpfs", quiet | MountFlags::RDONLY, None)?;
    }
    Ok(())
}

/// Mounts a small `/dev` at a directory. Nodes that are made in there do not work.
fn fill_dev(directory: &Path) -> io::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", directory, "tmpfs", quiet | MountFlags::NODEV, Some(c"mode=0755,size=64m"))?;
    for (name, _, _) in DEVICES {
        let (node, place) = (Path::new("/dev").join(name), directory.join(name));
        fs::write(&place, "")?;
        mount_bind(&node, &place)?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, directory.join(name))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        fs::create_dir(directory.join(name))?;
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode))?;
    }
    mount("devpts", directory.join("pts"), "devpts", quiet, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    let limits = Some(c"mode=1777,size=64m");
    Ok(mount("tmpfs", directory.join("shm"), "tmpfs", quiet | MountFlags::NODEV, limits)?)
}
