//! Disk images that a stage fills: parts of a file as loop devices, mounted one below the other at a directory of the
//! stage's own, in its mount namespace.
//!
//! Knows nothing of partition tables and of what the files are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use osbc_module_api::loopdev::{self, Config, LoopDevice};
use osbc_module_api::*;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// Where the nodes of loop devices are.
const NODES: &str = "/dev";

/// How long something else, such as a prober of new devices, may hold on to a mount or device at the end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How soon to try again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// How many bytes it has.
    pub(crate) size: u64,
}

/// A part of a file as a block device, until it is dropped.
///
/// # Errors
/// There is no loop device to be had.
pub(crate) fn attach(image: &File, part: Part) -> Result<LoopDevice, Error> {
    let config = Config { offset: part.offset, size: Some(part.size), ..Config::default() };
    LoopDevice::attach(image, &config, Path::new(NODES)).map_err(Error::io("make a loop device in", NODES))
}

/// Mounts at a directory of the stage's own; taken down when it is dropped.
#[derive(Debug)]
pub(crate) struct MountedImage {
    directory: TempDir,
    mounts: Vec<(PathBuf, LoopDevice)>,
}

impl MountedImage {
    /// Nothing mounted yet.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn new() -> Result<Self, Error> {
        let directory = tempfile::tempdir().map_err(Error::io("create a directory in", std::env::temp_dir()))?;
        Ok(Self { directory, mounts: Vec::new() })
    }

    /// The directory that the mounts are at and below.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Mounts the file system that is on a device at `target`, which is made when it is not there.
    ///
    /// # Errors
    /// The directory cannot be made, or the kernel does not take what is on the device for such a file system.
    pub(crate) fn mount(&mut self, device: LoopDevice, file_system: &str, target: &str) -> Result<(), Error> {
        // Opened each time: what was mounted last may lie on the root.
        let tree = Tree::open(self.root())?;
        tree.create_dir_all(target, 0o777)?;
        let place = tree.path_for_tools(target)?;
        // Images that are made side by side may have the same identifier, which only XFS minds.
        let options = (file_system == "xfs").then_some(c"nouuid");
        mount(device.node(), &place, file_system, MountFlags::empty(), options).map_err(|error| {
            Error::failed(format!("cannot mount {} as {file_system}: {error}", device.node().display()))
        })?;
        self.mounts.push((place, device));
        Ok(())
    }

    /// Mounts what is on a device at the directory `target`, whatever file system it is: `mount` of the build root
    /// finds out.
    ///
    /// # Errors
    /// There is no such directory, or the tool is missing or fails.
    pub(crate) fn mount_any(&mut self, cx: &StageContext, device: LoopDevice, target: &str) -> Result<(), Error> {
        // Opened each time: what was mounted last may lie on the root.
        let place = Tree::open(self.root())?.path_for_tools(target)?;
        cx.tool("mount")?.args(["-o", "rw"]).arg(device.node()).arg(&place).run()?;
        self.mounts.push((place, device));
        Ok(())
    }

    /// Unmounts everything and waits until all that was written is in the file.
    ///
    /// # Errors
    /// Something is still in use, or writing fails.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        // One that cannot be unmounted stays in the list, for `drop` to detach.
        while let Some((place, _)) = self.mounts.last() {
            unmount_soon(place).map_err(Error::io("unmount", place))?;
            let Some((_, device)) = self.mounts.pop() else { break };
            let node = device.node();
            loopdev::release(device.into_fd(), TIMEOUT).map_err(Error::io("release", node))?;
        }
        Ok(())
    }
}

/// Unmounts, after what still holds on to the mount: a tool that is about to end, a process that is just being started.
fn unmount_soon(place: &Path) -> Result<(), Errno> {
    let end = Instant::now() + TIMEOUT;
    loop {
        match unmount(place, UnmountFlags::empty()) {
            Err(Errno::BUSY) if Instant::now() < end => std::thread::sleep(POLL_INTERVAL),
            done => return done,
        }
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        while let Some((place, _)) = self.mounts.pop() {
            // The stage has failed already and says why.
            unmount(&place, UnmountFlags::DETACH).ok();
        }
    }
}
