//! The helper process as osbc sees it: started, asked for stages, and ended.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::stage::environment;
use crate::stage::message::{self, StageEnds};

/// A helper that runs. Dropped, it ends, and what it forked ends with it.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Child,
    /// None only while it is being dropped.
    control: Option<OwnedFd>,
}

impl Helper {
    /// Starts `program`, which is to become a helper, with the environment of stages.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(program: &Path, arguments: &[OsString], terminal: &str) -> io::Result<Self> {
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment(terminal));
        // Its own group: what a terminal sends to ours (Ctrl-C) is for us to pass on.
        command.process_group(0).current_dir("/");
        let process = command.stdin(theirs).stdout(Stdio::null()).spawn()?;
        Ok(Self { process, control: Some(control) })
    }

    /// Asks for a stage.
    ///
    /// # Errors
    /// The helper is gone.
    pub(crate) fn ask(&self, ends: &StageEnds) -> io::Result<()> {
        message::send_ends(self.control.as_ref().ok_or(io::ErrorKind::BrokenPipe)?, ends)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It ends when it sees that; by then it may have ended in another way.
        self.control.take();
        self.process.wait().ok();
    }
}
