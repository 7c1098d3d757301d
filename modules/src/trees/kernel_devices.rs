//! The kernel's own `/dev` in place of that of the sandbox, for tools that make devices and want to see them.

use osbc_module_api::Error;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const DEV: &str = "/dev";
const SHARED_MEMORY: &str = "/dev/shm";

/// It is there until this is dropped.
#[derive(Debug)]
pub(crate) struct KernelDevices;

impl KernelDevices {
    /// Mounts it, with an empty `/dev/shm`, in the mount namespace of the stage.
    ///
    /// # Errors
    /// The process may not mount it.
    pub(crate) fn mount() -> Result<Self, Error> {
        mount("devtmpfs", DEV, "devtmpfs", MountFlags::empty(), None).map_err(Error::io("mount", DEV))?;
        let devices = Self;
        std::fs::create_dir_all(SHARED_MEMORY).map_err(Error::io("create the directory", SHARED_MEMORY))?;
        mount("tmpfs", SHARED_MEMORY, "tmpfs", MountFlags::empty(), None).map_err(Error::io("mount", SHARED_MEMORY))?;
        Ok(devices)
    }
}

impl Drop for KernelDevices {
    fn drop(&mut self) {
        // What cannot be taken away here ends with the stage's mount namespace.
        unmount(SHARED_MEMORY, UnmountFlags::DETACH).ok();
        unmount(DEV, UnmountFlags::DETACH).ok();
    }
}
