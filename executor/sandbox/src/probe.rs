//! What this machine's kernel can do for stages, found out by trying it. Each trial is undone, whatever comes of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use osbc_module_api::loopdev::{Config, LoopDevice, release};
use osbc_module_api::threads;
use rustix::fs::{Mode, OFlags, ftruncate};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

use osbc_store::fs::overlay;
use osbc_store::fs::temporary;
use osbc_store::fs::temporary::OwnedDirectory;
use osbc_store::{TreeStack, Upper};

/// The namespaces that a stage gets.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);
/// How long the kernel may take to let go of a loop device.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a process can have the namespaces of a stage.
///
/// # Errors
/// Why not.
pub fn namespaces() -> io::Result<()> {
    on_a_thread(|| Ok(unshare(NAMESPACES)?))
}

/// Whether the kernel knows a file system; it loads the module for it where it has one.
///
/// # Errors
/// It cannot be asked.
pub fn file_system(name: &str) -> io::Result<bool> {
    match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether trees can be kept as layers in a directory.
///
/// # Errors
/// Why not.
pub fn layers(directory: &Path) -> io::Result<()> {
    let place = OwnedDirectory::new(directory, temporary::COMMAND)?;
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(path(name))?;
    }
    let upper = Upper { dir: path("upper"), work: path("work"), metacopy: true };
    overlay::open(&TreeStack { lower: vec![path("lower")], upper: Some(upper) }).map(drop)
}

/// Whether a file can be a loop device.
///
/// # Errors
/// Why not.
pub fn loop_device() -> io::Result<()> {
    let file = rustix::fs::memfd_create("osbc-doctor", rustix::fs::MemfdFlags::CLOEXEC)?;
    ftruncate(&file, 1 << 20)?;
    let device = LoopDevice::attach(&file, &Config::default(), Path::new("/dev"))?;
    release(device.into_fd(), RELEASE_TIMEOUT)
}

/// Whether a device node can be opened for reading and writing.
///
/// # Errors
/// Why not.
pub fn node(path: &str) -> io::Result<()> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(())
}

/// Runs on a thread of its own, whose namespaces end with it.
fn on_a_thread<T: Send>(trial: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let trial = threads::spawn_scoped(scope, trial).map_err(io::Error::other)?.join();
        trial.unwrap_or_else(|_| Err(io::Error::other("the trial panicked")))
    })
}
