//! Runs programs of the host, each in a pid namespace, so that they end with osbc, with everything that they started.
//!
//! ```text
//! osbc ── supervisor ── init ── program ── whatever it starts
//!                      └──── pid namespace ────────────────┘
//! ```
//!
//! The kernel ends a namespace with its init, whatever its processes did to get away (a session, a mount namespace, a
//! daemon's double fork). Init ends with the program; with the supervisor, by the parent-death signal; and the
//! supervisor ends it with osbc, by the same means, or when osbc asks for it. Neither is executed: both are forks of
//! osbc that close every descriptor.
//!
//! Who is not root makes the namespace in a user namespace of their own. Where that is refused too (in a container that
//! allows neither), the program itself gets the parent-death signal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, pidfd_open, set_parent_process_death_signal};

/// How often [`output`] asks whether it was interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much is read from a pipe at once.
const CHUNK: usize = 64 << 10;

/// Makes `command` start its program in a pid namespace that ends with the program and with the thread that starts it.
///
/// To be called after everything else that is to be done before the program is executed. The child that is then spawned
/// is the supervisor; it exits as the program does, and when it has, nothing is left of what the program started.
/// [`end`] ends it before that.
pub fn contain(command: &mut Command) {
    let osbc = Pid::this();
    let own_ids = OwnIds::current();
    #[expect(unsafe_code, reason = "a namespace is entered between fork and exec")]
    // SAFETY: the closure makes system calls and allocates nothing. It runs in a process with a single thread.
    unsafe {
        command.pre_exec(move || enter(osbc, &own_ids));
    }
}

/// Ends a child whose command was [contained](contain), and everything that it started; returns when all of it is gone.
///
/// # Errors
/// It was waited for already.
pub fn end(child: &mut Child) -> io::Result<ExitStatus> {
    // One that ended by itself is as good.
    kill(pid_of(child), Signal::SIGTERM).ok();
    child.wait()
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// Runs a program [contained](contain), with `stdin` as its standard input, and returns what it printed; `None` if
/// `interrupted`, which is asked now and then, ended it.
///
/// # Errors
/// It cannot be started, or its pipes are broken.
pub fn output(command: &mut Command, stdin: &[u8], interrupted: &dyn Fn() -> bool) -> io::Result<Option<Output>> {
    contain(command.process_group(0));
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let child = &mut running.0;
    let handle = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdin = Feed { pipe: child.stdin.take().map(|pipe| nonblocking(pipe.into())).transpose()?, left: stdin };
    let mut stdout = Drain::new(child.stdout.take().map(OwnedFd::from))?;
    let mut stderr = Drain::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        // Asked first, so that all that it wrote is read below.
        let status = child.try_wait()?;
        stdin.write()?;
        stdout.read()?;
        stderr.read()?;
        if let Some(status) = status {
            return Ok(Some(Output { status, stdout: stdout.bytes, stderr: stderr.bytes }));
        }
        if interrupted() {
            return Ok(None);
        }
        let mut polled = vec![PollFd::new(&handle, PollFlags::IN)];
        polled.extend(stdin.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        polled.extend(
            [&stdout, &stderr].into_iter().flat_map(|drain| &drain.pipe).map(|pipe| PollFd::new(pipe, PollFlags::IN)),
        );
        match poll(&mut polled, Timespec::try_from(POLL_INTERVAL).ok().as_ref()) {
            Err(Errno::INTR) => {}
            result => drop(result?),
        }
    }
}

/// A contained child that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Nobody is left to report it to.
            end(&mut self.0).ok();
        }
    }
}

/// What a program is still to read.
struct Feed<'a> {
    /// `None` after the end.
    pipe: Option<OwnedFd>,
    left: &'a [u8],
}

impl Feed<'_> {
    fn write(&mut self) -> io::Result<()> {
        while let Some(pipe) = &self.pipe {
            match rustix::io::write(pipe, self.left) {
                Ok(length) => self.left = &self.left[length..],
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // A program that ends without reading all of its input says why by its exit status.
                Err(Errno::PIPE) => self.left = &[],
                Err(error) => return Err(error.into()),
            }
            if self.left.is_empty() {
                self.pipe = None;
            }
        }
        Ok(())
    }
}

