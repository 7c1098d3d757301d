//! The content of a build's report ([`Page`]); `templates/report.html` has its layout.

mod path;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use askama::Template;
use osbc_compiler::draw::{Annotation, Format, Level, Mark, draw_annotated};
use osbc_engine::timeline::{BuildTimeline, State, TimelineNode};
use osbc_executor::event::Wait;
use osbc_executor::event::line::EventLine;
use osbc_executor::record::Header;
use osbc_ir::Graph;
use osbc_ir::graph::NodeIndex;
use osbc_store::fs::regular;

use crate::render;

/// How much of each log the page holds, from its end.
const LOG: usize = 64 << 10;
/// A graph with more stages is drawn pipeline by pipeline.
const STAGES: usize = 400;
/// How many marks the time's axis has at most.
const TICKS: u64 = 8;

/// What a page says.
#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page {
    name: String,
    result: &'static str,
    succeeded: bool,
    facts: Vec<(&'static str, String)>,
    tiles: Vec<Tile>,
    failures: Vec<Row>,
    ticks: Vec<Tick>,
    lanes: Vec<Lane>,
    path: Vec<Step>,
    path_total: String,
    graph: String,
    graph_note: &'static str,
    tables: [Table; 2],
}

/// What a kind of node cost, each for itself.
struct Table {
    id: &'static str,
    title: &'static str,
    /// What its bytes are.
    column: &'static str,
    rows: Vec<Row>,
}

struct Tile {
    value: String,
    label: &'static str,
}

/// A mark on the time's axis.
struct Tick {
    left: String,
    label: String,
}

/// A row of the timeline.
struct Lane {
    name: String,
    bars: Vec<Bar>,
}

/// Something on a row, in percent of the whole time.
struct Bar {
    node: usize,
    left: String,
    width: String,
    class: &'static str,
    label: String,
    tip: String,
}

/// A step of the critical path.
struct Step {
    node: usize,
    name: String,
    time: String,
    /// Its share of the path, in percent.
    share: String,
    wait: Option<String>,
}

/// A stage or item in a list.
struct Row {
    node: usize,
    name: String,
    id: String,
    state: State,
    time: Option<String>,
    micros: u64,
    /// Its share of the longest, in percent.
    share: String,
    bytes: Option<String>,
    size: u64,
    wait: Option<String>,
    error: Option<String>,
    log: Option<String>,
    /// How much of the log is not on the page.
    left_out: Option<String>,
}

impl Row {
    /// The class of what is in its state.
    fn class(&self) -> &'static str {
        match self.state {
            State::Failed => "is-failed",
            State::Unfinished => "is-unfinished",
            State::Done => "is-done",
            State::Cached => "is-cached",
            State::NotStarted => "is-idle",
        }
    }
}

impl Page {
    /// What there is to say about a build. `logs` is the directory of its logs.
    pub(crate) fn new(header: &Header, result: &'static str, lines: &[EventLine], graph: &Graph, logs: &Path) -> Self {
        let past = BuildTimeline::new(lines);
        let path = path::critical(&past, graph);
        let whole = past.last.max(1);
        let longest = past.nodes.values().filter_map(TimelineNode::duration).max().unwrap_or(0).max(1);
        let row = |node: &TimelineNode| Row::new(node, longest, logs);
        let mut stages: Vec<&TimelineNode> = past.nodes.values().filter(|node| node.is_stage()).collect();
        let mut items: Vec<&TimelineNode> = past.nodes.values().filter(|node| !node.is_stage()).collect();
        for nodes in [&mut stages, &mut items] {
            nodes.sort_by_key(|node| (node.started.is_none(), node.started, node.about.node));
        }
        let failed = past.nodes.values().filter(|node| node.state == State::Failed);
        let (graph, graph_note) = picture(&past, graph);
        Self {
            name: header.manifest.path.rsplit('/').next().unwrap_or_default().to_owned(),
            result,
            succeeded: result == "done",
            facts: facts(header),
            tiles: tiles(&past),
            failures: failed.map(row).collect(),
            ticks: ticks(whole),
            lanes: lanes(&past, &path, whole),
            path_total: time(sum(path.iter().map(path::Step::total))),
            path: steps(&past, &path),
            graph,
            graph_note,
            tables: [
                Table { id: "stages", title: "Stages", column: "written", rows: stages.into_iter().map(row).collect() },
                Table {
                    id: "items",
                    title: "Source items",
                    column: "size",
                    rows: items.into_iter().map(row).collect(),
                },
            ],
        }
    }
}

