//! The helper process: osbc executed anew, once for a build, with a single thread. It does two things, each in a
//! process of its own.
//!
//! The *server* is what was executed. It forks workers, one ahead: the next one is there, in namespaces of its own,
//! before it is asked for; and it keeps the networks that stages left unchanged for the next ones. It ends when the
//! other side of its socket goes away.
//!
//! A *worker* is the first process of a stage's pid namespace. It waits for a stage, prepares it, runs it, takes
//! everything down and sends the reply ([`crate::stage`]). It dies with the server. All that it makes lives in a mount
//! namespace of its own or hangs on its descriptors, so its death, however it comes, leaves nothing behind.
//!
//! Forking a small process that is there already takes a fraction of what executing a program takes; and osbc itself
//! has threads, so it cannot fork.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use osbc_module_api::Catalog;
use osbc_store::user_namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, pidfd_open};

use crate::request::{StageFailure, StageMessage, StageReply, StageRequest};
use crate::stage::message::{self, StageEnds};
use crate::stage::{self, Isolation, Network};
use crate::vm;

/// The namespaces that the server leaves for each worker, and comes back to.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Runs the fork server, and returns the exit code to end with.
///
/// To be called first of all in a process that [`LocalRunner`](crate::client::LocalRunner) started, before any thread
/// is started or any file is opened, with the catalog of the process that started it.
///
/// Its standard input is the socket that stages are asked for on ([`message`]).
pub fn stage_main(catalog: &Catalog) -> ExitCode {
    serve(catalog).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// # Errors
/// There is no socket, or something is wrong with it.
fn serve(catalog: &Catalog) -> io::Result<()> {
    // Whoever started us may have left some open for their own use.
    stage::close_descriptors(&[])?;
    let control = take_socket()?;
    if user_namespace::in_namespace() {
        match leave_namespaces() {
            Ok(ForkResult::Child) => rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?,
            Ok(ForkResult::Parent { child }) => {
                // The other side learns of the server's end by its socket.
                drop(control);
                let end = waitpid(child, None)?;
                std::process::exit(if end == WaitStatus::Exited(child, 0) { 0 } else { 1 });
            }
            Err(error) => {
                let failure = cannot(START, &error);
                while let Some(ends) = message::receive_ends(&control)? {
                    refuse(&ends, failure.clone());
                }
                return Ok(());
            }
        }
    }
    rustix::process::umask(Mode::empty());
    let processes = File::open("/proc/self/ns/pid")?;
    let server = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut networks = Networks::default();
    loop {
        let (taken, take) = pipe_with(PipeFlags::CLOEXEC)?;
        match networks.any().and_then(|network| Ok((fork_worker(&processes)?, network))) {
            Ok((ForkResult::Parent { child }, network)) => {
                networks.lent.insert(child, network);
                drop(take);
                if !wait_until_taken(&taken, &control)? {
                    return Ok(());
                }
            }
            Ok((ForkResult::Child, network)) => {
                drop(taken);
                let worked = work(&server, control, take, network, catalog);
                // What it owns may be closed already.
                std::process::exit(if worked.is_ok_and(|unchanged| unchanged) { 0 } else { 1 });
            }
            Err(error) => {
                let Some(ends) = message::receive_ends(&control)? else { return Ok(()) };
                refuse(&ends, cannot(START, &error));
            }
        }
        reap(&mut networks)?;
    }
}

/// Forks a child that goes on in namespaces that belong to this user namespace: who is root only here could leave the
/// machine's for new ones, and not come back as the server does for each worker.
fn leave_namespaces() -> io::Result<ForkResult> {
    unshare(NAMESPACES)?;
    #[expect(unsafe_code, reason = "the first process of the new namespace must be a child")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() };
    Ok(forked?)
}

/// The networks that workers have, and those that are free.
#[derive(Default)]
struct Networks {
    free: Vec<Network>,
    lent: HashMap<Pid, Network>,
}

impl Networks {
    /// One that nothing is in.
    fn any(&mut self) -> io::Result<Network> {
        self.free.pop().map_or_else(Network::make, Ok)
    }

    /// Takes back that of a worker, all of whose processes are gone.
    fn take_back(&mut self, worker: Pid, unchanged: bool) -> io::Result<()> {
        let network = self.lent.remove(&worker);
        if let Some(network) = network
            && unchanged
            && network.is_unused()?
        {
            self.free.push(network);
        }
        Ok(())
    }
}

/// Waits until a worker has got its stage or has ended; false when the other side of the socket is gone.
fn wait_until_taken(taken: &OwnedFd, control: &OwnedFd) -> io::Result<bool> {
    loop {
        // Not for what can be read from the socket: that is for the worker.
        let mut polled = [PollFd::new(taken, PollFlags::IN), PollFd::new(control, PollFlags::empty())];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                return Ok(polled[1].revents().is_empty());
            }
        }
    }
}

