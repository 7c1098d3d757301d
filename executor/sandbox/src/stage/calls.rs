//! Which system calls stages may not make, and why, as data.
//!
//! No stage may do what stays possible with `CAP_SYS_ADMIN` and acts on the whole machine, or what a module might get by
//! asking for more capabilities: loading kernels, modules and BPF programs, opening files by handle (which reaches around
//! mount namespaces), swap, clocks, rebooting. What stages do need (mount, chroot, mknod, unshare, keyctl for LUKS) stays.
//!
//! To a stage that is an on-disk module all is refused besides that a container runtime refuses, and more of what comes with
//! `CAP_SYS_ADMIN`: what acts on a file system as a whole, since those of the host and the store are in its sight; user
//! namespaces; the host's keys; and priorities above those of everybody else. It mounts by `mount(2)` alone, which is answered
//! outside (`supervise`): the newer calls take structures, which no filter can look into, and whoever uses them does without
//! them on older kernels too.

use osbc_module_api::container;
use osbc_module_api::system_calls::{Rule, Verdict, When};
use rustix::io::Errno;

use super::confine::{Syncs, TreeKind};

/// Returns the rules of a stage that is a function of ours.
pub(crate) fn of_built_in(syncs: Syncs, tree: TreeKind) -> Vec<Rule> {
    let skipped = if syncs == Syncs::Pass { SYNCS } else { &[] };
    let whiteouts = if tree == TreeKind::Layers { WHITEOUTS } else { &[] };
    [ALL, skipped, whiteouts].concat()
}

/// Returns the rules of a stage that is a program.
pub(crate) fn of_on_disk(syncs: Syncs, tree: TreeKind) -> Vec<Rule> {
    let of_containers = container::REFUSED.iter().filter(|rule| !OF_THE_CONTRACT.contains(&rule.call));
    of_built_in(syncs, tree).into_iter().chain(ON_DISK.iter().copied()).chain(of_containers.copied()).collect()
}

const fn refused(call: &'static str) -> Rule {
    refused_if(call, When::Always)
}

const fn refused_if(call: &'static str, when: When) -> Rule {
    Rule { call, when, verdict: Verdict::Refuse(Errno::PERM) }
}

const fn missing(call: &'static str) -> Rule {
    Rule { call, when: When::Always, verdict: Verdict::Refuse(Errno::NOSYS) }
}

const fn skipped(call: &'static str) -> Rule {
    Rule { call, when: When::Always, verdict: Verdict::Skip }
}

/// Of every stage.
const ALL: &[Rule] = &[
    refused("acct"),
    refused("bpf"),
    refused("clock_settime"),
    refused("clock_settime64"),
    refused("delete_module"),
    refused("finit_module"),
    refused("init_module"),
    refused("kexec_file_load"),
    refused("kexec_load"),
    refused("open_by_handle_at"),
    refused("perf_event_open"),
    refused("reboot"),
    refused("settimeofday"),
    refused("stime"),
    refused("swapoff"),
    refused("swapon"),
    // Requests to namespaces: NS_MNT_GET_NEXT leads from any mount namespace to those of the host.
    refused_if("ioctl", When::Masked(1, 0xFF00, &[0xB700])),
];

/// Those that wait for the disk. `msync` is none of them, since it says whether memory is mapped, too.
const SYNCS: &[Rule] =
    &[skipped("fdatasync"), skipped("fsync"), skipped("sync"), skipped("sync_file_range"), skipped("syncfs")];

const CHARACTER_DEVICE: (u32, u32) = (libc::S_IFMT, libc::S_IFCHR);

/// Those that make a character device with the number 0, which overlayfs refuses: it marks what is gone by one. Whoever
/// answers has the stage run again, on a plain directory.
const WHITEOUTS: &[Rule] = &[
    asked("mknod", &[(1, CHARACTER_DEVICE.0, CHARACTER_DEVICE.1), (2, u32::MAX, 0)]),
    asked("mknodat", &[(2, CHARACTER_DEVICE.0, CHARACTER_DEVICE.1), (3, u32::MAX, 0)]),
    asked("renameat2", &[(4, libc::RENAME_WHITEOUT, libc::RENAME_WHITEOUT)]),
];

const fn asked(call: &'static str, arguments: &'static [(u8, u32, u32)]) -> Rule {
    Rule { call, when: When::AllMasked(arguments), verdict: Verdict::Ask }
}

/// What a container has to do without, and osbuild's contract gives: keys for LUKS, a host name of the stage's own.
const OF_THE_CONTRACT: [&str; 4] = ["add_key", "request_key", "setdomainname", "sethostname"];

