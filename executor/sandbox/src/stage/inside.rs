//! The stage itself: enters the sandbox, gives up its rights, and calls the module or executes it.
//!
//! Where nothing has to be taken down afterwards, the process that prepared does that itself, and its end is that of
//! everything that the stage left running. Otherwise the stage is a process of its own. Where programs run on the
//! host's side, it is the first process of a pid namespace below theirs, which it neither sees nor reaches, and which
//! ends with it. What it returns lies in memory shared with the process that prepared it, so that nothing it leaves
//! running can hold up the answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use osbc_ir::Resource;
use osbc_module_api::{Error, Kind, OpenDevice, STAGE_UMASK, StageContext, StageMeta, Tree, Value};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::mount::UnmountFlags;
use rustix::process::{DumpableBehavior, PidfdFlags, pidfd_open};

use super::confine::{Syncs, TreeKind, Who};
use super::mounts::StageMounts;
use super::supervise::Supervisor;
use super::{Isolation, Job, arguments, confine, full, lock, message, on_disk, root, shell, spec, sys};
use crate::request::{ShellMoment, StageFailure, StageMessage, StageReply, StageRequest, lacked_task};

/// A directory on the file system in memory that a stage has for its temporary files.
const MEMORY: &str = "/tmp";

/// Runs the stage in the sandbox.
///
/// Afterwards nothing that it started is alive, or this process is itself in the sandbox and can do no more than send
/// the reply to `client` and end.
pub(crate) fn run(
    request: &StageRequest,
    job: &Job<'_>,
    around: &mut StageMounts<'_>,
    isolation: &Isolation,
    client: &UnixStream,
) -> StageReply {
    let has_arguments = request.shell.is_some() || matches!(job, Job::Execute(_));
    let write_arguments = || if has_arguments { arguments::write(request, around) } else { Ok(()) };
    let ran = require_single_thread().and_then(|()| write_arguments()).and_then(|()| match job {
        Job::Call(..) if !around.has_to_close() => run_here(request, job, around, isolation, client),
        _ => start_and_wait(request, job, around, isolation),
    });
    ran.unwrap_or_else(|error| {
        StageReply::failed(StageFailure::environment(format!("cannot run the stage's process: {error}"), &error))
    })
}

fn run_here(
    request: &StageRequest,
    job: &Job<'_>,
    around: &mut StageMounts<'_>,
    isolation: &Isolation,
    client: &UnixStream,
) -> io::Result<StageReply> {
    let shell = request.shell.as_ref().map(shell::connect).transpose()?;
    let ends = Ends { answer: client.as_fd(), shell: shell.as_ref(), supervisor: None };
    let mut reply = inside(request, job, around, isolation, &ends);
    let (own, children) = (used(UsageWho::RUSAGE_SELF), used(UsageWho::RUSAGE_CHILDREN));
    reply.written = own.0.zip(children.0).map(|(own, children)| own + children);
    reply.memory = own.1.max(children.1);
    Ok(reply)
}

