//! The namespaces of a stage besides those of mounts and processes: network with the loopback interface alone, System V
//! objects, host name. The supervisor makes them, of which it has no other use, while the worker prepares the stage: a
//! network takes the kernel most of a millisecond.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::{spec, sys};

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWIPC).union(CloneFlags::CLONE_NEWUTS);

/// The worker's side: how it gets at the supervisor's namespaces.
#[derive(Debug)]
pub(crate) struct Isolation {
    supervisor: OwnedFd,
    /// Ends when the namespaces are there; with the number of an error before that if they could not be made.
    ready: File,
}

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Maker {
    result: File,
}

impl Isolation {
    /// For the calling process, which is to be the supervisor.
    ///
    /// # Errors
    /// It has no descriptors left.
    pub(crate) fn new() -> io::Result<(Self, Maker)> {
        let supervisor = pidfd_open(getpid(), PidfdFlags::empty())?;
        let (ready, result) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self { supervisor, ready: ready.into() }, Maker { result: result.into() }))
    }

    /// A handle on the supervisor.
    pub(crate) fn supervisor(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }

    /// Enters the namespaces, when they are there.
    ///
    /// # Errors
    /// They could not be made, or the kernel refuses.
    pub(crate) fn join(&self) -> io::Result<()> {
        let mut error = Vec::new();
        (&self.ready).read_to_end(&mut error)?;
        match error.first_chunk() {
            Some(number) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(*number))),
            None => Ok(setns(&self.supervisor, NAMESPACES)?),
        }
    }
}

impl Maker {
    /// Moves the calling process to new namespaces and tells how that went.
    pub(crate) fn make(mut self) {
        let made = unshare(NAMESPACES)
            .map_err(io::Error::from)
            .and_then(|()| sys::loopback_up())
            .and_then(|()| Ok(rustix::system::sethostname(spec::HOSTNAME.as_bytes())?));
        if let Err(error) = made {
            // Without a reader there is nobody to be told.
            self.result.write_all(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes()).ok();
        }
    }
}