/// What a program has written.
struct Drain {
    /// `None` after the end.
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Drain {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self { pipe: pipe.map(nonblocking).transpose()?, bytes: Vec::new() })
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.bytes.extend_from_slice(&chunk[..length]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn nonblocking(pipe: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    Ok(pipe)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The ids of this process as the only ones of a user namespace.
struct OwnIds {
    users: String,
    groups: String,
}

impl OwnIds {
    fn current() -> Self {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { users: format!("{user} {user} 1"), groups: format!("{group} {group} 1") }
    }

    /// Maps them in a user namespace that this process has just made.
    fn map(&self) -> io::Result<()> {
        for (file, text) in [
            ("/proc/self/setgroups", "deny"),
            ("/proc/self/uid_map", &self.users),
            ("/proc/self/gid_map", &self.groups),
        ] {
            let file = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, text.as_bytes())?;
        }
        Ok(())
    }
}

/// In the child of osbc: becomes the supervisor, and returns in the process that is to be the program.
fn enter(osbc: Pid, own_ids: &OwnIds) -> io::Result<()> {
    // Whatever handlers osbc has, they are not to run here.
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let separate = make_namespace(own_ids)?;
    let signal = if separate { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
    set_parent_process_death_signal(Some(signal))?;
    if getppid() != osbc {
        // It may have died before its death could be noticed.
        return Err(Errno::CHILD.into());
    }
    if separate {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        #[expect(unsafe_code, reason = "the first process of the new namespace must be a child")]
        // SAFETY: this process has a single thread, and its child allocates nothing.
        if let ForkResult::Parent { child: init } = unsafe { fork() }? {
            supervise(init, read);
        }
        drop(read);
        become_init(write)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(())
}

/// Makes children of this process members of a new pid namespace; false where nobody may.
fn make_namespace(own_ids: &OwnIds) -> io::Result<bool> {
    let refused = |error: nix::Error| matches!(error, nix::Error::EPERM | nix::Error::ENOSPC | nix::Error::EINVAL);
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => return Ok(true),
        Err(error) if refused(error) => {}
        Err(error) => return Err(error.into()),
    }
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID) {
        Ok(()) => own_ids.map().map(|()| true),
        Err(error) if refused(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The supervisor: waits for the end of init, or brings it about when it gets a signal, and ends as the program did.
fn supervise(init: Pid, status: OwnedFd) -> ! {
    close_all_but(status.as_fd());
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => match waitpid(init, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                Ok(_) => {}
            },
            // Its end is another signal.
            _ => drop(kill(init, Signal::SIGKILL)),
        }
    }
    let mut bytes = [0; size_of::<i32>()];
    match rustix::io::read(&status, &mut bytes) {
        Ok(length) if length == bytes.len() => end_as(i32::from_ne_bytes(bytes)),
        // Init was killed before the program ended.
        _ => end_as(libc::SIGKILL),
    }
}

/// Ends this process as one that has ended with a status of wait(2).
fn end_as(status: i32) -> ! {
    #[expect(
        unsafe_code,
        reason = "a process that was forked from one with threads ends at once, and as its child did"
    )]
    // SAFETY: the calls are allowed after a fork, and this process has a single thread. Not dumpable, it leaves no
    // core.
    unsafe {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            libc::signal(signal, libc::SIG_DFL);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).ok();
            libc::raise(signal);
            libc::_exit(128 + signal);
        }
        libc::_exit(libc::WEXITSTATUS(status))
    }
}

/// Stays as the namespace's init, which waits for all processes and ends with the program; returns in the process that
/// is to be that.
fn become_init(status: OwnedFd) -> io::Result<()> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The supervisor may have died before its death could be noticed: then nobody has the other end.
    let mut polled = [PollFd::new(&status, PollFlags::empty())];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        return Err(Errno::CHILD.into());
    }
    #[expect(unsafe_code, reason = "init is no program, so it needs a child to be one")]
    // SAFETY: this process has a single thread, and its child allocates nothing.
    let ForkResult::Parent { child: program } = unsafe { fork() }? else { return Ok(()) };
    close_all_but(status.as_fd());
    loop {
        let mut raw = 0;
        #[expect(unsafe_code, reason = "the status is passed on as it is")]
        // SAFETY: the status is written to the variable. Ending at once runs nothing of osbc's.
        unsafe {
            let ended = libc::waitpid(-1, &raw mut raw, 0);
            if ended == program.as_raw() {
                rustix::io::write(&status, &raw.to_ne_bytes()).ok();
                libc::_exit(0);
            }
            if ended < 0 && Errno::from_io_error(&io::Error::last_os_error()) != Some(Errno::INTR) {
                libc::_exit(1);
            }
        }
    }
}