fn start_and_wait(
    request: &StageRequest,
    job: &Job<'_>,
    around: &mut StageMounts<'_>,
    isolation: &Isolation,
) -> io::Result<StageReply> {
    if let Job::Execute(module) = job {
        on_disk::prepare(request, module, around)?;
    }
    let watched = tree_kind(request) == TreeKind::Layers;
    let served = matches!(job, Job::Execute(_)) || around.host.has_services() || watched;
    if served {
        unshare(CloneFlags::CLONE_NEWPID)?;
    }
    let shell = request.shell.as_ref().map(shell::connect).transpose()?;
    let answer = File::from(memfd_create("answer", MemfdFlags::CLOEXEC)?);
    let (supervisor, supervised) = UnixStream::pair()?;
    // What is in the buffer would be written twice.
    io::stdout().flush()?;
    #[expect(unsafe_code, reason = "the stage is called, not executed")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Child => {
            // Its mounts are taken down by the other process, which must go on seeing them.
            let own = unshare(CloneFlags::CLONE_NEWNS);
            let reply = match own {
                Ok(()) => {
                    let supervisor = Some(&supervised);
                    let ends = Ends { answer: answer.as_fd(), shell: shell.as_ref(), supervisor };
                    inside(request, job, around, isolation, &ends)
                }
                Err(error) => StageReply::failed(cannot_enter(&error.into())),
            };
            let written = message::send(&answer, &reply);
            std::process::exit(if written.is_ok() { 0 } else { 1 });
        }
        ForkResult::Parent { child } => {
            // The end of the stage's process shall be the end of the connection.
            drop((shell, supervised));
            if let Some(listener) = message::receive_descriptor(&supervisor)? {
                let supervisor = Supervisor::new(listener, handle_on(child)?)?;
                around.host.supervise(handle_on(child)?, supervisor);
            }
            let status = if served { wait_and_serve(child, around)? } else { wait_for_all(child)? };
            let mut answer = answer;
            answer.rewind()?;
            let reply = message::receive(&answer);
            let mut reply = reply.unwrap_or_else(|_| StageReply::failed(StageFailure::Died(describe_end(status))));
            if let Job::Execute(_) = job {
                on_disk::complete(&mut reply, around);
            }
            if around.host.needs_plain_tree() {
                reply.failure = Some(StageFailure::NeedsPlainTree);
            }
            (reply.written, reply.memory) = used(UsageWho::RUSAGE_CHILDREN);
            Ok(reply)
        }
    }
}

/// How many bytes this process, or its children as far as all of them were waited for, wrote to disks, and the most
/// memory that one of them had.
fn used(by: UsageWho) -> (Option<u64>, Option<u64>) {
    let Ok(usage) = getrusage(by) else { return (None, None) };
    // In blocks of 512 bytes, whatever the file system's are; and in kilobytes.
    let bytes = |count: i64, unit: u64| u64::try_from(count).ok()?.checked_mul(unit);
    (bytes(usage.block_writes(), 512), bytes(usage.max_rss(), 1024))
}

/// What enters the sandbox may have no other thread; and a child is a copy of the calling thread alone, where a lock
/// that another one holds would stay locked forever.
fn require_single_thread() -> io::Result<()> {
    // A directory has a link from its parent, from itself, and from each directory in it.
    let links = std::fs::metadata("/proc/self/task")?.nlink();
    if links == 3 { Ok(()) } else { Err(io::Error::other("an input, device or mount left a thread running")) }
}

/// Waits for the stage, with which all that it started ends, and serves it and the services meanwhile.
fn wait_and_serve(stage: Pid, around: &mut StageMounts<'_>) -> io::Result<WaitStatus> {
    around.host.wait(handle_on(stage)?)?;
    Ok(waitpid(stage, None)?)
}

fn handle_on(process: Pid) -> io::Result<OwnedFd> {
    let process = rustix::process::Pid::from_raw(process.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(process, PidfdFlags::empty())?)
}

/// Waits for the stage, then ends all that it left running and waits for that too.
fn wait_for_all(stage: Pid) -> io::Result<WaitStatus> {
    let mut end = None;
    while end.is_none() {
        let status = waitpid(None, None)?;
        end = Some(status).filter(|status| status.pid() == Some(stage));
    }
    // As the first process of a pid namespace this one reaches what is in there; elsewhere it would reach everything.
    if std::process::id() != 1 {
        return Err(io::Error::other("not the first process of a pid namespace"));
    }
    kill(Pid::from_raw(-1), Signal::SIGKILL).or_else(ignore(nix::Error::ESRCH))?;
    while waitpid(None, None).map(|_| true).or_else(ignore(nix::Error::ECHILD))? {}
    end.ok_or_else(|| io::Error::other("the stage's process was lost"))
}

