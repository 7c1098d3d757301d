//! The namespaces of a stage besides those of mounts and processes: network, System V objects, host name, control
//! groups.
//!
//! The worker has all but the last before it has a stage, and stays outside itself: what it prepares belongs to the
//! host.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns, unshare};

use super::{Network, spec};

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWIPC.union(CloneFlags::CLONE_NEWUTS);

/// Handles on a set of such namespaces.
#[derive(Debug)]
pub(crate) struct Isolation {
    network: Network,
    objects: File,
    names: File,
}

impl Isolation {
    /// Makes new ones beside the network; the calling process, which has a single thread, is where it was before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make(network: Network) -> io::Result<Self> {
        let before = current()?;
        unshare(NAMESPACES)?;
        let made = rustix::system::sethostname(spec::HOSTNAME.as_bytes()).map_err(io::Error::from);
        let made = made.and_then(|()| current());
        join((&before.0, &before.1))?;
        let (objects, names) = made?;
        Ok(Self { network, objects, names })
    }

    /// Enters them, and a new one of control groups.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.network.join()?;
        join((&self.objects, &self.names))?;
        match unshare(CloneFlags::CLONE_NEWCGROUP) {
            // A kernel without control groups.
            Ok(()) | Err(nix::Error::EINVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Those that the calling process is in.
fn current() -> io::Result<(File, File)> {
    Ok((File::open("/proc/self/ns/ipc")?, File::open("/proc/self/ns/uts")?))
}

fn join((objects, names): (&File, &File)) -> io::Result<()> {
    setns(objects, CloneFlags::CLONE_NEWIPC)?;
    Ok(setns(names, CloneFlags::CLONE_NEWUTS)?)
}