const NEW_USER: u32 = libc::CLONE_NEWUSER.cast_unsigned();
const SIGN: u32 = 1 << 31;
/// `KEY_SPEC_USER_KEYRING`, `KEY_SPEC_USER_SESSION_KEYRING`, `KEY_SPEC_GROUP_KEYRING`: those of the host's root.
const KEYS_OF_THE_HOST: &[u32] = &[u32::MAX - 3, u32::MAX - 4, u32::MAX - 5];

/// Requests (type and number) that act on a file system as a whole, or open its files by handle.
#[rustfmt::skip]
const OF_FILE_SYSTEMS: &[u32] = &[
    // Handles of XFS.
    0x5868, 0x5869, 0x586A, 0x586B, 0x586C, 0x587A, 0x587B,
    // Freezing, trimming, shutting down.
    0x5877, 0x5878, 0x5879, 0x587D,
    // Growing of XFS; growing and the superblock of ext4; growing of f2fs.
    0x586E, 0x586F, 0x5870, 0x6607, 0x6608, 0x6610, 0x662B, 0x662C, 0x662E, 0xF510,
    // Keys of encrypted directories; labels.
    0x6617, 0x6618, 0x6619, 0x9432,
    // Of btrfs: devices and sizes, balancing, scrubbing, quotas, subvolumes by number.
    0x9403, 0x940A, 0x940B, 0x943A, 0x9435, 0x940C, 0x9420, 0x9421, 0x941B, 0x941C, 0x9428, 0x9429, 0x942B, 0x943F,
];

/// Requests that put input into a terminal: `TIOCSTI`, `TIOCLINUX`.
const OF_TERMINALS: &[u32] = &[0x5412, 0x541C];

/// Of stages that are on-disk modules, besides.
const ON_DISK: &[Rule] = &[
    Rule { call: "mount", when: When::Always, verdict: Verdict::Ask },
    missing("open_tree"),
    missing("move_mount"),
    missing("fsopen"),
    missing("fsconfig"),
    missing("fsmount"),
    missing("fspick"),
    missing("mount_setattr"),
    // Its flags are in a structure.
    missing("clone3"),
    refused_if("clone", When::Masked(0, NEW_USER, &[NEW_USER])),
    refused_if("unshare", When::Masked(0, NEW_USER, &[NEW_USER])),
    refused("fanotify_init"),
    refused("syslog"),
    refused_if("ioctl", When::Masked(1, 0xFFFF, OF_FILE_SYSTEMS)),
    refused_if("ioctl", When::Masked(1, 0xFFFF, OF_TERMINALS)),
    // AF_VSOCK
    refused_if("socket", When::All(&[(0, 40)])),
    // KEYCTL_GET_PERSISTENT. The session's keys are the stage's own; cryptsetup keeps its in those of its thread.
    refused_if("keyctl", When::All(&[(0, 22)])),
    refused_if("keyctl", When::Masked(1, u32::MAX, KEYS_OF_THE_HOST)),
    refused_if("keyctl", When::Masked(2, u32::MAX, KEYS_OF_THE_HOST)),
    refused_if("keyctl", When::Masked(3, u32::MAX, KEYS_OF_THE_HOST)),
    refused_if("add_key", When::Masked(4, u32::MAX, KEYS_OF_THE_HOST)),
    refused_if("request_key", When::Masked(3, u32::MAX, KEYS_OF_THE_HOST)),
    refused_if("nice", When::Masked(0, SIGN, &[SIGN])),
    refused_if("setpriority", When::Masked(2, SIGN, &[SIGN])),
    // SCHED_FIFO, SCHED_RR, SCHED_DEADLINE; the other call has them in a structure.
    refused_if("sched_setscheduler", When::Masked(1, 0xFF, &[1, 2, 6])),
    refused("sched_setattr"),
    // The class of real time.
    refused_if("ioprio_set", When::Masked(2, 0xE000, &[0x2000])),
];

#[cfg(test)]
mod tests {
    use osbc_module_api::system_calls::is_known;

    use super::*;

    #[test]
    fn every_call_is_known() {
        assert!(of_on_disk(Syncs::Pass, TreeKind::Layers).iter().all(|rule| is_known(rule.call)));
        let all = of_built_in(Syncs::Pass, TreeKind::Layers).len();
        assert_eq!(all, of_built_in(Syncs::Wait, TreeKind::Plain).len() + SYNCS.len() + WHITEOUTS.len());
    }

    #[test]
    fn what_stages_need_is_allowed() {
        let refused = of_on_disk(Syncs::Wait, TreeKind::Layers);
        let refused: Vec<&Rule> = refused.iter().filter(|rule| rule.when == When::Always).collect();
        for needed in ["umount2", "chroot", "mknodat", "unshare", "keyctl", "add_key", "fsync", "clone", "ioctl"] {
            assert!(refused.iter().all(|rule| rule.call != needed), "{needed}");
        }
        assert!(of_built_in(Syncs::Pass, TreeKind::Layers).iter().all(|rule| rule.call != "mount"));
    }
}
