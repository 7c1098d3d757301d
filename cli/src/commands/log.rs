//! `osbc log`: the recorded builds, the stages of one, and the log of a stage.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use osbc_engine::timeline::{BuildTimeline, State, TimelineNode};
use osbc_executor::record::{BuildRecord, Header};
use osbc_ir::printable;
use osbc_store::fs::regular;
use serde::Serialize;
use serde_json::json;

use crate::args::LogArgs;
use crate::builds::{self, Builds, events, find_stage, short, unreadable};
use crate::exit::Failure;
use crate::output::{print, print_as_is, say};
use crate::render;

/// How many of the last lines of a failed stage's log are shown with the stages of its build.
const LAST_LINES: usize = 20;

/// Prints.
pub(crate) fn run(args: &LogArgs) -> Result<ExitCode, Failure> {
    let builds = Builds::of(args.store.as_deref())?;
    if args.list {
        return Ok(print(list(builds.all(), args.json).as_bytes())?);
    }
    let (record, stage) = match (&args.build, &args.stage) {
        (None, _) => (builds.last()?, None),
        (Some(build), stage) => match (builds.find(build)?, stage) {
            (Some(record), stage) => (record, stage.as_deref()),
            // One name may be that of a stage of the last build.
            (None, None) if !builds.all().is_empty() => (builds.last()?, Some(build.as_str())),
            (None, _) => return Err(no_such_build(build)),
        },
    };
    let past = BuildTimeline::new(&events(record)?);
    let Some(name) = stage else {
        return Ok(print(show_build(record, &past, args.json).as_bytes())?);
    };
    let Some(node) = find_stage(&past, name)? else {
        return Err(match &args.stage {
            Some(_) => Failure::arguments(format!("the build {} has no stage `{name}`", record.header.build)),
            None => Failure::arguments(format!("no recorded build and no stage of the last one is called `{name}`")),
        });
    };
    show_stage(&builds, record, node, args.json)
}

pub(crate) fn no_such_build(name: &str) -> Failure {
    Failure::arguments(format!("no recorded build is called `{name}`; `osbc log --list` shows them"))
}

/// How a build ended, in a word.
pub(crate) fn result(record: &BuildRecord) -> &'static str {
    match &record.header.end {
        Some(end) if end.interrupted => "interrupted",
        Some(end) if end.success => "done",
        Some(_) => "failed",
        None if record.is_running() => "running",
        None => "died",
    }
}

/// A build as data: an element of `osbc log --list --json`.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    result: &'static str,
    header: &'a Header,
}

fn list(records: &[BuildRecord], json: bool) -> String {
    if json {
        let listed: Vec<_> =
            records.iter().map(|record| Listed { result: result(record), header: &record.header }).collect();
        return serde_json::to_string_pretty(&listed).expect("headers have nothing that JSON lacks") + "\n";
    }
    if records.is_empty() {
        return "no build is recorded in this store\n".to_owned();
    }
    let header = ["BUILD", "RESULT", "TIME", "RAN", "FAILED", "CACHED", "MANIFEST", "EXPORTS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for record in records {
        let header = &record.header;
        let count = |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let end = header.end.as_ref();
        rows.push(vec![
            header.build.clone(),
            result(record).to_owned(),
            end.map_or_else(|| "-".to_owned(), |end| render::duration(Duration::from_micros(end.duration))),
            count(end.map(|end| end.ran)),
            count(end.map(|end| end.failed)),
            count(end.map(|end| end.cached)),
            header.manifest.path.clone(),
            header.exports.join(", "),
        ]);
    }
    render::table(&rows)
}

/// Nodes in the order in which they are shown: what failed, then what ran, as it began.
fn in_order(past: &BuildTimeline) -> Vec<&TimelineNode> {
    let mut nodes: Vec<&TimelineNode> = past.nodes.values().collect();
    nodes.sort_by_key(|node| (node.state, node.started));
    nodes
}

fn show_build(record: &BuildRecord, past: &BuildTimeline, json: bool) -> String {
    let header = &record.header;
    if json {
        let document = json!({"result": result(record), "header": header, "nodes": in_order(past)});
        return format!("{document:#}\n");
    }
    let mut text = format!("build {}: {}", header.build, result(record));
    if let Some(end) = &header.end {
        write!(text, " in {}", render::duration(Duration::from_micros(end.duration))).expect("a string grows");
    }
    write!(text, "\n{}: {}\n\n", header.manifest.path, printable::line(&header.exports.join(", ")))
        .expect("a string grows");
    let nodes = in_order(past);
    let mut rows = Vec::new();
    for same in nodes.chunk_by(|one, other| folds(one) && folds(other) && one.state == other.state) {
        rows.push(match same {
            [only] => row(only),
            several => vec![several[0].state.word().to_owned(), render::count(several.len(), "node")],
        });
    }
    text += &render::table(&rows);
    for node in nodes.iter().filter(|node| node.state == State::Failed) {
        write!(text, "\n{}\n  {}\n", node.name(), node.error.as_deref().unwrap_or("it gives no reason"))
            .expect("a string grows");
        let Some(name) = &node.log else { continue };
        let path = record.directory.join(name);
        let log = regular::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            writeln!(text, "    {line}").expect("a string grows");
        }
        writeln!(text, "  log: {}", path.display()).expect("a string grows");
    }
    text
}

/// Whether a node shares a line with others of its state.
fn folds(node: &TimelineNode) -> bool {
    matches!(node.state, State::Cached | State::NotStarted) || (!node.is_stage() && node.state == State::Done)
}

fn row(node: &TimelineNode) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        node.state.word().to_owned(),
        node.name(),
        short(&node.about.id).to_owned(),
        or_dash(node.duration().map(|micros| render::duration(Duration::from_micros(micros)))),
        or_dash(node.bytes.map(render::bytes)),
        node.log.clone().unwrap_or_default(),
    ]
}

fn show_stage(builds: &Builds, record: &BuildRecord, node: &TimelineNode, json: bool) -> Result<ExitCode, Failure> {
    let found = match &node.log {
        Some(log) => Some((record, log.clone())),
        None => made_by(builds, record, &node.about.id),
    };
    let Some((record, log)) = found else {
        return Err(Failure::arguments(format!(
            "{} has no log: in the build {} it is {}, and no recorded build ran it",
            node.name(),
            record.header.build,
            node.state.word()
        )));
    };
    let path = record.directory.join(&log);
    let content = regular::read(&path).map_err(|error| unreadable(&path, &error))?;
    if json {
        let text = String::from_utf8_lossy(&content);
        let document = json!({"build": record.header.build, "node": node, "path": path.to_string_lossy(), "log": text});
        return Ok(print(format!("{document:#}\n").as_bytes())?);
    }
    if node.log.is_none() {
        say(&format!(
            "osbc: {} was {}; this is its log of the build {}",
            node.name(),
            node.state.word(),
            record.header.build
        ));
    }
    // Into a file or a pipe it is copied.
    Ok(if io::stdout().is_terminal() { print(&content) } else { print_as_is(&content) }?)
}

/// The newest build before this one that ran a stage, and the log of it there.
fn made_by<'a>(builds: &'a Builds, record: &BuildRecord, id: &str) -> Option<(&'a BuildRecord, String)> {
    let older = builds.all().iter().filter(|other| other.header.started < record.header.started);
    older.into_iter().find_map(|other| {
        let past = BuildTimeline::new(&builds::events(other).ok()?);
        let log = past.nodes.into_values().find(|node| node.about.id == id)?.log?;
        Some((other, log))
    })
}