/// Answers for a worker that there cannot be.
fn refuse(ends: &StageEnds, failure: StageFailure) {
    // Without a reader nobody needs it.
    message::send_descriptor(&ends.socket, None).ok();
    let reply = StageReply::failed(failure);
    message::send(&ends.socket, &StageMessage::Reply(Box::new(reply))).ok();
}

/// The failure of a stage for which this could not be done.
fn cannot(act: &str, error: &io::Error) -> StageFailure {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied { "; stages need root" } else { "" };
    StageFailure::environment(format!("cannot {act}: {error}{hint}"), error)
}

/// What a worker is forked for.
const START: &str = "start the stage's process";

/// The socket on standard input, which what is executed from here shall not inherit.
fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(null)?;
    Ok(socket)
}

/// Waits for the workers that have ended.
fn reap(networks: &mut Networks) -> io::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
            Ok(WaitStatus::Exited(worker, code)) => networks.take_back(worker, code == 0)?,
            Ok(WaitStatus::Signaled(worker, ..)) => networks.take_back(worker, false)?,
            other => drop(other?),
        }
    }
}

/// Forks a worker into a new pid namespace; `processes` is the caller's own.
fn fork_worker(processes: &File) -> io::Result<ForkResult> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    #[expect(unsafe_code, reason = "the first process of the new namespace must be a child")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() };
    if !matches!(forked, Ok(ForkResult::Child)) {
        // The next child shall be the first of another one, which only who is in its own can make.
        setns(processes, CloneFlags::CLONE_NEWPID)?;
    }
    Ok(forked?)
}

/// All that happens in a worker; returns whether its stage had no right to change the network. `take` is dropped when
/// it has got a stage.
fn work(server: &OwnedFd, control: OwnedFd, take: OwnedFd, network: Network, catalog: &Catalog) -> io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The server may have died before its death could be noticed.
    let mut polled = [PollFd::new(server, PollFlags::IN)];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    rustix::process::setsid()?;
    // The stage runs in the same pid namespace and shall not look into this process, which still sees the host.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let isolation = Isolation::make(network).and_then(|isolation| stage::leave_mounts().map(|()| isolation));

    let Some(ends) = message::receive_ends(&control)? else { return Ok(true) };
    // osbc detects the server's death by the end of this socket.
    drop(control);
    drop(take);
    nix::unistd::dup2_stdout(&ends.output)?;
    nix::unistd::dup2_stderr(&ends.output)?;
    let isolation = match isolation {
        Ok(isolation) => isolation,
        Err(error) => {
            refuse(&ends, cannot("make namespaces for the stage", &error));
            return Ok(true);
        }
    };
    message::send_descriptor(&ends.socket, Some(this.as_fd()))?;
    drop(this);
    let request: StageRequest = message::receive(&ends.socket)?;
    if let Some((name, epoch)) = stage::epoch_variable(request.source_epoch) {
        #[expect(unsafe_code, reason = "what the stage starts inherits the environment")]
        // SAFETY: this process has a single thread.
        unsafe {
            std::env::set_var(name, epoch);
        }
    }
    let reply = catch_unwind(AssertUnwindSafe(|| match request.in_vm {
        true => vm::run(&request, &ends.socket),
        false => stage::run_stage(&request, catalog, &isolation, &ends.socket),
    }));
    let reply = reply.unwrap_or_else(|_| {
        StageReply::failed(StageFailure::Environment("a bug in the preparation of the stage; see its output".into()))
    });
    let sent = message::send(&ends.socket, &StageMessage::Reply(Box::new(reply)));
    // Nor may this be dropped, if the stage ran in this process.
    std::mem::forget((isolation, ends.output));
    sent.map(|()| request.capabilities.is_empty())
}
