//! Filters of system calls: which calls are refused or skipped, as rules by name, and the BPF program that carries them
//! out.
//!
//! Knows the numbers of the calls that rules name, and not who is to be confined.
//!
//! The kernel's second table of system calls is filtered too, since 32-bit programs run beside the native ones. On a
//! processor whose tables are not known here a filter allows everything, and capabilities have to do.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::sock_filter;
use rustix::io::Errno;

/// What a filter does to a system call, and when.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The call's name; one without a number on this processor is passed over.
    pub call: &'static str,
    /// When the rule applies.
    pub when: When,
    /// What becomes of the call then.
    pub verdict: Verdict,
}

/// When a [`Rule`] applies, by the lower half of arguments, which are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Whatever the arguments are.
    Always,
    /// When all of these arguments have these values.
    All(&'static [(u8, u32)]),
    /// When all of these arguments, as far as their masks let them through, have these values.
    AllMasked(&'static [(u8, u32, u32)]),
    /// When this argument has none of these values.
    NoneOf(u8, &'static [u32]),
    /// When this argument, as far as this mask lets it through, has one of these values.
    Masked(u8, u32, &'static [u32]),
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fails with this error.
    Refuse(Errno),
    /// It is not made and returns 0.
    Skip,
    /// Whoever has the listener that [`Filter::apply_with_listener`] returns answers in the kernel's place.
    Ask,
}

/// A filter, ready to be applied.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<sock_filter>,
}

impl Filter {
    /// Returns a filter of these rules, of which the first that applies decides. Calls with a number beyond `last` do
    /// not exist for who is filtered.
    ///
    /// # Panics
    /// A rule names a call that is not known here.
    pub fn new(rules: &[Rule], last: Option<u32>) -> Self {
        let mut program = vec![load(ARCHITECTURE)];
        for (column, architecture) in TABLES {
            let table = table(rules, *column, last);
            program.push(equal(*architecture, 1, 0));
            program.push(jump(table.len()));
            program.extend(table);
        }
        program.push(give(ALLOW));
        Self { program }
    }

    /// Applies it to the calling thread and what that starts, for good.
    ///
    /// Needs `no_new_privs`, or `CAP_SYS_ADMIN`. Allocates nothing, so that it may be called between fork and exec.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&self) -> io::Result<()> {
        let program = self.program()?;
        #[expect(unsafe_code, reason = "no dependency wraps filters")]
        // SAFETY: the program outlives the call, which copies and does not change it.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Applies it likewise, and returns the descriptor at which the calls of [`Verdict::Ask`] are answered.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply_with_listener(&self) -> io::Result<OwnedFd> {
        let program = self.program()?;
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        #[expect(unsafe_code, reason = "no dependency wraps filters")]
        // SAFETY: the program outlives the call, which copies and does not change it; what is returned is a new descriptor.
        unsafe {
            match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) {
                -1 => Err(io::Error::last_os_error()),
                listener => Ok(OwnedFd::from_raw_fd(i32::try_from(listener).map_err(io::Error::other)?)),
            }
        }
    }

    fn program(&self) -> io::Result<libc::sock_fprog> {
        let length = u16::try_from(self.program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(libc::sock_fprog { len: length, filter: self.program.as_ptr().cast_mut() })
    }
}

/// Returns whether a call that a listener got is this one.
pub fn is_call(call: &libc::seccomp_data, name: &str) -> bool {
    let column = TABLES.iter().find(|(_, architecture)| *architecture == call.arch).map(|(column, _)| *column);
    let number = numbers(name).zip(column).map(|(numbers, column)| numbers[column]);
    number.is_some_and(|number| number != NONE && i32::try_from(number) == Ok(call.nr))
}

/// Whether rules may name a call.
pub fn is_known(call: &str) -> bool {
    numbers(call).is_some()
}

/// The tables of this processor: the column of [`NUMBERS`], and what <linux/audit.h> calls the interface.
const TABLES: &[(usize, u32)] = if cfg!(target_arch = "x86_64") {
    &[(0, 0xC000_003E), (1, 0x4000_0003)]
} else if cfg!(target_arch = "aarch64") {
    &[(2, 0xC000_00B7), (3, 0x4000_0028)]
} else {
    &[]
};

/// No number: the call is not there.
const NONE: u32 = u32::MAX;

/// The numbers of calls on x86_64, i386, aarch64 and arm.
const NUMBERS: [(&str, [u32; 4]); 77] = [
    ("_sysctl", [156, 149, NONE, 149]),
    ("acct", [163, 51, 89, 51]),
    ("add_key", [248, 286, 217, 309]),
    ("bpf", [321, 357, 280, 386]),
    ("cachestat", [451, 451, 451, 451]),
    ("clock_settime", [227, 264, 112, 262]),
    ("clock_settime64", [NONE, 404, NONE, 404]),
    ("clone", [56, 120, 220, 120]),
    ("clone3", [435, 435, 435, 435]),
    ("delete_module", [176, 129, 106, 129]),
    ("fanotify_init", [300, 338, 262, 367]),
    ("fdatasync", [75, 148, 83, 148]),
    ("finit_module", [313, 350, 273, 379]),
    ("fsconfig", [431, 431, 431, 431]),
    ("fsmount", [432, 432, 432, 432]),
    ("fsopen", [430, 430, 430, 430]),
    ("fspick", [433, 433, 433, 433]),
    ("fsync", [74, 118, 82, 118]),
    ("futex_waitv", [449, 449, 449, 449]),
    ("init_module", [175, 128, 105, 128]),
    ("io_pgetevents", [333, 385, 292, 399]),
    ("io_pgetevents_time64", [NONE, 416, NONE, 416]),
    ("io_uring_enter", [426, 426, 426, 426]),
    ("io_uring_register", [427, 427, 427, 427]),
    ("io_uring_setup", [425, 425, 425, 425]),
    ("ioctl", [16, 54, 29, 54]),
    ("ioperm", [173, 101, NONE, NONE]),
    ("iopl", [172, 110, NONE, NONE]),
    ("ioprio_set", [251, 289, 30, 314]),
    ("kcmp", [312, 349, 272, 378]),
    ("kexec_file_load", [320, NONE, 294, 401]),
    ("kexec_load", [246, 283, 104, 347]),
    ("keyctl", [250, 288, 219, 311]),
    ("lookup_dcookie", [212, 253, 18, 249]),
    ("migrate_pages", [256, 294, 238, 400]),
    ("mknod", [133, 14, NONE, 14]),
    ("mknodat", [259, 297, 33, 324]),
    ("mount", [165, 21, 40, 21]),
    ("mount_setattr", [442, 442, 442, 442]),
    ("move_mount", [429, 429, 429, 429]),
    ("move_pages", [279, 317, 239, 344]),
    ("nfsservctl", [180, 169, 42, 169]),
    ("nice", [NONE, 34, NONE, 34]),
    ("open_by_handle_at", [304, 342, 265, 371]),
    ("open_tree", [428, 428, 428, 428]),
    ("perf_event_open", [298, 336, 241, 364]),
    ("personality", [135, 136, 92, 136]),
    ("process_madvise", [440, 440, 440, 440]),
    ("quotactl", [179, 131, 60, 131]),
    ("quotactl_fd", [443, 443, 443, 443]),
    ("reboot", [169, 88, 142, 88]),
    ("renameat2", [316, 353, 276, 382]),
    ("request_key", [249, 287, 218, 310]),
    ("sched_setattr", [314, 351, 274, 380]),
    ("sched_setscheduler", [144, 156, 119, 156]),
    ("set_mempolicy_home_node", [450, 450, 450, 450]),
    ("setdomainname", [171, 121, 162, 121]),
    ("sethostname", [170, 74, 161, 74]),
    ("setpriority", [141, 97, 140, 97]),
    ("settimeofday", [164, 79, 170, 79]),
    ("socket", [41, 359, 198, 281]),
    ("stime", [NONE, 25, NONE, 25]),
    ("swapoff", [168, 115, 225, 115]),
    ("swapon", [167, 87, 224, 87]),
    ("sync", [162, 36, 81, 36]),
    ("sync_file_range", [277, 314, 84, 341]),
    ("syncfs", [306, 344, 267, 373]),
    ("sysfs", [139, 135, NONE, 135]),
    ("syslog", [103, 103, 116, 103]),
    ("unshare", [272, 310, 97, 337]),
    ("uselib", [134, 86, NONE, 86]),
    ("userfaultfd", [323, 374, 282, 388]),
    ("ustat", [136, 62, NONE, 62]),
    ("vhangup", [153, 111, 58, 111]),
    ("vm86", [NONE, 166, NONE, NONE]),
    ("vm86old", [NONE, 113, NONE, NONE]),
    ("vmsplice", [278, 316, 75, 343]),
];

fn numbers(call: &str) -> Option<[u32; 4]> {
    NUMBERS.iter().find(|(name, _)| *name == call).map(|(_, numbers)| *numbers)
}

// Of <linux/seccomp.h>: offsets in `struct seccomp_data`, and results.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ALLOW: u32 = 0x7FFF_0000;
const FAIL: u32 = 0x0005_0000;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
/// x86_64 has its calls a second time from here on (x32); nothing uses them.
const SECOND_RANGE: u32 = 0x4000_0000;
/// arm has calls of its own from here on.
const ARM_RANGE: u32 = 0x000F_0000;
const ARM: usize = 3;

/// The instructions for the calls of one table; they end with a result.
fn table(rules: &[Rule], column: usize, last: Option<u32>) -> Vec<sock_filter> {
    let mut program = vec![load(NUMBER)];
    if column == ARM {
        program.extend([at_least(ARM_RANGE, 0, 1), give(ALLOW)]);
    }
    program.extend([at_least(SECOND_RANGE, 0, 1), give(FAIL | Errno::PERM.raw_os_error().unsigned_abs())]);
    if let Some(last) = last {
        program.extend([at_least(last + 1, 0, 1), give(FAIL | Errno::NOSYS.raw_os_error().unsigned_abs())]);
    }
    let mut bodies = BTreeMap::<u32, Vec<sock_filter>>::new();
    for rule in rules {
        let number = numbers(rule.call).unwrap_or_else(|| panic!("no numbers of the call {}", rule.call))[column];
        if number != NONE {
            bodies.entry(number).or_default().extend(body(rule));
        }
    }
    for body in bodies.values_mut() {
        body.push(give(ALLOW));
    }
    let calls: Vec<_> = bodies.into_iter().collect();
    program.extend(search(&calls));
    program
}

/// How many calls are compared with one after the other: fewer take more instructions, which the kernel has to compile, and
/// more take longer to go through, which it does once for each number that there is when a filter is applied.
const IN_A_ROW: usize = 4;

/// Returns the instructions for these calls, in the order of their numbers, with the number loaded; they end with a result.
fn search(calls: &[(u32, Vec<sock_filter>)]) -> Vec<sock_filter> {
    let mut program = Vec::new();
    if calls.len() <= IN_A_ROW {
        for (number, body) in calls {
            program.push(equal(*number, 0, length(body)));
            program.extend(body);
        }
        program.push(give(ALLOW));
    } else {
        let (before, after) = calls.split_at(calls.len() / 2);
        let (first, before) = (after[0].0, search(before));
        program.extend([at_least(first, 0, 1), jump(before.len())]);
        program.extend(before);
        program.extend(search(after));
    }
    program
}

/// The instructions for a call that a rule is about; behind them is what decides where the rule does not apply.
fn body(rule: &Rule) -> Vec<sock_filter> {
    let argument = |index: u8| load(ARGUMENTS + 8 * u32::from(index));
    let verdict = give(match rule.verdict {
        Verdict::Refuse(errno) => FAIL | errno.raw_os_error().unsigned_abs(),
        Verdict::Skip => FAIL,
        Verdict::Ask => ASK,
    });
    let mut body = Vec::new();
    match rule.when {
        When::Always => return vec![verdict],
        When::All(arguments) => {
            for (left, (index, value)) in (0..arguments.len()).rev().zip(arguments) {
                // Past the other comparisons and the result.
                let past = u8::try_from(2 * left + 1).expect("a call has six arguments");
                body.extend([argument(*index), equal(*value, 0, past)]);
            }
            body.push(verdict);
        }
        When::AllMasked(arguments) => {
            for (left, (index, mask, value)) in (0..arguments.len()).rev().zip(arguments) {
                let past = u8::try_from(3 * left + 1).expect("a call has six arguments");
                body.extend([argument(*index), masked(*mask), equal(*value, 0, past)]);
            }
            body.push(verdict);
        }
        When::NoneOf(index, values) => {
            body.push(argument(index));
            for (left, value) in (0..values.len()).rev().zip(values) {
                let past = u8::try_from(left + 1).expect("the list is short");
                body.push(equal(*value, past, 0));
            }
            body.push(verdict);
        }
        When::Masked(index, mask, values) => {
            body.extend([argument(index), masked(mask)]);
            for (left, value) in (0..values.len()).rev().zip(values) {
                let past = u8::try_from(left + 1).expect("the list is short");
                body.push(equal(*value, past, 0));
            }
            body.extend([jump(1), verdict]);
        }
    }
    body
}

fn length(body: &[sock_filter]) -> u8 {
    u8::try_from(body.len()).expect("the rules of a call are short")
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn masked(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

fn give(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, result, 0, 0)
}

fn equal(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no)
}

fn at_least(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, yes, no)
}

