//! Takes rights away from the process that runs a stage: capabilities, the gain of privileges by executing, and
//! system calls that act on the whole machine.
//!
//! `no_new_privs` always holds, as in the reference implementation: everything in the sandbox is mounted without
//! setuid, so nothing that a stage runs could gain anything but by a transition of a security module.
//!
//! The filter is the second line behind the capabilities. It forbids what stays possible with `CAP_SYS_ADMIN`, and what
//! a module might get by asking for more: loading kernels, modules and BPF programs, opening files by handle (which
//! reaches around mount namespaces), swap, clocks, rebooting. What stages do need (mount, chroot, mknod, unshare,
//! keyctl for LUKS) stays. The kernel's second table of system calls is filtered too, since 32-bit trees run their
//! own programs.
//!
//! Where a stage writes to nothing but its tree, calls that wait for the disk do nothing: whether a result has reached it is
//! the store's concern, which waits once for many.

use std::collections::HashSet;
use std::io;

use caps::{CapSet, Capability};
use osbc_module_api::system_calls::{Filter, Rule, Verdict, When};
use rustix::io::Errno;

use super::spec;

/// What calls that wait for the disk do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// They wait.
    Wait,
    /// Nothing, successfully.
    Pass,
}

/// Confines the calling process, for good: it has a single thread.
///
/// # Errors
/// A capability is unknown, or the kernel refuses.
pub(crate) fn confine(more_capabilities: &[String], syncs: Syncs) -> io::Result<()> {
    let wanted = spec::capabilities(more_capabilities)
        .map_err(|name| io::Error::new(io::ErrorKind::InvalidInput, format!("there is no capability {name}")))?;
    rustix::thread::set_no_new_privs(true)?;
    Filter::new(&rules(syncs), None).apply()?;
    keep_capabilities(&wanted).map_err(io::Error::other)
}

/// Keeps of its capabilities those wanted: a container's root may lack some of them from the start.
fn keep_capabilities(wanted: &HashSet<Capability>) -> Result<(), caps::errors::CapsError> {
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

/// What no stage may do, whatever its capabilities are.
const FORBIDDEN: &[&str] = &[
    "acct",
    "bpf",
    "clock_settime",
    "clock_settime64",
    "delete_module",
    "finit_module",
    "init_module",
    "kexec_file_load",
    "kexec_load",
    "open_by_handle_at",
    "perf_event_open",
    "reboot",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
];

/// The calls that wait for the disk. `msync` is none of them, since it says whether memory is mapped, too.
const SYNCS: &[&str] = &["fdatasync", "fsync", "sync", "sync_file_range", "syncfs"];

/// Returns the rules of a stage.
fn rules(syncs: Syncs) -> Vec<Rule> {
    let rule = |verdict| move |call: &&'static str| Rule { call, when: When::Always, verdict };
    let skipped = if syncs == Syncs::Pass { SYNCS } else { &[] };
    let refused = FORBIDDEN.iter().map(rule(Verdict::Refuse(Errno::PERM)));
    refused.chain(skipped.iter().map(rule(Verdict::Skip))).collect()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::system_calls::is_known;

    use super::*;

    #[test]
    fn every_call_is_known() {
        assert!(FORBIDDEN.iter().chain(SYNCS).all(|name| is_known(name)));
        assert_eq!(rules(Syncs::Pass).len(), rules(Syncs::Wait).len() + SYNCS.len());
    }

    #[test]
    fn what_stages_need_is_allowed() {
        for needed in ["mount", "umount2", "chroot", "mknodat", "unshare", "keyctl"] {
            assert!(rules(Syncs::Pass).iter().all(|rule| rule.call != needed), "{needed}");
        }
    }
}
