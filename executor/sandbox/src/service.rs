//! Services: the on-disk modules that are programs on the host's side.
//!
//! One is started, called, and stopped by closing its socket; what it writes goes to whoever watches. Knows osbuild's
//! messages, and nothing of sources or devices.

pub mod event_loop;
pub(crate) mod lines;
pub(crate) mod protocol;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use osbc_module_api::{OnDisk, Value, host_program};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::json;

use event_loop::ServiceLoop;
use protocol::{ReceiveError, ServiceMessage};

/// How long a service may take to end after its socket was closed: it unmounts and writes back meanwhile.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call to a service gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Its socket failed.
    #[error("cannot talk to it: {0}")]
    Io(#[from] io::Error),
    /// What it sent cannot be read.
    #[error("{0}")]
    Receive(#[from] ReceiveError),
    /// It closed its socket; with what is known of its end.
    #[error("it closed its socket without an answer{0}")]
    Closed(String),
    /// It broke the protocol.
    #[error("it answered `{answer}`, which is no message of the protocol")]
    Protocol {
        /// What it sent.
        answer: String,
    },
    /// Its code raised an exception.
    #[error("{name}: {value}")]
    Exception {
        /// The exception's class.
        name: String,
        /// Its message.
        value: String,
        /// Where it was raised.
        backtrace: String,
    },
}

/// A service that runs.
#[derive(Debug)]
pub struct Service {
    /// Whom the lines of its output name.
    uid: String,
    child: Child,
    handle: OwnedFd,
    home: Home,
    /// None after it was closed.
    socket: Option<OwnedFd>,
}

/// Where a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In the namespaces of its stage, and ends with those.
    Stage,
    /// On the host, in a pid namespace of its own.
    Host,
}

impl Service {
    /// Starts a module as the service `uid` (`input/tree`) in a process group of its own; `service_loop` passes on what
    /// it writes.
    ///
    /// It inherits `passed` besides its socket.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        uid: &str,
        module: &OnDisk,
        environment: &BTreeMap<String, String>,
        passed: Option<&OwnedFd>,
        home: Home,
        service_loop: &mut ServiceLoop<'_>,
    ) -> io::Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (output, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&module.file);
        command.arg("--service-id").arg(uid).arg("--service-fd").arg(theirs.as_raw_fd().to_string());
        command.env_clear().envs(environment).env("PYTHONUNBUFFERED", "1");
        if let Some(parent) = module.package.as_deref().and_then(std::path::Path::parent) {
            command.env("PYTHONPATH", parent);
        }
        command.process_group(0).current_dir("/").stdin(Stdio::null());
        command.stdout(write_end.try_clone()?).stderr(write_end);
        settle(&mut command, &theirs, passed);
        if home == Home::Host {
            host_program::contain(&mut command);
        }
        let mut child = command.spawn().map_err(|error| start_error(module, &error))?;
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                end(&mut child, home)?;
                return Err(error.into());
            }
        };
        // From here on it is stopped when this is dropped.
        let service = Self { uid: uid.to_owned(), child, handle, home, socket: Some(socket) };
        let name = module.file.file_name().unwrap_or_default().to_string_lossy();
        service_loop.pass_on(output, &format!("{uid} ({name}): "))?;
        Ok(service)
    }

    /// Calls a method and waits for its reply; `service_loop` serves the others meanwhile.
    ///
    /// # Errors
    /// It raised an exception, broke the protocol, or is gone.
    pub fn call(
        &mut self,
        method: &str,
        arguments: &Value,
        service_loop: &mut ServiceLoop<'_>,
    ) -> Result<Value, CallError> {
        let Some(socket) = &self.socket else { return Err(CallError::Closed(String::new())) };
        let call = json!({"type": "method", "data": {"name": method, "args": arguments}});
        let sent = protocol::send(socket, &call);
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        loop {
            service_loop.wait(socket, None)?;
            match protocol::receive(socket) {
                Ok(Some(ServiceMessage { value, .. })) => match understand(value)? {
                    Heard::Signal => {}
                    Heard::Reply(reply) => return Ok(reply),
                },
                // It may have closed the connection with our call unread.
                Ok(None) => return Err(self.closed(service_loop)),
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(self.closed(service_loop));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Why it closed its socket: mostly because it ended.
    fn closed(&mut self, service_loop: &mut ServiceLoop<'_>) -> CallError {
        let soon = Instant::now().checked_add(Duration::from_secs(1));
        let ended = service_loop.wait(&self.handle, soon).unwrap_or(false);
        let status = if ended { self.child.try_wait().ok().flatten() } else { None };
        CallError::Closed(status.map_or_else(String::new, |status| format!("; it ended with {status}")))
    }

    /// Stops it: closes its socket and waits for its end, so that it can take down what it made.
    ///
    /// One that does not end is killed, and what it left running with it.
    ///
    /// # Errors
    /// It did not end by itself.
    pub fn stop(mut self, service_loop: &mut ServiceLoop<'_>) -> Result<(), String> {
        self.socket = None;
        let ended = service_loop.wait(&self.handle, Instant::now().checked_add(END_TIMEOUT)).unwrap_or(false);
        if !ended {
            end(&mut self.child, self.home).ok();
            return Err(format!("{} did not end within {END_TIMEOUT:?} after its socket was closed", self.uid));
        }
        if self.home == Home::Stage {
            kill_group(&self.child);
        }
        let status = self.child.wait();
        service_loop.drain().ok();
        if let Ok(status) = status
            && !status.success()
        {
            service_loop.say(&format!("{}: ended with {status}\n", self.uid));
        }
        Ok(())
    }
}

impl Drop for Service {
    /// Ends what was not stopped after an error on our side.
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            // Nobody is left to report it to.
            end(&mut self.child, self.home).ok();
        }
    }
}

