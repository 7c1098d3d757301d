//! Programs of a tree that are watched while they run: they end in time and leave nothing running.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use osbc_module_api::Error;

use super::contain::{Contained, Rights};
use super::image::Image;

/// The pause between two looks at what a program started.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long what a program started may take to end after it.
const GRACE: Duration = Duration::from_secs(2);
/// How much of a command line a message has.
const SHOWN: usize = 200;

/// The numbers of a program and of the process that started it, in their pid namespace.
const PROGRAM: u32 = 2;
const FIRST: u32 = 1;

/// How long a program may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// The time.
    pub(crate) time: Duration,
    /// The option that sets it.
    pub(crate) option: Option<&'static str>,
}

/// What may take how long. Where there is any limit, nothing may be left running.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// The program.
    pub(super) own: Option<Limit>,
    /// Each program that it starts itself.
    pub(super) each: Option<Limit>,
}

/// Runs a program in the calling thread's mount namespace and returns how it ended. Nothing that it started is there any
/// more afterwards.
///
/// # Errors
/// It cannot be started, something is not done in time, or, if there is any limit, it leaves a process running.
pub(super) fn status(program: &Path, image: Image, rights: Rights, limits: Limits) -> Result<ExitStatus, Error> {
    let wait_for = |error: io::Error| Error::io("wait for", program)(error);
    let mut contained = Contained::start(program, image, rights)?;
    let begin = Instant::now();
    let mut seen = HashMap::new();
    let is_attended = limits.own.is_some() || limits.each.is_some();
    let status = loop {
        if let Some(status) = contained.ended(is_attended.then_some(POLL_INTERVAL)).map_err(wait_for)? {
            break status;
        }
        let processes = processes();
        let own = limits.own.filter(|limit| begin.elapsed() > limit.time);
        let own = own.map(|limit| (program.display().to_string(), limit));
        if let Some((name, Limit { time, option })) = own.or_else(|| late(&processes, &mut seen, limits.each)) {
            contained.end().map_err(wait_for)?;
            let option = option.map(|name| format!(" (`{name}` says how long it may take)")).unwrap_or_default();
            let (time, what) = (time.as_secs(), words(&processes));
            return Err(Error::failed(format!(
                "{name} was not done after {time} s{option} and was ended; there ran: {what}"
            )));
        }
    };
    if is_attended && !contained.is_empty(GRACE).map_err(wait_for)? {
        let left = processes();
        contained.end().map_err(wait_for)?;
        let (name, what) = (program.display(), words(&left));
        return Err(Error::failed(format!("{name} left processes running, which it may not: {what}")));
    }
    contained.end().map_err(wait_for)?;
    Ok(status)
}

/// A process of a program's pid namespace.
#[derive(Debug)]
struct Process {
    number: u32,
    parent: u32,
    /// Its command line.
    words: String,
}

/// Returns the processes of the pid namespace that the calling thread's `/proc` shows, but for the first one.
fn processes() -> Vec<Process> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number != FIRST).filter_map(Process::read).collect()
}

impl Process {
    /// Reads what is known of a process; `None` if it ended.
    fn read(number: u32) -> Option<Self> {
        let file = |name: &str| fs::read(format!("/proc/{number}/{name}"));
        let stat = String::from_utf8_lossy(&file("stat").ok()?).into_owned();
        // Behind the name, which may hold anything: the state, and the parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let words = file("cmdline").unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
        let shown =
            words.chars().take(SHOWN).map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char });
        Some(Self { number, parent, words: shown.collect() })
    }
}

/// Returns what the program started itself and has been there for longer than `limit`, by when each was `seen` first.
fn late(processes: &[Process], seen: &mut HashMap<u32, Instant>, limit: Option<Limit>) -> Option<(String, Limit)> {
    let limit = limit?;
    let started: Vec<&Process> = processes.iter().filter(|process| process.parent == PROGRAM).collect();
    seen.retain(|number, _| started.iter().any(|process| process.number == *number));
    let late = started
        .into_iter()
        .find(|process| seen.entry(process.number).or_insert_with(Instant::now).elapsed() > limit.time);
    late.map(|process| (format!("`{}`", process.words), limit))
}

fn words(processes: &[Process]) -> String {
    processes.iter().map(|process| format!("`{}`", process.words)).collect::<Vec<_>>().join(", ")
}
