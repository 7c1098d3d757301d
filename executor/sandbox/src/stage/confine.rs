//! Takes rights away from the process that runs a stage: capabilities, the gain of privileges by executing, and
//! system calls (`calls`).
//!
//! `no_new_privs` always holds, as in the reference implementation: everything in the sandbox is mounted without
//! setuid, so nothing that a stage runs could gain anything but by a transition of a security module.
//!
//! Where a stage writes to nothing but its tree, calls that wait for the disk do nothing: whether a result has reached it is
//! the store's concern, which waits once for many.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use caps::{CapSet, Capability};
use osbc_module_api::container::LAST_CALL;
use osbc_module_api::system_calls::Filter;
use rustix::io::Errno;

use super::{calls, spec};

/// What calls that wait for the disk do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// They wait.
    Wait,
    /// Nothing, successfully.
    Pass,
}

/// What a stage's tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeKind {
    /// A directory.
    Plain,
    /// Layers of overlayfs, which cannot hold everything.
    Layers,
}

/// Who is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A function of ours, which is called.
    BuiltIn,
    /// A program, which is executed.
    OnDisk,
}

/// Confines the calling process, for good: it has a single thread. Returns the listener at which the mounts of a program
/// are answered, and what no layer can hold is noticed; `None` if there is neither.
///
/// # Errors
/// A capability is unknown, or the kernel refuses.
pub(crate) fn confine(
    more_capabilities: &[String],
    syncs: Syncs,
    tree: TreeKind,
    who: Who,
) -> io::Result<Option<OwnedFd>> {
    let wanted = spec::capabilities(more_capabilities)
        .map_err(|name| io::Error::new(io::ErrorKind::InvalidInput, format!("there is no capability {name}")))?;
    leave_keys()?;
    rustix::thread::set_no_new_privs(true)?;
    let listener = match who {
        Who::BuiltIn => filter_built_in(syncs, tree)?,
        Who::OnDisk => Some(Filter::new(&calls::of_on_disk(syncs, tree), Some(LAST_CALL)).apply_with_listener()?),
    };
    keep_capabilities(&wanted).map_err(io::Error::other)?;
    Ok(listener)
}

/// Filters the calls of a function of ours; returns the listener, where one is wanted and can be had.
fn filter_built_in(syncs: Syncs, tree: TreeKind) -> io::Result<Option<OwnedFd>> {
    let filter = |tree| Filter::new(&calls::of_built_in(syncs, tree), None);
    if tree == TreeKind::Layers {
        match filter(tree).apply_with_listener() {
            // A container whose own filter has a listener: overlayfs refuses what it cannot hold, and nobody notices.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            listener => return listener.map(Some),
        }
    }
    filter(TreeKind::Plain).apply().map(|()| None)
}

/// Leaves the keys of the host's session for none.
fn leave_keys() -> io::Result<()> {
    /// Of <linux/keyctl.h>.
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    #[expect(unsafe_code, reason = "no dependency wraps keyctl")]
    // SAFETY: without a name the call reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match result {
        // A kernel without keys, or a container whose own filter refuses them.
        -1 => match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(Errno::NOSYS | Errno::PERM) => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        _ => Ok(()),
    }
}

/// Keeps of its capabilities those wanted: a container's root may lack some of them from the start.
pub(crate) fn keep_capabilities(wanted: &HashSet<Capability>) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    for capability in caps::all().difference(wanted) {
        // One that is not in the set is none that the kernel knows, or gone already.
        if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let kept: HashSet<Capability> = permitted.intersection(wanted).copied().collect();
    // Inheritable last: it may not hold more than the bounding set, and dropping there needs CAP_SETPCAP.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Inheritable, &kept)
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use osbc_module_api::system_calls::{Rule, Verdict, When};

    use super::*;

    /// Filters a child as a container with a listener may be, then as a stage; returns whether that has a listener.
    fn has_listener(within_container: bool) -> io::Result<bool> {
        let ask = Rule { call: "acct", when: When::Always, verdict: Verdict::Ask };
        let (outer, number) = (Filter::new(&[ask], None), |listener: bool| if listener { 1 } else { 2 });
        #[expect(unsafe_code, reason = "a filter cannot be taken off again")]
        // SAFETY: the child makes system calls and allocates; another test's thread that holds the allocator's lock
        // would make it hang, which the allocator's own handlers around fork prevent.
        let forked = unsafe { fork() }?;
        match forked {
            ForkResult::Child => {
                let filtered = || {
                    rustix::thread::set_no_new_privs(true)?;
                    let _listener = within_container.then(|| outer.apply_with_listener()).transpose()?;
                    filter_built_in(Syncs::Pass, TreeKind::Layers)
                };
                let code = filtered().map_or(3, |listener| number(listener.is_some()));
                #[expect(unsafe_code, reason = "what the test's process has open is not the child's")]
                // SAFETY: it ends here.
                unsafe {
                    libc::_exit(code)
                }
            }
            ForkResult::Parent { child } => match waitpid(child, None)? {
                WaitStatus::Exited(_, code @ (1 | 2)) => Ok(code == 1),
                other => Err(io::Error::other(format!("{other:?}"))),
            },
        }
    }

    #[test]
    fn a_stage_in_a_container_that_has_a_listener_does_without_one() {
        assert!(has_listener(false).expect("is filtered"));
        assert!(!has_listener(true).expect("is filtered"));
    }
}
