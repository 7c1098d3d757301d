//! What may be done through a mount, changed by its descriptor: `mount_setattr(2)`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::mount::MountAttrFlags;

/// `MS_PRIVATE` of `<linux/mount.h>`.
const PRIVATE: u64 = 1 << 18;

/// A change of what may be done through a mount.
#[derive(Debug, Clone, Copy)]
pub struct MountChange {
    /// The attributes to switch on.
    pub set: MountAttrFlags,
    /// The attributes to switch off.
    pub clear: MountAttrFlags,
    /// Whether what is mounted below other copies of the mount no longer appears below this one.
    pub private: bool,
    /// Whether it holds for all mounts below it, too.
    pub recursive: bool,
}

/// Of `<linux/mount.h>`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountChange {
    /// Changes a mount.
    ///
    /// # Errors
    /// The OS error, for example that the process may not mount.
    pub fn apply(self, mount: impl AsFd) -> io::Result<()> {
        let argument = MountAttributes {
            set: u64::from(self.set.bits()),
            clear: u64::from(self.clear.bits()),
            propagation: if self.private { PRIVATE } else { 0 },
            user_namespace: 0,
        };
        let flags = libc::AT_EMPTY_PATH | if self.recursive { libc::AT_RECURSIVE } else { 0 };
        #[expect(unsafe_code, reason = "no dependency wraps mount_setattr")]
        // SAFETY: the path is a terminated string, the argument has the layout and the size that the call expects, and
        // the kernel keeps no reference to either.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_fd().as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const argument,
                size_of::<MountAttributes>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
