//! The few system calls that no dependency wraps, and the mount calls in the shape in which this crate uses them:
//! a mount is made detached, gets its attributes, and only then appears at its place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use osbc_module_api::MountChange;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

/// No setuid programs, no devices.
pub(crate) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
/// The same, read-only.
pub(crate) const READ_ONLY: MountAttrFlags = PLAIN.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// Switches attributes on for a mount and all mounts below it.
pub(crate) fn set_attributes(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    change_attributes(mount, attributes, true)
}

/// Switches attributes on for a mount alone.
pub(crate) fn set_attributes_of_one(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    change_attributes(mount, attributes, false)
}

fn change_attributes(mount: impl AsFd, set: MountAttrFlags, recursive: bool) -> io::Result<()> {
    MountChange { set, clear: MountAttrFlags::empty(), private: false, recursive }.apply(mount)
}

/// A detached copy of what is mounted at an open directory or file, with the mounts below it.
pub(crate) fn copy_mount(from: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(from, "", flags)?)
}

/// A new detached file system without a device.
pub(crate) fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Lets a detached mount appear at `target`, which must be of the same type (directory or not) and no link.
pub(crate) fn attach(mount: OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Closes every descriptor but the first three and those that are `kept`.
///
/// What owns one of them may not use or drop it any more: to be called before anything does, or where the process ends
/// before that.
pub(crate) fn close_descriptors(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let close = |first: RawFd, last: RawFd| {
        #[expect(unsafe_code, reason = "no dependency wraps close_range")]
        // SAFETY: by the condition above nothing relies on what is closed.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if first > last || result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 3;
    for kept in kept {
        close(first, kept - 1)?;
        first = kept + 1;
    }
    close(first, RawFd::MAX)
}

/// Switches the loopback interface of the calling thread's network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    #[expect(unsafe_code, reason = "no dependency wraps the requests for interfaces")]
    // SAFETY: a zeroed `ifreq` is valid; both requests read its name, which is terminated, and the one union member
    // that is used is the one that belongs to them.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
