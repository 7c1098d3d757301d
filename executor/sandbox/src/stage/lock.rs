//! Locks the mounts of a sandbox: whoever is in there, `CAP_SYS_ADMIN` or not, can neither make one writable that is
//! read-only nor take one away that hides something.
//!
//! The kernel locks what a user namespace gets from the one above it (mount_namespaces(7)). So a process for the moment
//! enters a user namespace and copies the mounts for it; the stage takes the copy, and its rights stay those that it has.

use std::io;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::process::{PidfdFlags, pidfd_open};

/// Moves the calling process, which has a single thread, into a locked copy of its mounts.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn lock_mounts() -> io::Result<()> {
    #[expect(unsafe_code, reason = "whoever enters a user namespace cannot come back")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let copied =
                unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).and_then(|()| raise(Signal::SIGSTOP));
            std::process::exit(copied.map_or_else(|error| error as i32, |()| 0));
        }
        ForkResult::Parent { child } => {
            let joined = join(child);
            // It may have ended already.
            kill(child, Signal::SIGKILL).ok();
            waitpid(child, None).ok();
            joined
        }
    }
}

fn join(copier: Pid) -> io::Result<()> {
    match waitpid(copier, Some(WaitPidFlag::WUNTRACED))? {
        WaitStatus::Stopped(..) => {}
        WaitStatus::Exited(_, error) => return Err(explained(io::Error::from_raw_os_error(error))),
        other => return Err(io::Error::other(format!("the process that locks the mounts ended: {other:?}"))),
    }
    let copier = rustix::process::Pid::from_raw(copier.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(setns(pidfd_open(copier, PidfdFlags::empty())?, CloneFlags::CLONE_NEWNS)?)
}

fn explained(error: io::Error) -> io::Error {
    let way_out = match error.raw_os_error() {
        Some(libc::ENOSPC) => "; `sysctl user.max_user_namespaces=15000` lets it",
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot lock its mounts, for which it takes a user namespace: {error}{way_out}"),
    )
}
