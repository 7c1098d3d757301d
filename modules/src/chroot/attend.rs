//! Programs of a tree that are watched while they run: they end in time and leave nothing running.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use std::{fs, thread};

use osbc_module_api::Error;
use rustix::process::{Pid, Signal, kill_process};

use super::architecture::cannot_start;

/// The pause between two looks at a program.
const BLINK: Duration = Duration::from_millis(5);
/// How long what a program started may take to end after it.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a command in the calling thread's own mount namespace and returns how it ended. What it starts is told by being
/// in that namespace, where no other process is.
///
/// # Errors
/// It cannot be started, is not done in time, or leaves a process running. Whatever it started is gone then.
pub(super) fn status(command: &mut Command, program: &Path, limit: Duration) -> Result<ExitStatus, Error> {
    let name = program.display();
    let mut child = command.spawn().map_err(cannot_start(program))?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(Error::io("wait for", program))? {
            break status;
        }
        if begin.elapsed() > limit {
            let what = words(&running());
            end_all()?;
            child.wait().map_err(Error::io("wait for", program))?;
            let limit = limit.as_secs();
            return Err(Error::failed(format!("{name} was not done after {limit} s and was ended; there ran: {what}")));
        }
        thread::sleep(BLINK);
    };
    let end = Instant::now();
    loop {
        let left = running();
        if left.is_empty() {
            return Ok(status);
        }
        if end.elapsed() > GRACE {
            end_all()?;
            let what = words(&left);
            return Err(Error::failed(format!("{name} left processes running, which it may not: {what}")));
        }
        thread::sleep(BLINK);
    }
}

/// The processes of the calling thread's mount namespace, with their command lines.
fn running() -> Vec<(Pid, String)> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    let Ok(own) = namespace("thread-self") else { return Vec::new() };
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let pid = Pid::from_raw(name.parse().ok()?)?;
        // A process that ended meanwhile has none.
        if namespace(&name).ok()? != own {
            return None;
        }
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
        Some((pid, words))
    });
    found.collect()
}

/// Ends all of them, also what they start meanwhile.
fn end_all() -> Result<(), Error> {
    let begin = Instant::now();
    loop {
        let left = running();
        if left.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > GRACE {
            return Err(Error::io("end", Path::new("/proc"))(io::Error::other(words(&left))));
        }
        for (pid, _) in left {
            // One that ended by itself is as good.
            kill_process(pid, Signal::KILL).ok();
        }
        thread::sleep(BLINK);
    }
}

fn words(running: &[(Pid, String)]) -> String {
    running.iter().map(|(_, words)| format!("`{words}`")).collect::<Vec<_>>().join(", ")
}
