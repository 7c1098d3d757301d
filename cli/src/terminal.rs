//! Connects the user's terminal to a shell in a sandbox, and restores it afterwards. If standard input is no terminal,
//! the shell gets it as it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use osbc_sandbox::client::shell::{Shell, ShellUi};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::SigId;
use signal_hook::consts::SIGWINCH;

use crate::monitor::Screen;

/// How much is passed on at once.
const CHUNK: usize = 16 << 10;

/// Connects shells to the streams of this process.
pub(crate) struct Terminal {
    screen: Screen,
    code: OnceLock<i32>,
}

impl Terminal {
    /// With the screen that makes way for them.
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen, code: OnceLock::new() }
    }

    /// Returns the exit code of the first shell; `None` if there was no shell, or it was cut off.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.code.get().copied()
    }
}

impl ShellUi for Terminal {
    fn attend(&self, shell: Shell) -> io::Result<()> {
        let _hidden = self.screen.hide();
        if isatty(stdin()) && isatty(stdout()) {
            share_terminal(&shell)?;
        } else {
            shell.connect([stdin(), stdout(), stderr()])?;
        }
        let code = shell.wait()?;
        self.code.get_or_init(|| code);
        Ok(())
    }
}

/// The mode of the terminal, put back when dropped.
struct Raw(Termios);

impl Raw {
    /// Passes on every key as it is, `Ctrl-C` too.
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(stdin(), OptionalActions::Drain, &self.0).ok();
    }
}

/// What becomes readable when the terminal gets another size.
struct Resizes {
    readable: UnixStream,
    id: SigId,
}

impl Resizes {
    fn watch() -> io::Result<Self> {
        let (readable, write_end) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        let id = signal_hook::low_level::pipe::register(SIGWINCH, write_end)?;
        Ok(Self { readable, id })
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.id);
    }
}

/// Stands between the user's terminal and the shell's until the shell has ended.
fn share_terminal(shell: &Shell) -> io::Result<()> {
    let master = shell.terminal()?;
    let resizes = Resizes::watch()?;
    let pass_size = || {
        if let Ok(size) = tcgetwinsize(stdin()) {
            tcsetwinsize(&master, size).ok();
        }
    };
    pass_size();
    let _raw = Raw::enter()?;
    shell.begin()?;
    let mut chunk = vec![0; CHUNK];
    let mut typed = true;
    loop {
        let keys = if typed { PollFlags::IN } else { PollFlags::empty() };
        let ended = shell.ended();
        let mut polled = [
            PollFd::new(&master, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
            PollFd::new(&resizes.readable, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin(), keys),
        ];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let [output, end, resize, keys] = polled.map(|polled| !polled.revents().is_empty());
        // All that it wrote comes before its end.
        if output && pass_on(master.as_fd(), stdout(), &mut chunk)? {
            continue;
        }
        if end {
            return Ok(());
        }
        if resize {
            rustix::io::read(&resizes.readable, &mut chunk[..]).ok();
            pass_size();
        }
        if keys {
            typed = pass_on(stdin(), master.as_fd(), &mut chunk)?;
        }
    }
}

/// Passes on what there is; false when there will be no more.
fn pass_on(from: BorrowedFd<'_>, to: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<bool> {
    let length = match rustix::io::read(from, &mut *chunk) {
        // A terminal says so when nobody has its other end open any more.
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        other => other?,
    };
    let mut rest = &chunk[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