fn ignore<T: Default>(expected: nix::Error) -> impl FnOnce(nix::Error) -> Result<T, nix::Error> {
    move |error| if error == expected { Ok(T::default()) } else { Err(error) }
}

fn describe_end(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(_, signal, _) => format!("the stage's process was ended by {signal}"),
        WaitStatus::Exited(_, code) => format!("the stage's process ended itself with {code} before it was done"),
        other => format!("the stage's process ended unexpectedly: {other:?}"),
    }
}

/// What the stage's process keeps open of what it was started with.
struct Ends<'a> {
    /// Where its reply will go.
    answer: BorrowedFd<'a>,
    shell: Option<&'a UnixStream>,
    /// Who answers for its mounts; `None` if the process that prepared it is the same.
    supervisor: Option<&'a UnixStream>,
}

/// All that happens in the stage's process, which has a mount namespace of its own.
fn inside(
    request: &StageRequest,
    job: &Job<'_>,
    around: &mut StageMounts<'_>,
    isolation: &Isolation,
    ends: &Ends<'_>,
) -> StageReply {
    let shell = ends.shell;
    let kept: Vec<_> =
        std::iter::once(ends.answer).chain([shell, ends.supervisor].into_iter().flatten().map(AsFd::as_fd)).collect();
    let prepared = isolation
        .join()
        .map(|()| devices(request, around))
        // What else is open is the helper's; this process ends before the owners of that notice.
        .and_then(|devices| sys::close_descriptors(&kept).map(|()| devices))
        .and_then(|devices| enter(&around.root, request, job, ends).map(|()| devices))
        .and_then(|devices| context(request, job, around, devices));
    let context = match prepared {
        Ok(context) => context,
        Err(error) => return StageReply::failed(cannot_enter(&error)),
    };
    let run = || match job {
        Job::Call(function, _) => call(*function, &context),
        Job::Execute(module) => on_disk::execute(request, module),
    };
    let moment = request.shell.as_ref().map(|shell| shell.moment);
    let failure = match (moment, shell) {
        (Some(ShellMoment::Instead), _) => {
            Some(StageFailure::Module("not run: there was a shell in its place".to_owned()))
        }
        (Some(ShellMoment::Before), Some(shell)) => stopped_by(shell, request, &context).or_else(run),
        _ => run(),
    };
    if let (Some(shell), Some(failure)) = (shell, &failure)
        && moment != Some(ShellMoment::Before)
        && let Err(error) = shell::run(shell, request, &context, Some(failure))
    {
        // It goes to the stage's log; there is nowhere else.
        writeln!(io::stderr(), "osbc: the shell was cut off: {error}").ok();
    }
    StageReply { metadata: context.metadata.take(), failure, hint: None, exception: None, written: None, memory: None }
}

/// Runs a shell before the module, and returns why that is not to run, if so.
fn stopped_by(shell: &UnixStream, request: &StageRequest, context: &StageContext) -> Option<StageFailure> {
    match shell::run(shell, request, context, None) {
        Ok(0) => None,
        Ok(code) => Some(StageFailure::Module(format!("not run: the shell before it ended with exit status {code}"))),
        Err(error) => Some(StageFailure::Environment(format!("not run: the shell before it was cut off: {error}"))),
    }
}

fn cannot_enter(error: &io::Error) -> StageFailure {
    StageFailure::environment(format!("cannot enter the sandbox: {error}"), error)
}

/// Calls the module and returns why it failed, if it did.
fn call(function: fn(&StageContext) -> Result<(), Error>, context: &StageContext) -> Option<StageFailure> {
    let called = catch_unwind(AssertUnwindSafe(|| {
        // Its own files in /proc are a built-in module's to use.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(Error::io("set up", "/proc"))?;
        function(context)
    }));
    match called {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(failed(&error, context)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref().copied()).unwrap_or("no reason given");
            Some(StageFailure::Module(format!("the module has a bug and panicked: {text}")))
        }
    }
}

