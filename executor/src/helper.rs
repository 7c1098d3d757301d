//! The helper process: osbc executed anew for one stage. It has two parts, each a process.
//!
//! The *supervisor* is what was executed. It forks the worker into a new pid namespace and then only waits: when the
//! worker ends, so does it; when the other side of its socket goes away (osbc ended, or wants the stage to end), it
//! kills the worker, and with it everything in the namespace. Meanwhile it makes the other namespaces that the stage joins.
//!
//! The *worker* is the first process of that namespace. It prepares the stage, runs it, takes everything down and sends
//! the reply ([`crate::sandbox`]). It dies with the supervisor. All that it makes lives in a mount namespace of its own
//! or hangs on its descriptors, so its death, however it comes, leaves nothing behind.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use osbc_module_api::Catalog;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, pidfd_open};

use crate::request::{StageFailure, StageReply, StageRequest};
use crate::sandbox::{self, Isolation, Maker, message};

/// What the helper does; to be called first thing in a process started by [`LocalRunner`](crate::runner::LocalRunner),
/// before any thread is started or any file is opened, with the catalog of the process that started it. The process is
/// to end with what this returns.
///
/// Its standard input is the socket that the request comes from; what the stage writes goes to its standard output and
/// error.
pub fn stage_main(catalog: &Catalog) -> ExitCode {
    supervise(catalog).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// # Errors
/// There is no socket, or nobody at its other end.
fn supervise(catalog: &Catalog) -> io::Result<()> {
    // Whoever started us may have left some open for their own use.
    sandbox::close_descriptors(None)?;
    let socket = &take_socket()?;
    match fork_worker(socket, catalog) {
        Ok((worker, maker)) => {
            maker.make();
            if !ends_by_itself(socket, worker).unwrap_or(false) {
                kill(worker, nix::sys::signal::Signal::SIGKILL)?;
            }
            waitpid(worker, None)?;
            Ok(())
        }
        Err(error) => {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied { "; stages need root" } else { "" };
            let reason = format!("cannot start the stage's process: {error}{hint}");
            message::send_descriptor(socket, None)?;
            message::send(socket, &StageReply::failed(StageFailure::Environment(reason)))
        }
    }
}

/// The socket on standard input, which what is executed from here shall not inherit.
fn take_socket() -> io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(null)?;
    Ok(UnixStream::from(socket))
}

/// Forks the worker into a new pid namespace. In the worker this does not return.
fn fork_worker(socket: &UnixStream, catalog: &Catalog) -> io::Result<(Pid, Maker)> {
    let (isolation, maker) = Isolation::new()?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    #[expect(unsafe_code, reason = "the first process of the new namespace must be a child")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Parent { child } => Ok((child, maker)),
        ForkResult::Child => {
            drop(maker);
            let ended = work(socket, &isolation, catalog);
            std::process::exit(if ended.is_ok() { 0 } else { 1 });
        }
    }
}

/// Waits until the worker has ended, or returns false when the other side of the socket goes away before.
fn ends_by_itself(socket: &UnixStream, worker: Pid) -> io::Result<bool> {
    let worker = rustix::process::Pid::from_raw(worker.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    let worker = pidfd_open(worker, PidfdFlags::empty())?;
    loop {
        // Not for what can be read: that is for the worker.
        let mut polled = [PollFd::new(&worker, PollFlags::IN), PollFd::new(socket, PollFlags::RDHUP)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                return Ok(!polled[0].revents().is_empty());
            }
        }
    }
}

/// All that happens in the worker.
fn work(socket: &UnixStream, isolation: &Isolation, catalog: &Catalog) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The supervisor may have died before its death could be noticed.
    let supervisor = isolation.supervisor();
    let mut polled = [PollFd::new(&supervisor, PollFlags::IN)];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    message::send_descriptor(socket, Some(this.as_fd()))?;
    drop(this);
    rustix::process::setsid()?;
    // The stage runs in the same pid namespace and shall not look into this process, which still sees the host.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::empty());
    let request: StageRequest = message::receive(socket)?;
    let reply = catch_unwind(AssertUnwindSafe(|| sandbox::run_stage(&request, catalog, isolation)));
    let reply = reply.unwrap_or_else(|_| {
        StageReply::failed(StageFailure::Environment("a bug in the preparation of the stage; see its output".into()))
    });
    message::send(socket, &reply)
}
