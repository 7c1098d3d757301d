//! The namespaces of a stage besides those of mounts and processes: network with the loopback interface alone, System V
//! objects, host name. The helper makes them for the next stage while nobody waits for it: a network takes the kernel
//! most of a millisecond.

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
    /// Those that the calling process is in.
    ///
    /// # Errors
    /// `/proc` is not there, or the process has no descriptors left.
    pub(crate) fn current() -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/self/ns/{name}"));
        Ok(Self { network: open("net")?, objects: open("ipc")?, names: open("uts")? })
    }

    /// Makes new ones; the calling process, which has a single thread, is in those of `home` before and after.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make(home: &Self) -> io::Result<Self> {
        unshare(NAMESPACES)?;
        let made = sys::loopback_up()
            .and_then(|()| Ok(rustix::system::sethostname(spec::HOSTNAME.as_bytes())?))
            .and_then(|()| Self::current());
        home.join()?;
        made
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
