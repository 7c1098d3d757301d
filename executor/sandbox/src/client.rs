//! Running one stage somewhere: the trait, and the runner that has a helper process on this machine fork a process for
//! each.
//!
//! Knows the process boundary ([`crate::request`]) and nothing of what happens behind it.

mod helper;
mod running_stage;
pub mod shell;
mod text;
pub mod traceback;
mod transcript;

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::interrupt::Interrupt;
use crate::request::{StageFailure, StageReply, StageRequest};
use crate::stage::message::{self, StageEnds};
use helper::Helper;
use running_stage::RunningStage;

pub use transcript::Transcript;

/// Runs stages, wherever that is.
pub trait StageRunner: Send + Sync {
    /// Runs a stage and returns what came of it. When this returns, nothing of the stage is left but its tree.
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply;
}

/// What a stage is connected to while it runs.
pub struct StageIo<'a> {
    /// Takes what the stage writes to its standard output and error, as it comes: text cut anywhere but within a
    /// character, invalid UTF-8 replaced.
    ///
    /// Called on the thread that called [`StageRunner::run`].
    pub output: &'a dyn Fn(&str),
    /// Takes what the services of its inputs, devices and mounts write, line by line. Called on the same thread.
    pub service_output: &'a dyn Fn(&str),
    /// Ends the stage when raised.
    pub interrupt: &'a Interrupt,
}

/// Runs each stage under a process of its own, forked by one helper that is started with the first.
#[derive(Debug)]
pub struct LocalRunner {
    program: PathBuf,
    arguments: Vec<OsString>,
    terminal: String,
    helper: Mutex<Option<Helper>>,
}

impl LocalRunner {
    /// A runner that starts `program` with `arguments`, which must lead to [`stage_main`](crate::server::stage_main):
    /// osbc itself is `/proc/self/exe` with its hidden command.
    ///
    /// `terminal` is what stages get as `TERM`.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>, terminal: &str) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().collect(),
            terminal: terminal.to_owned(),
            helper: Mutex::new(None),
        }
    }

    fn start(&self, request: &StageRequest) -> io::Result<RunningStage> {
        let request = message::encode(request)?;
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let (output, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        self.ask(&StageEnds { socket: theirs, output: write_end })?;
        Ok(RunningStage::new(request, socket, output))
    }

    /// Has the helper run a stage; one that is gone is replaced.
    fn ask(&self, ends: &StageEnds) -> io::Result<()> {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(helper) = &*helper
            && helper.ask(ends).is_ok()
        {
            return Ok(());
        }
        // If it is gone already, that shows by the end of the stage's socket.
        helper.insert(Helper::start(&self.program, &self.arguments, &self.terminal)?).ask(ends).ok();
        Ok(())
    }

    fn attend(&self, request: &StageRequest, io: &StageIo<'_>) -> io::Result<StageReply> {
        // A helper that is being killed may still be asked, but no stage begins.
        for _ in 0..2 {
            // How long a machine takes to start is no time of its stage, so that is measured there.
            let timeout = request.timeout.filter(|_| !request.in_vm);
            if let Some(reply) = self.start(request)?.attend(timeout, io)? {
                return Ok(reply);
            }
            self.helper.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let reason = format!("{} does not stay alive as the stage's helper", self.program.display());
        Ok(StageReply::failed(StageFailure::Died(reason)))
    }
}

impl StageRunner for LocalRunner {
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply {
        if io.interrupt.is_raised() {
            return StageReply::failed(StageFailure::Interrupted);
        }
        self.attend(request, io).unwrap_or_else(|error| {
            let reason = format!("cannot run {} as the stage's helper: {error}", self.program.display());
            StageReply::failed(StageFailure::environment(reason, &error))
        })
    }
}