/// Ends a service, and what it left running: all of it on the host, its group in a stage, which ends the rest.
fn end(child: &mut Child, home: Home) -> io::Result<()> {
    match home {
        Home::Host => host_program::end(child).map(drop),
        Home::Stage => {
            kill_group(child);
            child.wait().map(drop)
        }
    }
}

/// Kills the group of a service, which outlives it where it left something running.
fn kill_group(child: &Child) {
    // Gone already is as good.
    kill_process_group(Pid::from_child(child), Signal::KILL).ok();
}

/// What a service said.
enum Heard {
    Signal,
    Reply(Value),
}

fn understand(mut message: Value) -> Result<Heard, CallError> {
    let data = message.get_mut("data").map(Value::take).unwrap_or_default();
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (message.get("type").and_then(Value::as_str), data.get("reply")) {
        (Some("signal"), Some(_)) => Ok(Heard::Signal),
        (Some("reply"), Some(reply)) => Ok(Heard::Reply(reply.clone())),
        (Some("exception"), _) if data.get("name").is_some() => {
            Err(CallError::Exception { name: text("name"), value: text("value"), backtrace: text("backtrace") })
        }
        _ => {
            message["data"] = data;
            Err(CallError::Protocol { answer: shortened(&message.to_string()) })
        }
    }
}

/// A text of a few words at most.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Lets a program inherit its socket, and what else it is passed.
#[expect(unsafe_code, reason = "descriptors are inherited by what is done between fork and exec")]
fn settle(command: &mut Command, socket: &OwnedFd, passed: Option<&OwnedFd>) {
    let descriptors = [Some(socket.as_raw_fd()), passed.map(AsRawFd::as_raw_fd)];
    // SAFETY: the closure makes system calls and nothing else, which is allowed after a fork of any process; the
    // descriptors are open there, since their owners outlive the start.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            for descriptor in descriptors.into_iter().flatten() {
                let descriptor = std::os::fd::BorrowedFd::borrow_raw(descriptor);
                rustix::io::fcntl_setfd(descriptor.as_fd(), rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
}

fn start_error(module: &OnDisk, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start {}: {error}", module.file.display()))
}
