//! Shells in the place of stages: a runner that wraps another one and waits for the sandbox to ask for a shell
//! ([`crate::stage`] has the other side).
//!
//! Knows no terminal; whoever attends to a shell does.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use osbc_ir::{CompatId, Kind, Resource};
use osbc_module_api::threads;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::client::{StageIo, StageRunner};
use crate::request::{ShellMoment, ShellRequest, StageFailure, StageReply, StageRequest};
use crate::stage::message;

/// The socket in a stage's scratch directory.
const SOCKET: &str = "shell";

/// When there is a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Before the module of each stage that has this module or id, or of every stage: `*`.
    Before(String),
    /// After any module that failed.
    OnFailure,
    /// Instead of the module of the stage that has this id.
    Instead(CompatId),
}

/// Connects shells to the user.
pub trait ShellUi: Sync {
    /// Connects a shell and waits for its end. One at a time, on any thread.
    ///
    /// # Errors
    /// It cannot be connected, or was cut off.
    fn attend(&self, shell: Shell) -> io::Result<()>;
}

/// Runs stages as another runner does, with a shell where there is to be one. A stage with a shell may take as long as
/// it wants.
pub struct ShellRunner<'a> {
    inner: &'a dyn StageRunner,
    when: When,
    ui: &'a dyn ShellUi,
    /// Whoever has the user's attention.
    turn: Mutex<()>,
}

impl<'a> ShellRunner<'a> {
    /// Wraps a runner.
    pub fn new(inner: &'a dyn StageRunner, when: When, ui: &'a dyn ShellUi) -> Self {
        Self { inner, when, ui, turn: Mutex::new(()) }
    }

    fn request(&self, request: &StageRequest) -> Option<StageRequest> {
        let moment = match &self.when {
            When::OnFailure => ShellMoment::AfterFailure,
            When::Instead(id) if request.id == id.to_string() => ShellMoment::Instead,
            When::Before(stage) if is_stage(request, stage) => ShellMoment::Before,
            When::Instead(_) | When::Before(_) => return None,
        };
        let shell = ShellRequest { socket: request.scratch.join(SOCKET), moment };
        Some(StageRequest { shell: Some(shell), timeout: None, ..request.clone() })
    }

    /// Waits for the stage to ask for a shell, or for its end.
    fn serve(&self, listener: &UnixListener, end: BorrowedFd<'_>) -> io::Result<()> {
        if !wait(listener.as_fd(), end)? {
            return Ok(());
        }
        let (connection, _) = listener.accept()?;
        if !wait(connection.as_fd(), end)? || (&connection).read(&mut [0])? == 0 {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.ui.attend(Shell { connection })
    }
}

impl StageRunner for ShellRunner<'_> {
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply {
        let Some(request) = self.request(request) else { return self.inner.run(request, io) };
        let prepared = listen(&request.scratch).and_then(|listener| Ok((listener, eventfd(0, EventfdFlags::CLOEXEC)?)));
        let (listener, end) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let reason = format!("cannot prepare a shell: {error}");
                return StageReply::failed(StageFailure::environment(reason, &error));
            }
        };
        std::thread::scope(|scope| {
            let served = match threads::spawn_scoped(scope, || self.serve(&listener, end.as_fd())) {
                Ok(served) => served,
                Err(error) => return StageReply::failed(StageFailure::Exhausted(Resource::Tasks, error.to_string())),
            };
            let mut reply = self.inner.run(&request, io);
            // The counter is far from its limit.
            rustix::io::write(&end, &1u64.to_ne_bytes()).ok();
            if let Ok(Err(error)) = served.join() {
                reply.add_problem(&format!("the shell was cut off: {error}"));
            }
            reply
        })
    }
}

/// Whether a request is for a stage of this module or id, or for any stage: `*`. What a runner prepares is none.
fn is_stage(request: &StageRequest, stage: &str) -> bool {
    request.module.kind != Kind::Runner && ["*", &request.module.name, &request.id].contains(&stage)
}

/// A shell that wants to be connected.
#[derive(Debug)]
pub struct Shell {
    connection: UnixStream,
}

impl Shell {
    /// Connects it to three streams.
    ///
    /// # Errors
    /// The stage is gone.
    pub fn connect(&self, streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
        message::send_byte(&self.connection, &streams)
    }

    /// Returns it a terminal of the sandbox's own and returns the other end of that. It starts with [`Shell::begin`].
    ///
    /// # Errors
    /// The stage is gone, or there is no terminal in its sandbox.
    pub fn terminal(&self) -> io::Result<OwnedFd> {
        message::send_descriptor(&self.connection, None)?;
        message::receive_descriptor(&self.connection)?
            .ok_or_else(|| io::Error::other("the sandbox could not open a terminal"))
    }

    /// Lets a shell with a terminal begin, after that got its size.
    ///
    /// # Errors
    /// The stage is gone.
    pub fn begin(&self) -> io::Result<()> {
        (&self.connection).write_all(&[0])
    }

    /// What becomes readable when it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// The stage was ended before.
    pub fn wait(&self) -> io::Result<i32> {
        let mut code = [0; 4];
        (&self.connection).read_exact(&mut code)?;
        Ok(i32::from_le_bytes(code))
    }
}

fn listen(scratch: &Path) -> io::Result<UnixListener> {
    let directory = rustix::fs::open(scratch, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let socket = message::socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(message::address(&directory, Path::new(SOCKET)))?)?;
    rustix::net::listen(&socket, 1)?;
    Ok(UnixListener::from(socket))
}

/// Waits until there is something to read; false when the end comes first.
fn wait(socket: BorrowedFd<'_>, end: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        let mut polled =
            [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::from_borrowed_fd(end, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                return Ok(!polled[0].revents().is_empty());
            }
        }
    }
}
