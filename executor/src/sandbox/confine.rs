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
use seccompiler::sock_filter;

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
    seccompiler::apply_filter(&filter(syncs)).map_err(io::Error::other)?;
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

/// What one of the processor's interfaces calls the system calls that are looked at.
struct Table {
    /// Of <linux/audit.h>.
    architecture: u32,
    forbidden: &'static [i64],
    /// Those that wait for the disk.
    syncs: &'static [i64],
}

/// By 64-bit programs.
const NATIVE: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
];

/// Calls of 64-bit programs that wait for the disk. `msync` is none of them, since it says whether memory is mapped, too.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const NATIVE_SYNCS: &[i64] =
    &[libc::SYS_fdatasync, libc::SYS_fsync, libc::SYS_sync, libc::SYS_sync_file_range, libc::SYS_syncfs];

/// In the order of [`NATIVE`] and [`NATIVE_SYNCS`], of the forbidden ones then `clock_settime64` and `stime`; i386 has no `kexec_file_load`.
#[cfg(target_arch = "x86_64")]
const TABLES: &[Table] = &[
    Table { architecture: 0xC000_003E, forbidden: NATIVE, syncs: NATIVE_SYNCS },
    Table {
        architecture: 0x4000_0003,
        forbidden: &[51, 357, 264, 129, 350, 128, 283, 342, 336, 88, 79, 115, 87, 404, 25],
        syncs: &[148, 118, 36, 314, 344],
    },
];

/// In the order of [`NATIVE`] and [`NATIVE_SYNCS`], of the forbidden ones then `clock_settime64`.
#[cfg(target_arch = "aarch64")]
const TABLES: &[Table] = &[
    Table { architecture: 0xC000_00B7, forbidden: NATIVE, syncs: NATIVE_SYNCS },
    Table {
        architecture: 0x4000_0028,
        forbidden: &[51, 386, 262, 129, 379, 128, 401, 347, 371, 364, 88, 79, 115, 87, 404],
        syncs: &[148, 118, 36, 341, 373],
    },
];

/// Elsewhere the capabilities have to do, and all wait for the disk.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const TABLES: &[Table] = &[Table { architecture: 0, forbidden: NATIVE, syncs: &[] }];

// Of <linux/seccomp.h>: offsets in `struct seccomp_data`, and results.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ALLOW: u32 = 0x7FFF_0000;
const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
/// The call is not made, and its result is 0.
const PASS: u32 = 0x0005_0000;
/// x86_64 has its calls a second time from here on (x32); nothing uses them.
const SECOND_RANGE: u32 = 0x4000_0000;

/// Refuses the forbidden calls with EPERM, lets those pass that wait for the disk where they shall, and allows all others.
fn filter(syncs: Syncs) -> Vec<sock_filter> {
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let give = |result| instruction(libc::BPF_RET | libc::BPF_K, result, 0, 0);
    let equal = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let at_least = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, yes, no);

    let mut program = vec![load(ARCHITECTURE)];
    for table in TABLES {
        let passed = if syncs == Syncs::Pass { table.syncs } else { &[] };
        let to_refuse = table.forbidden.iter().map(|number| (*number, 1));
        let to_pass = passed.iter().map(|number| (*number, 2));
        let compared: Vec<(i64, u8)> = to_refuse.chain(to_pass).collect();
        let count = u8::try_from(compared.len()).expect("the tables are short");
        // Skipped when the call is of another table: the load, the comparisons, three results.
        program.push(equal(table.architecture, 0, count + 5));
        program.push(load(NUMBER));
        program.push(at_least(SECOND_RANGE, count + 1, 0));
        for (left, (number, result)) in (0..count).rev().zip(compared) {
            program.push(equal(u32::try_from(number).expect("call numbers are small"), left + result, 0));
        }
        program.extend([give(ALLOW), give(REFUSE), give(PASS)]);
    }
    program.push(give(ALLOW));
    program
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a call: the few instructions that the filter uses.
    fn run(syncs: Syncs, architecture: u32, number: u32) -> u32 {
        let program = filter(syncs);
        let (mut at, mut value) = (0, 0);
        loop {
            let now = &program[at];
            at += 1;
            match u32::from(now.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    value = if now.k == ARCHITECTURE { architecture } else { number };
                }
                code if code == libc::BPF_RET | libc::BPF_K => return now.k,
                code => {
                    let hit = if code & 0xF0 == libc::BPF_JEQ { value == now.k } else { value >= now.k };
                    at += usize::from(if hit { now.jt } else { now.jf });
                }
            }
        }
    }

    #[test]
    fn each_table_refuses_its_own_calls_and_allows_all_others() {
        for table in TABLES {
            for syncs in [Syncs::Wait, Syncs::Pass] {
                for number in 0..600 {
                    let expected = match i64::from(number) {
                        number if table.forbidden.contains(&number) => REFUSE,
                        number if table.syncs.contains(&number) && syncs == Syncs::Pass => PASS,
                        _ => ALLOW,
                    };
                    let found = run(syncs, table.architecture, number);
                    assert_eq!(found, expected, "{number} of {:x}, {syncs:?}", table.architecture);
                }
                assert_eq!(run(syncs, table.architecture, SECOND_RANGE + 1), REFUSE);
            }
        }
    }

    #[test]
    fn what_stages_need_is_allowed() {
        let needed = [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_chroot,
            libc::SYS_mknodat,
            libc::SYS_unshare,
            libc::SYS_keyctl,
        ];
        assert!(needed.iter().all(|number| !NATIVE.contains(number)));
    }
}
