//! The namespaces of a stage besides those of mounts and processes: network with the loopback interface alone, System V
//! objects, host name. The worker makes them before it has a stage, and stays outside itself: what it prepares
//! belongs to the host, and a network takes the kernel most of a millisecond.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns, unshare};

use super::{spec, sys};

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWIPC).union(CloneFlags::CLONE_NEWUTS);

/// Handles on a set of such namespaces.
#[derive(Debug)]
pub(crate) struct Isolation {
    network: File,
    objects: File,
    names: File,
}

impl Isolation {
    /// Makes new ones; the calling process, which has a single thread, is where it was before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make() -> io::Result<Self> {
        let before = Self::current()?;
        unshare(NAMESPACES)?;
        let made = sys::loopback_up()
            .and_then(|()| Ok(rustix::system::sethostname(spec::HOSTNAME.as_bytes())?))
            .and_then(|()| Self::current());
        before.join()?;
        made
    }

    /// Those that the calling process is in.
    fn current() -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/self/ns/{name}"));
        Ok(Self { network: open("net")?, objects: open("ipc")?, names: open("uts")? })
    }

    /// Enters them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn join(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.objects, CloneFlags::CLONE_NEWIPC)?;
        Ok(setns(&self.names, CloneFlags::CLONE_NEWUTS)?)
    }
}
