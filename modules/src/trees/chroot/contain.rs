//! The first process of a program's pid namespace.
//!
//! It gives up the program's rights, starts it, reaps what is orphaned and reports how the program ended. It is a copy
//! of the stage's process, which has other threads, so nothing here allocates or takes a lock between the fork and the
//! program's start.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{ForkResult, fork};
use osbc_module_api::Error;
use osbc_module_api::container::{HIDDEN, READ_ONLY};
pub(super) use osbc_module_api::rights::Rights;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, statat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};
use rustix::process::{
    DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal, setsid, wait,
};

use super::architecture::cannot_start;
use super::image::Image;

/// A program that runs in a pid namespace of its own.
#[derive(Debug)]
pub(super) struct Contained {
    /// The first process of the namespace, with which all others end.
    first: Child,
    reports: PipeReader,
}

impl Contained {
    /// Starts a program.
    ///
    /// The calling thread must be in the mount namespace that the program shall have, and what it starts in a pid
    /// namespace that has no process yet.
    ///
    /// # Errors
    /// The program cannot be started, or the kernel refuses what comes before that.
    pub(super) fn start(program: &Path, image: Image, rights: Rights) -> Result<Self, Error> {
        let (mut reports, report) = io::pipe().map_err(Error::io("make a pipe for", program))?;
        let first = First { image, rights, report };
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        #[expect(unsafe_code, reason = "what comes between fork and exec")]
        // SAFETY: it makes system calls and nothing else.
        unsafe {
            command.pre_exec(move || first.begin());
        }
        let spawned = command.spawn();
        drop(command);
        match spawned {
            Ok(first) => Ok(Self { first, reports }),
            Err(error) => match message(&mut reports).ok().flatten().and_then(failed_step) {
                Some(step) => Err(Error::io(step, program)(error)),
                None => Err(cannot_start(program)(error)),
            },
        }
    }

    /// Waits for the program's end, at most so long, and returns how it ended, if it did.
    ///
    /// # Errors
    /// All ended without a word.
    pub(super) fn ended(&mut self, limit: Option<Duration>) -> io::Result<Option<ExitStatus>> {
        if !self.has_news(limit)? {
            return Ok(None);
        }
        match message(&mut self.reports)? {
            Some(status) => Ok(Some(ExitStatus::from_raw(status))),
            None => Err(io::Error::other("its pid namespace was ended")),
        }
    }

    /// Waits until nothing is left in the pid namespace, at most so long, and returns whether that is so.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn is_empty(&mut self, limit: Duration) -> io::Result<bool> {
        Ok(self.has_news(Some(limit))? && message(&mut self.reports)?.is_none())
    }

    /// Ends all that is in the pid namespace.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn end(mut self) -> io::Result<()> {
        // One that ended by itself is as good.
        self.first.kill()?;
        self.first.wait().map(drop)
    }

    fn has_news(&self, limit: Option<Duration>) -> io::Result<bool> {
        let limit = limit.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&self.reports, PollFlags::IN)];
        loop {
            match poll(&mut polled, limit.as_ref()) {
                Err(Errno::INTR) => {}
                result => return Ok(result? > 0),
            }
        }
    }
}

/// Reads what the first process said: how the program ended, or which step failed; nothing where it is gone.
fn message(reports: &mut PipeReader) -> io::Result<Option<i32>> {
    let mut bytes = [0; size_of::<i32>()];
    match reports.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(i32::from_ne_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

type Step = fn(&First) -> io::Result<()>;

/// Steps before the program, in order, and what each is about.
///
/// A status is never negative, so that a failed step is said by its negative number, counted from 1.
const STEPS: [(&str, Step); 5] = [
    ("mount /proc for", |_| mount_processes()),
    ("hide parts of /proc for", |first| first.hide()),
    ("make parts of /proc read-only for", |_| protect()),
    ("leave the session for", |_| leave_session()),
    ("give up rights for", |first| first.confine()),
];

fn failed_step(message: i32) -> Option<&'static str> {
    let number = usize::try_from(message.checked_neg()?).ok()?;
    Some(STEPS.get(number.checked_sub(1)?)?.0)
}

/// The first process of the pid namespace.
struct First {
    image: Image,
    rights: Rights,
    report: PipeWriter,
}

impl First {
    /// Begins, and returns only if the program does not start.
    fn begin(&self) -> io::Result<()> {
        for ((_, step), number) in STEPS.iter().zip(1i32..) {
            if let Err(error) = step(self) {
                self.say(-number);
                return Err(error);
            }
        }
        #[expect(unsafe_code, reason = "the first process of a pid namespace is none that a program can be")]
        // SAFETY: this process has a single thread, and both go on with system calls alone.
        match unsafe { fork() }? {
            ForkResult::Child => Err(self.image.start()),
            ForkResult::Parent { child } => self.reap(child.as_raw()),
        }
    }

    /// Waits for all processes there are, says how the program ended, and ends with the last one.
    fn reap(&self, program: i32) -> ! {
        // Nothing of the stage is to be held open, least of all the pipe that reports a failed start.
        let own = self.report.as_raw_fd();
        close(0, own - 1, 0).and_then(|()| close(own + 1, RawFd::MAX, 0)).ok();
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((process, status))) if process.as_raw_nonzero().get() == program => self.say(status.as_raw()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => exit(),
            }
        }
    }

    /// Reports a number. Without a reader there is nobody who wants to know.
    fn say(&self, number: i32) {
        (&self.report).write_all(&number.to_ne_bytes()).ok();
    }

    /// Covers what of `/proc` and, unless it is the stage's, `/sys` a container does not see.
    fn hide(&self) -> io::Result<()> {
        let everywhere = self.rights.are_a_containers();
        HIDDEN.iter().filter(|path| everywhere || path.starts_with("/proc/")).try_for_each(|path| cover(path))
    }

    /// Gives up what the program shall not have, for good.
    fn confine(&self) -> io::Result<()> {
        close(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
        // Nobody but who may trace everything reaches this process, whose memory is a copy of the stage's.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        self.rights.take()
    }
}

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

fn mount_processes() -> io::Result<()> {
    Ok(mount("proc", "/proc", "proc", QUIET, None)?)
}

/// Lays something empty over a path, if there is anything.
fn cover(path: &str) -> io::Result<()> {
    let status = match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        status => status?,
    };
    let covered = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => mount("tmpfs", path, "tmpfs", QUIET | MountFlags::RDONLY, Some(c"mode=755,nr_inodes=1")),
        _ => mount_bind("/dev/null", path),
    };
    Ok(covered?)
}

/// Makes what of `/proc` acts on the whole machine read-only.
fn protect() -> io::Result<()> {
    for path in READ_ONLY {
        match mount_bind_recursive(path, path) {
            Err(Errno::NOENT) => {}
            result => {
                result?;
                mount_remount(path, QUIET | MountFlags::RDONLY | MountFlags::BIND, "")?;
            }
        }
    }
    Ok(())
}

/// Leaves the terminal and the keys of whoever started the build, and ends with the stage.
fn leave_session() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setsid()?;
    #[expect(unsafe_code, reason = "no dependency wraps keyrings")]
    // SAFETY: without a name the call reads no memory.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) };
    // A kernel without keys has none to leave.
    if joined == -1 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes these descriptors, or has them closed when another program begins.
fn close(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "no dependency wraps close_range")]
    // SAFETY: nothing in this process uses them any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn exit() -> ! {
    #[expect(unsafe_code, reason = "nothing of the stage is to be run at its end")]
    // SAFETY: it does nothing but end the process.
    unsafe {
        libc::_exit(0)
    }
}