impl Page {
    /// The page as HTML. Control characters, which names may hold, are none of it.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn html(&self) -> Result<String, askama::Error> {
        let mut html = self.render()?;
        html.retain(|char| !char.is_control() || char == '\n' || char == '\t');
        Ok(html)
    }
}

impl Row {
    fn new(node: &TimelineNode, longest: u64, logs: &Path) -> Self {
        let waited = sum(node.waits.iter().map(|wait| wait.until.saturating_sub(wait.since)));
        let text = node.log.as_ref().and_then(|log| regular::read(&logs.join(log)).ok()).unwrap_or_default();
        let shown = &text[text.len().saturating_sub(LOG)..];
        let left_out = text.len() - shown.len();
        Self {
            node: node.about.node,
            name: node.name(),
            id: node.about.id.clone(),
            state: node.state,
            time: node.duration().map(time),
            micros: node.duration().unwrap_or(0),
            share: percent(node.duration().unwrap_or(0), longest),
            bytes: node.bytes.map(render::bytes),
            size: node.bytes.unwrap_or(0),
            wait: (waited > 0).then(|| time(waited)),
            error: node.error.clone(),
            log: (!shown.is_empty()).then(|| legible(&String::from_utf8_lossy(shown))),
            left_out: (left_out > 0).then(|| render::bytes(left_out as u64)),
        }
    }
}

/// A text without what only a terminal understands.
fn legible(text: &str) -> String {
    let mut legible = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // A control sequence ends with its first letter or the like.
                for char in chars.by_ref() {
                    if ('@'..='~').contains(&char) {
                        break;
                    }
                }
            }
            '\n' | '\t' => legible.push(char),
            control if control.is_control() => {}
            plain => legible.push(plain),
        }
    }
    legible
}

/// Microseconds, for people.
fn time(micros: u64) -> String {
    render::duration(Duration::from_micros(micros))
}

/// A part of a whole, in percent.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.3}", 100.0 * part as f64 / whole.max(1) as f64)
}

/// The moment in a build's name, for people: `20260131T235959Z-…`.
fn moment(build: &str) -> Option<String> {
    let digits: Vec<&str> =
        [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(|at| build.get(at)).into_iter().collect::<Option<_>>()?;
    let [year, month, day, hour, minute, second] = digits[..] else { return None };
    Some(format!("{year}-{month}-{day} {hour}:{minute}:{second} UTC"))
}

fn facts(header: &Header) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("manifest", header.manifest.path.clone()),
        ("exports", header.exports.join(", ")),
        ("build", header.build.clone()),
        ("osbc", header.osbc.clone()),
        ("command", header.arguments.join(" ")),
    ];
    if let Some(end) = &header.end {
        facts.insert(2, ("took", time(end.duration)));
    }
    if let Some(began) = moment(&header.build) {
        facts.insert(2, ("began", began));
    }
    facts
}

fn tiles(past: &BuildTimeline) -> Vec<Tile> {
    let stages = || past.nodes.values().filter(|node| node.is_stage());
    let count = |nodes: &mut dyn Iterator<Item = &TimelineNode>| nodes.count().to_string();
    let busy = sum(stages().filter_map(TimelineNode::duration));
    let first = stages().filter_map(|node| node.started).min().unwrap_or(0);
    let last = stages().filter_map(|node| node.finished).max().unwrap_or(0);
    let waited = past.nodes.values().flat_map(|node| &node.waits).map(|wait| wait.until.saturating_sub(wait.since));
    let items = past.nodes.values().filter(|node| !node.is_stage() && node.state == State::Done);
    let fetched = sum(items.filter_map(|node| node.bytes));
    let written = sum(stages().filter_map(|node| node.bytes));
    let tile = |value: String, label: &'static str| Tile { value, label };
    let mut tiles = vec![
        tile(count(&mut stages().filter(|node| node.state == State::Done)), "stages ran"),
        tile(count(&mut past.nodes.values().filter(|node| node.state == State::Cached)), "cache hits"),
        tile(render::bytes(written), "written"),
        tile(render::bytes(fetched), "fetched"),
        tile(time(sum(waited)), "waited, all in all"),
    ];
    if last > first {
        tiles.push(tile(format!("{:.1}", busy as f64 / (last - first) as f64), "stages at a time"));
    }
    tiles
}

