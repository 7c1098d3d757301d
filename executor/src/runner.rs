//! Running one stage somewhere: the trait, and the runner that starts a helper process on this machine. Knows the process
//! boundary ([`crate::request`]) and nothing of what happens behind it.

mod text;
mod transcript;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::interrupt::Interrupt;
use crate::request::{StageFailure, StageReply, StageRequest};
use crate::sandbox::{environment, message};
use text::Utf8Stream;

pub use transcript::Transcript;

/// Runs stages, wherever that is.
pub trait StageRunner: Send + Sync {
    /// Runs a stage and returns what came of it. When this returns, nothing of the stage is left but its tree.
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply;
}

/// What a stage is connected to while it runs.
pub struct StageIo<'a> {
    /// Takes what the stage writes to its standard output and error, as it comes: text cut anywhere but within a
    /// character, invalid UTF-8 replaced. Called on the thread that called [`StageRunner::run`].
    pub output: &'a dyn Fn(&str),
    /// Ends the stage when raised.
    pub interrupt: &'a Interrupt,
}

/// How long the helper may take to end a stage before it is killed itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a stage's output is read at once.
const CHUNK: usize = 64 << 10;

/// Runs each stage under a helper process of its own.
#[derive(Debug, Clone)]
pub struct LocalRunner {
    program: PathBuf,
    arguments: Vec<OsString>,
    terminal: String,
}

impl LocalRunner {
    /// A runner that starts `program` with `arguments`, which must lead to [`stage_main`](crate::helper::stage_main):
    /// osbc itself is `/proc/self/exe` with its hidden command. `terminal` is what stages get as `TERM`.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>, terminal: &str) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().collect(), terminal: terminal.to_owned() }
    }

    fn start(&self, request: &StageRequest) -> io::Result<Helper> {
        let unsent = message::encode(request)?;
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let (output, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.env_clear().envs(environment(&self.terminal, request.source_epoch));
        // Its own group: what a terminal sends to ours (Ctrl-C) is for us to pass on.
        command.process_group(0).current_dir("/");
        command.stdin(OwnedFd::from(theirs)).stdout(write_end.try_clone()?).stderr(write_end);
        let mut child = command.spawn()?;
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error.into());
            }
        };
        Ok(Helper {
            child,
            status: None,
            handle,
            worker: Worker::Unknown,
            socket: Some(socket),
            unsent,
            sent: 0,
            received: Vec::new(),
            output: Some(File::from(output)),
            text: Utf8Stream::default(),
        })
    }
}

impl StageRunner for LocalRunner {
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply {
        if io.interrupt.is_raised() {
            return StageReply::failed(StageFailure::Interrupted);
        }
        let environment = |error: io::Error| {
            let reason = format!("cannot run {} as the stage's helper: {error}", self.program.display());
            StageReply::failed(StageFailure::Environment(reason))
        };
        match self.start(request) {
            Ok(mut helper) => helper.attend(request.timeout, io).unwrap_or_else(environment),
            Err(error) => environment(error),
        }
    }
}

/// A helper that runs.
struct Helper {
    child: Child,
    /// How it ended.
    status: Option<ExitStatus>,
    handle: OwnedFd,
    worker: Worker,
    /// None after its end.
    socket: Option<UnixStream>,
    unsent: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    output: Option<File>,
    text: Utf8Stream,
}

/// The helper's first child, whose end is the end of everything in its pid namespace.
#[derive(Debug)]
enum Worker {
    /// The helper has not told yet.
    Unknown,
    /// It has, by this handle.
    Known(OwnedFd),
    /// There is none, or it has ended.
    Gone,
}

/// Why a helper was told to end.
struct Ending {
    failure: StageFailure,
    /// When it is killed.
    deadline: Instant,
    killed: bool,
}