/// Closes what osbc had open: nobody is to wait for the end of a pipe, or for a lock, because of this process.
fn close_all_but(kept: BorrowedFd<'_>) {
    let kept = kept.as_raw_fd();
    for (first, last) in [(0, kept - 1), (kept + 1, RawFd::MAX)] {
        if first <= last {
            #[expect(unsafe_code, reason = "no dependency wraps close_range")]
            // SAFETY: this process uses nothing but the descriptor that it keeps.
            unsafe {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use osbc_fixtures::{has_root, has_tool};
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// A file that a daemon keeps locked for as long as it lives.
    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// A program that leaves a daemon, by all means of getting away, and then does as `end` says.
        fn program(&self, means: &str, end: &str) -> Command {
            let mut command = Command::new("/bin/sh");
            let daemon = format!("setsid --fork {means} flock lock sh -c 'touch there; sleep 300' >/dev/null 2>&1 &");
            command.arg("-c").arg(format!("{daemon} while ! test -e there; do sleep 0.02; done; {end}"));
            command.current_dir(self.directory.path());
            command
        }

        fn wait_for(&self, name: &str) {
            let start = Instant::now();
            while !self.path(name).exists() {
                assert!(start.elapsed() < TIMEOUT, "there is no {name}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        /// Whether the daemon began, and has ended.
        fn is_over(&self) -> bool {
            assert!(self.path("there").exists());
            is_unlocked(&self.path("lock"))
        }
    }

    fn is_unlocked(path: &Path) -> bool {
        flock(File::open(path).unwrap(), FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    fn never() -> bool {
        false
    }

    #[test]
    fn what_a_program_leaves_running_ends_with_it() {
        if !has_tool("flock") || !has_tool("setsid") {
            return;
        }
        let place = Place::new();
        let output = output(&mut place.program("", "cat; echo done >&2; exit 7"), b"text", &never).unwrap().unwrap();
        assert!(place.is_over());
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"text"[..], &b"done\n"[..]));
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn root_a_daemon_in_a_mount_namespace_of_its_own_ends_with_its_program() {
        if !has_root() || !has_tool("flock") || !has_tool("unshare") {
            return;
        }
        let place = Place::new();
        let output = output(&mut place.program("unshare --mount", "kill -9 $$"), b"", &never).unwrap().unwrap();
        assert!(place.is_over());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "it ends as the program");
    }

    #[test]
    fn an_interrupt_ends_a_program_and_what_it_started() {
        if !has_tool("flock") || !has_tool("setsid") {
            return;
        }
        let place = Place::new();
        let ran = output(&mut place.program("", "trap '' TERM INT; sleep 300"), b"", &|| place.path("there").exists());
        assert!(ran.unwrap().is_none());
        assert!(place.is_over());
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        if !has_tool("flock") || !has_tool("setsid") {
            return;
        }
        let place = Place::new();
        let mut child = std::thread::scope(|scope| {
            let start = || {
                let mut command = place.program("", "sleep 300");
                contain(&mut command);
                let child = command.spawn().unwrap();
                place.wait_for("there");
                child
            };
            scope.spawn(start).join().unwrap()
        });
        assert!(!child.wait().unwrap().success());
        assert!(place.is_over());
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error_and_much_is_read_while_much_is_written() {
        let missing = output(&mut Command::new("/nowhere/program"), b"", &never).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let text = vec![b'x'; 3 << 20];
        let output = output(&mut Command::new("/bin/cat"), &text, &never).unwrap().unwrap();
        assert!(output.stdout == text && output.status.success());
        assert!(super::output(&mut Command::new("/bin/true"), &text, &never).unwrap().unwrap().status.success());
    }
}