/// Returns the sum of numbers, or the largest number if a damaged record has it overflow.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Marks at round moments.
fn ticks(whole: u64) -> Vec<Tick> {
    let mut step = 1;
    let mut factors = [2, 5, 10].iter().cycle();
    let mut base = 1;
    while whole / step > TICKS {
        let factor = factors.next().expect("a cycle has no end");
        step = base * factor;
        if *factor == 10 {
            base = step;
        }
    }
    let moments = (0..=whole / step).map(|index| index * step);
    moments
        .map(|at| Tick { left: percent(at, whole), label: if at == 0 { "0".to_owned() } else { time(at) } })
        .collect()
}

fn lanes(past: &BuildTimeline, path: &[path::Step], whole: u64) -> Vec<Lane> {
    let critical: HashSet<usize> = path.iter().map(|step| step.node).collect();
    let mut lanes = Vec::new();
    for (of_stages, name) in [(true, "worker"), (false, "fetcher")] {
        let of = |node: &&TimelineNode| node.is_stage() == of_stages && node.worker.is_some();
        let workers: std::collections::BTreeSet<usize> =
            past.nodes.values().filter(of).filter_map(|node| node.worker).collect();
        for worker in workers {
            let mut nodes: Vec<&TimelineNode> =
                past.nodes.values().filter(of).filter(|node| node.worker == Some(worker)).collect();
            nodes.sort_by_key(|node| node.started);
            let bars = nodes.into_iter().map(|node| bar(node, critical.contains(&node.about.node), past.last, whole));
            lanes.push(Lane { name: format!("{name} {worker}"), bars: bars.collect() });
        }
    }
    lanes
}

fn bar(node: &TimelineNode, critical: bool, last: u64, whole: u64) -> Bar {
    let start = node.started.unwrap_or(0);
    let end = node.finished.unwrap_or(last);
    let class = match (node.state, critical, node.is_stage()) {
        (State::Failed, ..) => "bar-failed",
        (State::Unfinished, ..) => "bar-unfinished",
        (_, true, _) => "bar-critical",
        (_, false, true) => "bar-stage",
        (_, false, false) => "bar-item",
    };
    let mut tip = format!("{}\n{} from {} on", node.name(), time(end.saturating_sub(start)), time(start));
    for wait in &node.waits {
        let what = waited_for(wait.reason);
        tip += &format!("\nwaited {} for {what}", time(wait.until.saturating_sub(wait.since)));
    }
    if critical {
        tip += "\non the critical path";
    }
    let module = node.about.module.strip_prefix("org.osbuild.").unwrap_or(&node.about.module);
    Bar {
        node: node.about.node,
        left: percent(start, whole),
        width: percent(end.saturating_sub(start), whole),
        class,
        label: module.to_owned(),
        tip,
    }
}

fn waited_for(reason: Wait) -> &'static str {
    match reason {
        Wait::Worker => "a worker",
        Wait::Admission => "room on the machine",
    }
}

fn steps(past: &BuildTimeline, path: &[path::Step]) -> Vec<Step> {
    let whole = sum(path.iter().map(path::Step::total));
    let step = |step: &path::Step| {
        Some(Step {
            node: step.node,
            name: past.nodes.get(&step.node)?.name(),
            time: time(step.took),
            share: percent(step.took, whole),
            wait: (step.waited >= 1000).then(|| time(step.waited)),
        })
    };
    path.iter().filter_map(step).collect()
}

/// Draws the graph, coloured by the state of each node.
fn picture(past: &BuildTimeline, graph: &Graph) -> (String, &'static str) {
    let annotate = |index: NodeIndex| {
        let Some(node) = past.nodes.get(&index.index()) else {
            return Some(Annotation { mark: Mark::Unneeded, reason: None, link: None });
        };
        let mark = match (node.state, node.is_stage()) {
            (State::Failed, _) => Mark::Failed,
            (State::Cached, _) => Mark::Cached,
            (State::Done, true) => Mark::Run,
            (State::Done, false) => Mark::Fetch,
            (State::Unfinished | State::NotStarted, _) => Mark::NotStarted,
        };
        let reason = node.error.clone().or_else(|| node.duration().map(time));
        Some(Annotation { mark, reason, link: Some(format!("#n{}", node.about.node)) })
    };
    let stages = graph.dag.node_indices().filter(|node| graph.stage_node(*node).is_some()).count();
    let (level, note) =
        if stages > STAGES { (Level::Pipeline, "one box a pipeline") } else { (Level::Stage, "one box a stage") };
    (draw_annotated(graph, &annotate, level, Format::Svg), note)
}

#[cfg(test)]
mod tests;