/// The failure of a module that gave up.
///
/// No space means the store's disk, unless the stage has a file system of its own that may have been meant: then only
/// what is free shows it.
fn failed(error: &Error, context: &StageContext) -> StageFailure {
    let resource = match error {
        Error::WrongArchitecture { .. } => Some(Resource::Emulator),
        Error::NoThread(_) => Some(Resource::Tasks),
        error if error.is_full() && context.mounts.is_empty() && !full::is_full(Path::new(MEMORY)) => {
            Some(Resource::Disk)
        }
        error if lacked_task(error) => Some(Resource::Tasks),
        _ => None,
    };
    match resource {
        Some(resource) => StageFailure::Exhausted(resource, error.to_string()),
        None => StageFailure::Module(error.to_string()),
    }
}

/// What the stage's tree is, as far as it is to be watched: who works in a shell sees what overlayfs refuses.
fn tree_kind(request: &StageRequest) -> TreeKind {
    let is_layered = request.tree.upper.is_some() && !request.tree.lower.is_empty();
    if is_layered && request.shell.is_none() { TreeKind::Layers } else { TreeKind::Plain }
}

/// Enters the sandbox of a stage, whose root is at `root`, and reports to the supervisor that it has.
fn enter(root: &Path, request: &StageRequest, job: &Job<'_>, ends: &Ends<'_>) -> io::Result<()> {
    root::mount_views(root).map_err(io::Error::other)?;
    let who = match job {
        Job::Call(..) => Who::BuiltIn,
        Job::Execute(_) => Who::OnDisk,
    };
    if who == Who::OnDisk {
        root::settle_devices(root).map_err(io::Error::other)?;
    }
    // The old root comes to lie on the new one and is taken away: no host is left in this mount namespace.
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    if who == Who::OnDisk {
        lock::lock_mounts()?;
    }
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(STAGE_UMASK));
    // What others see of a device or a file system on one may have to be on it; assemblers make devices themselves.
    let is_stage = request.module.kind == Kind::Stage;
    let tree_alone = is_stage && request.devices.is_empty() && request.mounts.is_empty();
    let syncs = if tree_alone { Syncs::Pass } else { Syncs::Wait };
    let listener = confine::confine(&request.capabilities, syncs, tree_kind(request), who)?;
    match (ends.supervisor, listener) {
        (Some(supervisor), listener) => message::send_descriptor(supervisor, listener.as_ref().map(AsFd::as_fd)),
        (None, Some(listener)) => message::send_with(ends.answer, &StageMessage::Watch, listener.as_fd()),
        (None, None) => Ok(()),
    }
}

/// The devices as the stage sees them. The handles that keep them open stay with the process that closes them.
fn devices(request: &StageRequest, around: &mut StageMounts<'_>) -> BTreeMap<String, OpenDevice> {
    let devices = request.devices.iter().zip(around.devices.drain(..)).map(|(device, opened)| {
        let path = Path::new(spec::DEVICES).join(opened.path);
        (device.name.clone(), OpenDevice { path, data: opened.data, keep: Vec::new() })
    });
    devices.collect()
}

/// What the module is handed.
fn context(
    request: &StageRequest,
    job: &Job<'_>,
    around: &mut StageMounts<'_>,
    devices: BTreeMap<String, OpenDevice>,
) -> io::Result<StageContext> {
    Ok(StageContext {
        tree: Tree::open(spec::TREE).map_err(io::Error::other)?,
        options: request.options.clone(),
        requires: match job {
            Job::Call(_, requires) => requires,
            Job::Execute(_) => &[],
        },
        inputs: std::mem::take(&mut around.inputs),
        devices,
        mounts: std::mem::take(&mut around.mounts),
        meta: StageMeta { id: request.id.clone(), source_epoch: request.source_epoch },
        metadata: RefCell::new(Value::Null),
    })
}
