//! An on-disk stage: what it finds in the sandbox besides what every stage finds, its execution, and what it leaves.
//!
//! ```text
//! /run/osbuild/
//!   bin/<module>  runner/<runner>       programs, as they are on the host
//!   lib/  lib/osbuild/                  the directory of modules, and the Python library
//!   api/arguments                       what it is to do ([`super::arguments`])
//!   api/osbuild  api/remoteloop         where it reports an exception and asks for loop devices
//!   meta                                where it writes its metadata
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use osbc_module_api::{OnDisk, Value};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::mounts::StageMounts;
use super::root::{self, make_directory};
use super::{spec, sys};
use crate::request::{StageFailure, StageReply, StageRequest};

/// The directory of a directory of modules that holds the Python library.
const PACKAGE: &str = "osbuild";
/// The most that is read of the metadata that a module wrote.
const MOST_METADATA: u64 = 64 << 20;

/// Makes in the sandbox's root what an on-disk stage needs. To be called before the sandbox is entered.
///
/// # Errors
/// A file of the module is missing, or the kernel refuses.
pub(crate) fn prepare(request: &StageRequest, module: &OnDisk, around: &mut StageMounts<'_>) -> io::Result<()> {
    let place = |path: &str| around.root.join(path.trim_start_matches('/'));
    show(&module.file, &place(spec::BIN).join(&request.module.name))?;
    if let Some(runner) = &request.runner_file {
        show(runner, &place(spec::RUNNER).join(&request.runner))?;
    }
    let lib = place(spec::LIB);
    make_directory(&lib, 0o755).map_err(io::Error::other)?;
    show(&module.libdir, &lib)?;
    if let Some(package) = &module.package
        && !package.starts_with(&module.libdir)
    {
        show(package, &lib.join(PACKAGE)).map_err(|error| {
            let reason =
                format!("{error}; the directory of modules needs an empty directory `{PACKAGE}` for the library");
            io::Error::new(error.kind(), reason)
        })?;
    }
    make_directory(&place(spec::API), 0o755).map_err(io::Error::other)?;
    around.own = Some(root::open(&place(spec::OWN)).map_err(io::Error::other)?);
    let root = around.root.clone();
    around.host.listen(&root)
}

/// Makes a file or directory of the host visible, read-only.
fn show(from: &Path, at: &Path) -> io::Result<()> {
    let found = root::open(from).map_err(io::Error::other)?;
    if from.is_dir() {
        root::bind(found, at, sys::READ_ONLY).map_err(io::Error::other)
    } else {
        if let Some(directory) = at.parent() {
            make_directory(directory, 0o755).map_err(io::Error::other)?;
        }
        File::create(at)?;
        root::bind(found, at, sys::READ_ONLY).map_err(io::Error::other)
    }
}

/// Executes the module and waits for its end; all that it left running ends with the calling process, the first one of
/// its pid namespace.
///
/// To be called in the sandbox.
pub(crate) fn execute(request: &StageRequest, module: &OnDisk) -> Option<StageFailure> {
    let program = Path::new(spec::BIN).join(&request.module.name);
    let runner = request.runner_file.as_ref().map(|_| Path::new(spec::RUNNER).join(&request.runner));
    let mut command = match &runner {
        None => Command::new(&program),
        Some(runner) => Command::new(runner),
    };
    if runner.is_some() {
        command.arg(&program);
    }
    // A session of its own: a signal to its group reaches nobody else.
    let started = nix::unistd::setsid().map_err(io::Error::from).and_then(|_| command.stdin(Stdio::null()).spawn());
    let child = match started {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => return Some(StageFailure::environment(not_started(&command, module, &error), &error)),
    };
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, 0)) if pid == child => return None,
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Some(StageFailure::Exited(code));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Some(StageFailure::Died(format!("its process was ended by {signal}")));
            }
            // A process that it left behind.
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Some(StageFailure::Died(format!("its process was lost: {error}"))),
        }
    }
}

fn not_started(command: &Command, module: &OnDisk, error: &io::Error) -> String {
    let mut reason = format!("cannot start {}: {error}", command.get_program().display());
    let interpreter = File::open(command.get_program()).ok().and_then(|file| {
        let mut line = String::new();
        BufReader::new(file.take(256)).read_line(&mut line).ok()?;
        let interpreter = line.strip_prefix("#!")?.split_whitespace().next()?.to_owned();
        (!Path::new(&interpreter).exists()).then_some(interpreter)
    });
    match (interpreter, error.kind()) {
        (Some(interpreter), _) => reason.push_str(&format!("; the build root has no {interpreter}")),
        (None, io::ErrorKind::PermissionDenied) => {
            reason.push_str(&format!("; {} may not be executable", module.file.display()));
        }
        _ => {}
    }
    reason
}

/// Puts to the reply what an on-disk stage left besides its exit status: the metadata that it wrote, the exception that
/// it reported.
pub(crate) fn complete(reply: &mut StageReply, around: &StageMounts<'_>) {
    match metadata(around.own.as_ref()) {
        Ok(metadata) => reply.metadata = metadata,
        Err(reason) if reply.failure.is_none() => reply.failure = Some(StageFailure::Module(reason)),
        // Why it failed says more.
        Err(_) => {}
    }
    reply.exception = around.host.exception();
    if let (Some(exception), Some(StageFailure::Exited(_))) = (&reply.exception, &reply.failure) {
        let text = |name: &str| exception.get(name).and_then(Value::as_str).unwrap_or_default();
        reply.failure = Some(StageFailure::Module(format!("{}: {}", text("type"), text("value"))));
    }
}

/// The metadata that a module wrote in the sandbox's own directory, opened before the module ran; `null` when none.
fn metadata(directory: Option<&OwnedFd>) -> Result<Value, String> {
    // The module may have put anything there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mut text = Vec::new();
    let read = directory.ok_or(io::ErrorKind::NotFound.into()).and_then(|directory| {
        let file = File::from(openat2(directory, spec::META, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file any more"));
        }
        file.take(MOST_METADATA).read_to_end(&mut text)
    });
    read.map_err(|error| format!("cannot read the metadata that it wrote: {error}"))?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&text).map_err(|error| format!("the metadata that it wrote is no JSON: {error}"))
}
