//! A shell in the place of a stage: the sandbox's side.
//!
//! It runs in the stage's process, before the module, instead of it or after it has failed, and sees what the module
//! sees.
//!
//! It talks to osbc ([`crate::client::shell`]) on a connection made before the sandbox was entered:
//!
//! ```text
//! sandbox → osbc   WANTED
//! osbc → sandbox   one byte: with three descriptors, the shell's streams; without, the sandbox opens a terminal of its
//!                  own and sends the other end of that back with another byte
//! sandbox → osbc   the exit code, four bytes, little-endian
//! ```

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use osbc_module_api::StageContext;
use rustix::fs::{Mode, OFlags};
use rustix::net::SocketAddrUnix;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use super::{arguments, message, spec};
use crate::request::{SHELL_NOT_STARTED, ShellMoment, ShellRequest, StageFailure, StageRequest};

/// What the sandbox says when it wants a shell's streams.
pub(crate) const WANTED: u8 = b'?';

/// What is tried, in order.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// A connection to whoever listens for a stage's shell.
///
/// # Errors
/// Nobody does.
pub(crate) fn connect(shell: &ShellRequest) -> io::Result<UnixStream> {
    // An address holds some hundred bytes, and stores may lie deep.
    let directory = shell.socket.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let socket = message::socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(message::address(&directory, &shell.socket))?)?;
    Ok(UnixStream::from(socket))
}

/// Runs a shell until it ends, and returns its exit code. `failure` is that of the module; none before it.
///
/// # Errors
/// osbc is gone, or the shell cannot be started.
pub(crate) fn run(
    connection: &UnixStream,
    request: &StageRequest,
    context: &StageContext,
    failure: Option<&StageFailure>,
) -> io::Result<i32> {
    (&*connection).write_all(&[WANTED])?;
    let (bytes, streams) = message::receive_byte(connection)?;
    if bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let [stdin, stdout, stderr] = match <[OwnedFd; 3]>::try_from(streams) {
        Ok(streams) => streams,
        Err(_) => terminal(connection)?,
    };
    let mut screen = std::fs::File::from(stderr.try_clone()?);
    let code = match start(request, context, failure, &mut screen, [stdin, stdout, stderr]) {
        Ok(code) => code,
        Err(error) => {
            writeln!(screen, "osbc: cannot start a shell: {error}")?;
            SHELL_NOT_STARTED
        }
    };
    (&*connection).write_all(&code.to_le_bytes())?;
    Ok(code)
}

/// Opens a terminal of the sandbox's own and sends its other end to osbc.
fn terminal(connection: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    message::send_descriptor(connection, Some(std::os::fd::AsFd::as_fd(&master)))?;
    // It has its size when osbc says so, so that the first prompt is in the right place.
    (&*connection).read_exact(&mut [0])?;
    Ok([slave.try_clone()?, slave.try_clone()?, slave])
}

fn start(
    request: &StageRequest,
    context: &StageContext,
    failure: Option<&StageFailure>,
    screen: &mut impl Write,
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> io::Result<i32> {
    let shell = SHELLS.into_iter().find(|shell| Path::new(shell).is_file());
    let shell = shell.ok_or_else(|| io::Error::other("the build root has neither /bin/bash nor /bin/sh"))?;
    let module = &request.module.name;
    let moment = request.shell.as_ref().map(|shell| shell.moment);
    let why = match (moment, failure) {
        (Some(ShellMoment::AfterFailure), Some(failure)) => format!("{module} failed: {failure}"),
        (Some(ShellMoment::Before), _) => format!("{module} runs after this shell, unless that fails (`exit 1`)."),
        _ => format!("{module} has not run; all that comes before it is done."),
    };
    let kept = match moment {
        Some(ShellMoment::Before) => "What is done in the tree stays there.",
        _ => "What is done here is not kept.",
    };
    screen.write_all(format!("{why}\nThis is a shell in its sandbox. {kept}\n{}", places(context)).as_bytes())?;
    let has_terminal = rustix::termios::isatty(&stdin);
    let mut command = Command::new(shell);
    // Nothing that the build root brings along shall change the prompt, which says where one is.
    let directory = if shell == SHELLS[0] {
        command.args(["--norc", "--noprofile"]);
        "\\w"
    } else {
        "$PWD"
    };
    let module = module.strip_prefix("org.osbuild.").unwrap_or(module);
    command.env("HOME", "/tmp").env("PS1", format!("[{module}] {directory} # "));
    command.current_dir(spec::TREE).stdin(stdin).stdout(stdout).stderr(stderr);
    #[expect(unsafe_code, reason = "a session of its own is what job control takes")]
    // SAFETY: both are system calls that may be made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if has_terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            Ok(())
        });
    }
    let status = command.spawn()?.wait()?;
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

/// Says where things are.
fn places(context: &StageContext) -> String {
    let mut text = String::new();
    let mut line = |title: &str, path: &Path| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {title:<12} {}", path.display());
    };
    line("tree", Path::new(spec::TREE));
    for (name, input) in &context.inputs {
        line(&format!("input {name}"), &input.path);
    }
    for (name, device) in &context.devices {
        line(&format!("device {name}"), &device.path);
    }
    for (name, mount) in &context.mounts {
        line(&format!("mount {name}"), &mount.path);
    }
    line("arguments", Path::new(arguments::FILE));
    text
}
