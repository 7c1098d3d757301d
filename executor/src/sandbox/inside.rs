//! The stage itself: a process of its own that enters the sandbox, gives up its rights, and calls the module. What it
//! returns lies in memory shared with the process that prepared it, so that nothing it leaves running can hold up the
//! answer.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use osbc_module_api::{Error, OpenDevice, StageContext, StageMeta, Tree, Value};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::mount::UnmountFlags;
use rustix::process::DumpableBehavior;

use super::surroundings::Surroundings;
use super::{confine, message, spec, sys};
use crate::request::{StageFailure, StageReply, StageRequest};

type Function = fn(&StageContext) -> Result<(), Error>;

/// Runs the stage's function in the sandbox; afterwards nothing that it started is alive.
pub(super) fn run(request: &StageRequest, function: Function, surroundings: &mut Surroundings) -> StageReply {
    start_and_wait(request, function, surroundings).unwrap_or_else(|error| {
        StageReply::failed(StageFailure::Environment(format!("cannot run the stage's process: {error}")))
    })
}

fn start_and_wait(request: &StageRequest, function: Function, around: &mut Surroundings) -> io::Result<StageReply> {
    require_single_thread()?;
    let answer = File::from(memfd_create("answer", MemfdFlags::CLOEXEC)?);
    // What is in the buffer would be written twice.
    io::stdout().flush()?;
    #[expect(unsafe_code, reason = "the stage is called, not executed")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Child => {
            let reply = inside(request, function, around);
            let written = message::send(&answer, &reply);
            std::process::exit(if written.is_ok() { 0 } else { 1 });
        }
        ForkResult::Parent { child } => {
            let status = wait_for_all(child)?;
            let mut answer = answer;
            answer.rewind()?;
            Ok(message::receive(&answer)
                .unwrap_or_else(|_| StageReply::failed(StageFailure::Died(describe_end(status)))))
        }
    }
}

/// The child is a copy of the calling thread alone; another one might hold a lock that would stay locked there forever.
fn require_single_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other("an input, device or mount left a thread running")) }
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

/// All that happens in the stage's process.
fn inside(request: &StageRequest, function: Function, around: &mut Surroundings) -> StageReply {
    let context = match enter(&around.root, &request.capabilities).and_then(|()| context(request, around)) {
        Ok(context) => context,
        Err(error) => {
            return StageReply::failed(StageFailure::Environment(format!("cannot enter the sandbox: {error}")));
        }
    };
    let failure = match catch_unwind(AssertUnwindSafe(|| function(&context))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(StageFailure::Module(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref().copied()).unwrap_or("no reason given");
            Some(StageFailure::Module(format!("the module has a bug and panicked: {text}")))
        }
    };
    StageReply { metadata: context.metadata.take(), failure }
}

/// Enters the sandbox whose root is at `root`.
fn enter(root: &Path, capabilities: &[String]) -> io::Result<()> {
    let namespaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces)?;
    sys::loopback_up()?;
    rustix::system::sethostname(spec::HOSTNAME.as_bytes())?;
    // The old root comes to lie on the new one and is taken away: no host is left in this mount namespace.
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    confine::confine(capabilities)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

/// What the module is handed. The handles that keep devices open stay with the process that closes them.
fn context(request: &StageRequest, around: &mut Surroundings) -> io::Result<StageContext> {
    let devices = request.devices.iter().zip(around.devices.drain(..)).map(|(device, opened)| {
        let path = Path::new(spec::DEVICES).join(opened.path);
        (device.name.clone(), OpenDevice { path, data: opened.data, keep: Vec::new() })
    });
    Ok(StageContext {
        devices: devices.collect(),
        tree: Tree::open(spec::TREE).map_err(io::Error::other)?,
        options: request.options.clone(),
        inputs: std::mem::take(&mut around.inputs),
        mounts: std::mem::take(&mut around.mounts),
        meta: StageMeta { id: request.id.clone(), source_epoch: request.source_epoch },
        metadata: RefCell::new(Value::Null),
    })
}
