//! The helper process: osbc executed anew, once for a build, with a single thread. It does two things, each in a process
//! of its own.
//!
//! The *server* is what was executed. For every stage it forks a worker into a new pid namespace, and between stages it
//! makes the other namespaces for the next one. It ends when the other side of its socket goes away.
//!
//! The *worker* is the first process of a stage's pid namespace. It prepares the stage, runs it, takes everything down and
//! sends the reply ([`crate::sandbox`]). It dies with the server. All that it makes lives in a mount namespace of its own
//! or hangs on its descriptors, so its death, however it comes, leaves nothing behind.
//!
//! Forking a small process that is there already takes a fraction of what executing a program takes; and osbc itself has
//! threads, so it cannot fork.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use osbc_module_api::Catalog;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, pidfd_open};

use crate::request::{StageFailure, StageReply, StageRequest};
use crate::sandbox::message::{self, StageEnds};
use crate::sandbox::{self, Isolation};

/// What the helper does; to be called first thing in a process started by [`LocalRunner`](crate::runner::LocalRunner),
/// before any thread is started or any file is opened, with the catalog of the process that started it. The process is
/// to end with what this returns.
///
/// Its standard input is the socket that stages are asked for on ([`message`]).
pub fn stage_main(catalog: &Catalog) -> ExitCode {
    serve(catalog).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// What the server has from its start.
struct Home {
    /// The namespaces in which it was started, where workers prepare their stages.
    isolation: Isolation,
    /// Its pid namespace.
    processes: File,
    /// A handle on the server itself.
    server: OwnedFd,
}

/// # Errors
/// There is no socket, or something is wrong with it.
fn serve(catalog: &Catalog) -> io::Result<()> {
    // Whoever started us may have left some open for their own use.
    sandbox::close_descriptors(None)?;
    let control = take_socket()?;
    rustix::process::umask(Mode::empty());
    let home = Home {
        isolation: Isolation::current()?,
        processes: File::open("/proc/self/ns/pid")?,
        server: pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?,
    };
    let mut next = Isolation::make(&home.isolation);
    while let Some(ends) = message::receive_ends(&control)? {
        match next.and_then(|isolation| Ok((fork_worker(&home)?, isolation))) {
            Ok((ForkResult::Parent { .. }, _)) => {}
            Ok((ForkResult::Child, isolation)) => {
                // The server's alone: its end tells osbc of the server's.
                drop(control);
                return work(&home, &isolation, &ends, catalog);
            }
            Err(error) => {
                let hint = if error.kind() == io::ErrorKind::PermissionDenied { "; stages need root" } else { "" };
                let reason = format!("cannot start the stage's process: {error}{hint}");
                // Without a reader there is nobody to be told.
                message::send_descriptor(&ends.socket, None).ok();
                message::send(&ends.socket, &StageReply::failed(StageFailure::Environment(reason))).ok();
            }
        }
        drop(ends);
        reap()?;
        next = Isolation::make(&home.isolation);
    }
    Ok(())
}

/// The socket on standard input, which what is executed from here shall not inherit.
fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(null)?;
    Ok(socket)
}

/// Waits for the workers that have ended.
fn reap() -> io::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
            ended => ended?,
        };
    }
}

/// Forks the worker of a stage into a new pid namespace.
fn fork_worker(home: &Home) -> io::Result<ForkResult> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    #[expect(unsafe_code, reason = "the first process of the new namespace must be a child")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() };
    if !matches!(forked, Ok(ForkResult::Child)) {
        // The next child shall be the first of another one, which only who is in its own can make.
        setns(&home.processes, CloneFlags::CLONE_NEWPID)?;
    }
    Ok(forked?)
}

/// All that happens in the worker.
fn work(home: &Home, isolation: &Isolation, ends: &StageEnds, catalog: &Catalog) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The server may have died before its death could be noticed.
    let mut polled = [PollFd::new(&home.server, PollFlags::IN)];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    nix::unistd::dup2_stdout(&ends.output)?;
    nix::unistd::dup2_stderr(&ends.output)?;
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    message::send_descriptor(&ends.socket, Some(this.as_fd()))?;
    drop(this);
    rustix::process::setsid()?;
    // The stage runs in the same pid namespace and shall not look into this process, which still sees the host.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let request: StageRequest = message::receive(&ends.socket)?;
    if let Some((name, epoch)) = sandbox::epoch_variable(request.source_epoch) {
        #[expect(unsafe_code, reason = "what the stage starts inherits the environment")]
        // SAFETY: this process has a single thread.
        unsafe {
            std::env::set_var(name, epoch);
        }
    }
    let reply = catch_unwind(AssertUnwindSafe(|| sandbox::run_stage(&request, catalog, isolation)));
    let reply = reply.unwrap_or_else(|_| {
        StageReply::failed(StageFailure::Environment("a bug in the preparation of the stage; see its output".into()))
    });
    message::send(&ends.socket, &reply)
}