fn jump(past: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, u32::try_from(past).expect("a filter is short"), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container;

    const REFUSED: u32 = FAIL | libc::EPERM as u32;
    const MISSING: u32 = FAIL | libc::ENOSYS as u32;

    /// Returns what the kernel would make of a call: the few instructions that a filter has.
    fn run(filter: &Filter, architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let now = &filter.program[at];
            at += 1;
            match u32::from(now.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    value = match now.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => arguments[usize::try_from((offset - ARGUMENTS) / 8).unwrap()],
                    };
                }
                code if code == libc::BPF_RET | libc::BPF_K => return now.k,
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => value &= now.k,
                code if code == libc::BPF_JMP | libc::BPF_JA => at += usize::try_from(now.k).unwrap(),
                code => {
                    let hit = if code & 0xF0 == libc::BPF_JEQ { value == now.k } else { value >= now.k };
                    at += usize::from(if hit { now.jt } else { now.jf });
                }
            }
        }
    }

    #[test]
    fn each_table_refuses_its_own_calls_and_allows_all_others() {
        let rules = [
            Rule { call: "bpf", when: When::Always, verdict: Verdict::Refuse(Errno::PERM) },
            Rule { call: "vm86", when: When::Always, verdict: Verdict::Refuse(Errno::NOSYS) },
            Rule { call: "fsync", when: When::Always, verdict: Verdict::Skip },
        ];
        let filter = Filter::new(&rules, None);
        for (column, architecture) in TABLES {
            let expected = |number: u32| {
                let of = |call: &str| numbers(call).unwrap()[*column] == number;
                match number {
                    _ if of("bpf") => REFUSED,
                    _ if of("vm86") => MISSING,
                    _ if of("fsync") => FAIL,
                    _ => ALLOW,
                }
            };
            for number in 0..600 {
                assert_eq!(
                    run(&filter, *architecture, number, [0; 6]),
                    expected(number),
                    "{number} of {architecture:x}"
                );
            }
            assert_eq!(run(&filter, *architecture, SECOND_RANGE + 1, [0; 6]) == ALLOW, *column == ARM);
        }
    }

    #[test]
    fn several_arguments_are_masked_each_by_its_own() {
        let when = When::AllMasked(&[(2, 0o170_000, 0o020_000), (3, u32::MAX, 0)]);
        let filter = Filter::new(&[Rule { call: "mknodat", when, verdict: Verdict::Ask }], None);
        for (column, architecture) in TABLES {
            let number = numbers("mknodat").unwrap()[*column];
            let cases = [(0o020_666, 0, ASK), (0o020_000, 0, ASK), (0o020_666, 0x103, ALLOW), (0o010_666, 0, ALLOW)];
            for (mode, device, expected) in cases {
                let arguments = [7, 8, mode, device, 9, 9];
                assert_eq!(run(&filter, *architecture, number, arguments), expected, "{mode:o} {device:x}");
                let nr = i32::try_from(number).unwrap();
                let call = libc::seccomp_data { nr, arch: *architecture, instruction_pointer: 0, args: [0; 6] };
                assert!(is_call(&call, "mknodat") && !is_call(&call, "mount"));
            }
        }
    }

    #[test]
    fn arguments_decide_where_a_rule_says_so() {
        let filter = Filter::new(container::REFUSED, Some(container::LAST_CALL));
        for (column, architecture) in TABLES {
            let call = |name: &str, arguments| run(&filter, *architecture, numbers(name).unwrap()[*column], arguments);
            for (kind, expected) in [(0, ALLOW), (0x2_0008, ALLOW), (0xFFFF_FFFF, ALLOW), (0x40_0000, MISSING)] {
                assert_eq!(call("personality", [kind, 0, 0, 0, 0, 0]), expected, "{kind:x}");
            }
            let invalid = FAIL | libc::EINVAL as u32;
            for (family, protocol, expected) in [(16, 9, invalid), (16, 0, ALLOW), (2, 9, ALLOW), (1, 0, ALLOW)] {
                assert_eq!(call("socket", [family, 7, protocol, 0, 0, 0]), expected, "{family} {protocol}");
            }
            // A rule that did not apply leaves the others to decide.
            assert_eq!(call("bpf", [0; 6]), REFUSED);
            assert_eq!(call("io_uring_setup", [0; 6]), MISSING);
            assert_eq!(run(&filter, *architecture, container::LAST_CALL, [0; 6]), ALLOW);
            assert_eq!(run(&filter, *architecture, container::LAST_CALL + 1, [0; 6]), MISSING);
        }
    }

    #[test]
    fn masks_let_a_part_of_an_argument_decide() {
        let rules = [
            Rule { call: "ioctl", when: When::Masked(1, 0xFF, &[1, 2, 3]), verdict: Verdict::Refuse(Errno::PERM) },
            Rule { call: "ioctl", when: When::Masked(0, 0xFF, &[7]), verdict: Verdict::Ask },
        ];
        let filter = Filter::new(&rules, None);
        for (column, architecture) in TABLES {
            let number = numbers("ioctl").unwrap()[*column];
            let with = |first, second| run(&filter, *architecture, number, [first, second, 0, 0, 0, 0]);
            for second in [1, 2, 3, 0x103] {
                assert_eq!(with(7, second), REFUSED, "{second:x}");
            }
            for second in [0, 4, 0x400, 0xFF] {
                assert_eq!((with(7, second), with(1, second)), (ASK, ALLOW), "{second:x}");
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_numbers_are_those_of_the_system() {
        for (name, number) in [
            ("acct", libc::SYS_acct),
            ("clone", libc::SYS_clone),
            ("fanotify_init", libc::SYS_fanotify_init),
            ("ioctl", libc::SYS_ioctl),
            ("ioprio_set", libc::SYS_ioprio_set),
            ("keyctl", libc::SYS_keyctl),
            ("mount", libc::SYS_mount),
            ("sched_setattr", libc::SYS_sched_setattr),
            ("sched_setscheduler", libc::SYS_sched_setscheduler),
            ("setpriority", libc::SYS_setpriority),
            ("syslog", libc::SYS_syslog),
            ("unshare", libc::SYS_unshare),
            ("fsync", libc::SYS_fsync),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("reboot", libc::SYS_reboot),
            ("socket", libc::SYS_socket),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("vmsplice", libc::SYS_vmsplice),
        ] {
            let known = numbers(name).map(|numbers| i64::from(numbers[0]));
            assert_eq!(known, Some(number), "{name}");
        }
    }
}
