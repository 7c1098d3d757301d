//! The processes that a build starts of its own executable, called with other arguments.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use osbc_module_api::Catalog;
use osbc_sandbox::client::LocalRunner;
use osbc_sandbox::server::stage_main;
use osbc_sandbox::vm::{GUEST_PROCESS, MODPROBE, guest_main, modprobe_main};
use osbc_store::user_namespace::{Obstacle, enter};

use crate::catalog;

/// The first argument of a process that runs stages; no user types it.
const STAGE_PROCESS: &str = "osbc-stage";

/// Runs as a process that a build has started, if this is one; `None` if it is not.
///
/// A program that builds calls this first of all, before it starts a thread or opens a file, with its own arguments
/// (`std::env::args_os()`), and ends with the exit code that it gets.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    if Path::new(&program).file_name() == Some(OsStr::new(MODPROBE)) {
        return Some(modprobe_main(&arguments.collect::<Vec<_>>()));
    }
    let first = arguments.next()?;
    if first == STAGE_PROCESS {
        return Some(stage_main(&Catalog::new(vec![catalog::builtin()])));
    }
    (first == GUEST_PROCESS).then(|| guest_main(vec![STAGE_PROCESS.into()]))
}

/// Makes an ordinary user root in a user namespace of their own, for good; root stays root.
///
/// Building takes root of one kind or the other. To be called before this process starts a thread.
///
/// # Errors
/// What is in the way; [`Obstacle::remedy`] says what to do about it.
pub fn become_root() -> Result<(), Obstacle> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { enter() }
}

/// Returns what runs stages on this machine; they see `terminal` as `TERM`.
pub(crate) fn local_runner(terminal: &str) -> LocalRunner {
    LocalRunner::new("/proc/self/exe", [STAGE_PROCESS.into()], terminal)
}