impl Helper {
    /// Talks to the helper until it and all that it started is gone.
    fn attend(&mut self, timeout: Option<Duration>, io: &StageIo<'_>) -> io::Result<StageReply> {
        let timeout = timeout.and_then(|timeout| Some((timeout, Instant::now().checked_add(timeout)?)));
        let mut ending: Option<Ending> = None;
        let mut chunk = vec![0; CHUNK];
        while self.status.is_none() || !matches!(self.worker, Worker::Gone) {
            let deadline = match &ending {
                Some(ending) => (!ending.killed).then_some(ending.deadline),
                None => timeout.map(|(_, deadline)| deadline),
            };
            let ready = self.wait(ending.is_none().then_some(io.interrupt), deadline)?;
            if ready.output {
                self.read_output(&mut chunk, io)?;
            }
            if ready.socket {
                self.talk(&mut chunk)?;
            }
            if ready.worker {
                self.worker = Worker::Gone;
            }
            if ready.helper {
                self.status = Some(self.child.wait()?);
                // It may have told of its worker just before.
                self.talk(&mut chunk)?;
                if matches!(self.worker, Worker::Unknown) {
                    self.worker = Worker::Gone;
                }
            }
            let now = Instant::now();
            match &mut ending {
                None => {
                    let interrupted = ready.interrupt.then_some(StageFailure::Interrupted);
                    let late = timeout.filter(|(_, deadline)| now >= *deadline);
                    if let Some(failure) = interrupted.or(late.map(|(after, _)| StageFailure::TimedOut(after))) {
                        self.hang_up();
                        ending = Some(Ending { failure, deadline: now + PATIENCE, killed: false });
                    }
                }
                Some(ending) if !ending.killed && now >= ending.deadline => {
                    // Gone already is as good.
                    pidfd_send_signal(&self.handle, Signal::KILL).ok();
                    ending.killed = true;
                }
                Some(_) => {}
            }
        }
        // Nobody is left to write: what is in the socket and in the pipe is the rest.
        self.talk(&mut chunk)?;
        while self.read_output(&mut chunk, io)? {}
        self.text.finish(io.output);
        Ok(match message::decode(&self.received)? {
            Some(reply) => reply,
            None => StageReply::failed(ending.map_or_else(|| died(self.status), |ending| ending.failure)),
        })
    }

    /// Tells the helper to end: it takes this for our own end and kills what it started.
    fn hang_up(&mut self) {
        self.sent = self.unsent.len();
        if let Some(socket) = &self.socket {
            // Gone already is as good.
            socket.shutdown(Shutdown::Write).ok();
        }
    }

    /// Waits until something happens, or until `deadline`.
    fn wait(&self, interrupt: Option<&Interrupt>, deadline: Option<Instant>) -> io::Result<Ready> {
        let mut ready = Ready::default();
        let mut flags: Vec<&mut bool> = Vec::with_capacity(5);
        let mut polled = Vec::with_capacity(5);
        if let Some(output) = &self.output {
            polled.push(PollFd::new(output, PollFlags::IN));
            flags.push(&mut ready.output);
        }
        if let Some(socket) = &self.socket {
            let writes = if self.sent < self.unsent.len() { PollFlags::OUT } else { PollFlags::empty() };
            polled.push(PollFd::new(socket, PollFlags::IN | writes));
            flags.push(&mut ready.socket);
        }
        if self.status.is_none() {
            polled.push(PollFd::new(&self.handle, PollFlags::IN));
            flags.push(&mut ready.helper);
        }
        if let Worker::Known(worker) = &self.worker {
            polled.push(PollFd::new(worker, PollFlags::IN));
            flags.push(&mut ready.worker);
        }
        let interrupt = interrupt.map(Interrupt::descriptor);
        if let Some(descriptor) = &interrupt {
            polled.push(PollFd::new(descriptor, PollFlags::IN));
            flags.push(&mut ready.interrupt);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        match poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                for (flag, polled) in flags.into_iter().zip(&polled) {
                    *flag = !polled.revents().is_empty();
                }
            }
        }
        Ok(ready)
    }

    /// Passes on some output; returns whether there may be more.
    fn read_output(&mut self, chunk: &mut [u8], io: &StageIo<'_>) -> io::Result<bool> {
        let Some(pipe) = &mut self.output else { return Ok(false) };
        match pipe.read(chunk) {
            Ok(0) => self.output = None,
            Ok(length) => self.text.push(&chunk[..length], io.output),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(self.output.is_some())
    }

    /// Sends and receives what can be without waiting.
    fn talk(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        while let Some(socket) = &mut self.socket
            && self.sent < self.unsent.len()
        {
            match socket.write(&self.unsent[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It ended before it had read all; what it sent says why.
                Err(_) => self.sent = self.unsent.len(),
            }
        }
        while let Some(socket) = &mut self.socket {
            let received = match self.worker {
                Worker::Unknown => message::receive_descriptor(&*socket).map(|worker| {
                    self.worker = worker.map_or(Worker::Gone, Worker::Known);
                    None
                }),
                _ => socket.read(chunk).map(Some),
            };
            match received {
                Ok(Some(0)) => self.socket = None,
                Ok(Some(length)) => self.received.extend_from_slice(&chunk[..length]),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Its end with our request unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.socket = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Helper {
    /// Ends what still runs after an error or a panic on our side.
    fn drop(&mut self) {
        if self.status.is_none() {
            // Each may be gone already.
            if let Worker::Known(worker) = &self.worker {
                pidfd_send_signal(worker, Signal::KILL).ok();
            }
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn died(status: Option<ExitStatus>) -> StageFailure {
    let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    StageFailure::Died(format!("the stage's helper process ended without an answer ({how})"))
}

/// What became possible on the descriptors of a helper.
#[derive(Default)]
struct Ready {
    output: bool,
    socket: bool,
    helper: bool,
    worker: bool,
    interrupt: bool,
}
