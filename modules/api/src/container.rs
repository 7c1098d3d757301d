//! The container profile: the defaults of podman and docker, as data.
//!
//! These are capabilities, devices, the hidden and read-only parts of `/proc` and `/sys`, and the refused system calls.
//!
//! Makes no system call.
//!
//! The facts are those of containers/common (`pkg/config/default.go`, `pkg/seccomp/seccomp.json`, August 2025) and of
//! the OCI runtime specification. Where the two runtimes differ, podman's stricter value is taken.

use rustix::io::Errno;

use crate::system_calls::{Rule, Verdict, When};

/// The capabilities of a container's root.
pub const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The character devices in `/dev`, with their major and minor numbers.
///
/// Besides there are [`DEVICE_LINKS`], an own `devpts` at `/dev/pts`, and memory at `/dev/shm`.
pub const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links in `/dev` and their targets.
pub const DEVICE_LINKS: [(&str, &str); 5] =
    [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")];

/// The hidden parts of `/proc` and `/sys`: covered by an empty read-only directory, or by `/dev/null` for a file.
pub const HIDDEN: [&str; 13] = [
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// The read-only parts of `/proc`. All of `/sys` is read-only.
pub const READ_ONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The last system call by number that the profile knows; what is newer does not exist for a container.
pub const LAST_CALL: u32 = 452;

/// The system calls that a container may not make without further capabilities.
///
/// Calls that the kernel itself no longer has are left out. Calls such as `mount`, `setns` and `bpf` with a capability
/// that [`CAPABILITIES`] lacks are the kernel's to refuse where the profile leaves them to it.
pub const REFUSED: &[Rule] = &[
    refused("acct"),
    refused("bpf"),
    refused("cachestat"),
    refused("clock_settime"),
    refused("clock_settime64"),
    refused("delete_module"),
    refused("finit_module"),
    refused("futex_waitv"),
    refused("init_module"),
    refused("io_pgetevents"),
    refused("io_pgetevents_time64"),
    refused("ioperm"),
    refused("iopl"),
    refused("kcmp"),
    refused("kexec_file_load"),
    refused("kexec_load"),
    refused("lookup_dcookie"),
    refused("migrate_pages"),
    refused("move_pages"),
    refused("nfsservctl"),
    refused("open_by_handle_at"),
    refused("perf_event_open"),
    refused("process_madvise"),
    refused("quotactl"),
    refused("quotactl_fd"),
    refused("setdomainname"),
    refused("sethostname"),
    refused("settimeofday"),
    refused("stime"),
    refused("swapoff"),
    refused("swapon"),
    refused("sysfs"),
    refused("uselib"),
    refused("userfaultfd"),
    refused("ustat"),
    refused("vhangup"),
    refused("vm86"),
    refused("vm86old"),
    refused("vmsplice"),
    missing("_sysctl"),
    missing("add_key"),
    missing("io_uring_enter"),
    missing("io_uring_register"),
    missing("io_uring_setup"),
    missing("request_key"),
    missing("set_mempolicy_home_node"),
    // Linux and Linux with 32-bit addresses, each also with a fixed memory layout off, and the question which it is.
    Rule {
        call: "personality",
        when: When::NoneOf(0, &[0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF]),
        verdict: Verdict::Refuse(Errno::NOSYS),
    },
    // NETLINK_AUDIT of AF_NETLINK: whoever finds no audit does without, whoever may not use it fails.
    Rule { call: "socket", when: When::All(&[(0, 16), (2, 9)]), verdict: Verdict::Refuse(Errno::INVAL) },
];

/// A call that the profile refuses.
const fn refused(call: &'static str) -> Rule {
    Rule { call, when: When::Always, verdict: Verdict::Refuse(Errno::PERM) }
}

/// A call that for the profile does not exist.
const fn missing(call: &'static str) -> Rule {
    Rule { call, when: When::Always, verdict: Verdict::Refuse(Errno::NOSYS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_calls::is_known;

    #[test]
    fn every_refused_call_is_known_and_named_once() {
        let mut names: Vec<&str> = REFUSED.iter().map(|rule| rule.call).collect();
        assert!(names.iter().all(|name| is_known(name)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REFUSED.len());
    }

    #[test]
    fn what_decides_over_the_machine_is_not_given() {
        for name in ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_NET_RAW", "CAP_DAC_READ_SEARCH"] {
            assert!(!CAPABILITIES.contains(&name), "{name}");
        }
    }
}
