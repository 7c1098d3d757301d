//! The summary of a build: for people, failures and a closing table; for programs, JSON.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use osbc_compiler::passes::{WrittenAction, WrittenPipeline, written_plan};
use osbc_engine::Exported;
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Cause, NodeOutcome, Outcome, Plan, printable, redact};
use serde_json::{Value, json};

use crate::{advice, render};

/// How many of the last lines of a failed stage's output are shown.
const LAST_LINES: usize = 20;

/// A finished build.
pub(crate) struct Summary<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    exported: HashMap<&'a str, &'a PathBuf>,
    pipelines: Vec<WrittenPipeline>,
}

/// What happened to the stages of one pipeline.
#[derive(Default)]
struct Counts {
    ran: usize,
    /// Those of `equal` included.
    cached: usize,
    equal: usize,
    shared: usize,
    failed: usize,
    /// Those that were interrupted included.
    not_started: usize,
    duration: Duration,
}

impl<'a> Summary<'a> {
    /// Sums up what came of a plan.
    pub(crate) fn new(plan: &'a Plan, outcome: &'a Outcome, exported: &'a [Exported]) -> Self {
        let exported = exported.iter().map(|one| (one.export.name.as_str(), &one.artifact)).collect();
        Self { plan, outcome, exported, pipelines: written_plan(plan).0 }
    }

    /// Every failure: what failed, why, with which options, its last words and its log.
    pub(crate) fn failures(&self) -> String {
        let mut text = String::new();
        for (node, outcome) in &self.outcome.nodes {
            let (place, name) = render::node_name(&self.plan.graph, *node);
            let (place, name) = (printable::line(place), printable::line(name));
            match outcome {
                NodeOutcome::Ran(result) if outcome.is_failure() => {
                    let error = advice::reason(result).unwrap_or("it gives no reason".into());
                    line(&mut text, &format!("\nfailed: {place}: {name}\n  {error}"));
                    if let Some(options) = self.options(*node) {
                        line(&mut text, &format!("  options: {}", indented(&format!("{options:#}"), "  ")));
                    }
                    let lines: Vec<&str> = result.output.lines().collect();
                    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
                    if !last.is_empty() {
                        let title = if last.len() < lines.len() { "the end of its output" } else { "its output" };
                        line(&mut text, &format!("  {title}:\n    {}", last.join("\n    ")));
                    }
                    if let Some(log) = &result.log {
                        line(&mut text, &format!("  log: {}", log.display()));
                    }
                }
                NodeOutcome::FetchFailed { error, cause } if outcome.is_failure() => {
                    let error = advice::with_advice(error, Some(*cause));
                    line(&mut text, &format!("\nfailed: {place}: {name}\n  {error}"));
                }
                _ => {}
            }
        }
        text
    }

    /// The closing table: a line for each pipeline that the build had to do with, and what it came to.
    pub(crate) fn table(&self, exporting: bool) -> String {
        let header = ["PIPELINE", "RAN", "CACHED", "SHARED", "TIME", "RESULT"].map(str::to_owned).to_vec();
        let mut rows = vec![header];
        let paths = self.paths();
        for pipeline in &self.pipelines {
            let counts = self.counts(pipeline);
            if pipeline.stages.iter().all(|stage| stage.action == WrittenAction::Unneeded)
                && !pipeline.stages.is_empty()
            {
                continue;
            }
            let time = if counts.duration.is_zero() { "-".to_owned() } else { render::duration(counts.duration) };
            let numbers = [counts.ran, counts.cached, counts.shared].map(|number| number.to_string());
            let mut row = vec![pipeline.name.clone()];
            row.extend(numbers);
            let paths = paths.get(pipeline.name.as_str()).map_or(&[][..], Vec::as_slice);
            row.extend([time, self.result(pipeline, &counts, paths)]);
            rows.push(row);
        }
        let mut text = if rows.len() > 1 { format!("\n{}", render::table(&rows)) } else { String::new() };
        let equal = self.outcome.nodes.values().filter(|node| matches!(node, NodeOutcome::Equal { .. })).count();
        if equal > 0 {
            let stages = render::count(equal, "stage");
            line(&mut text, &format!("\n{stages} not run: cached, since their trees have equal content"));
        }
        line(&mut text, &format!("\n{} in {}", self.word(), render::duration(self.outcome.duration)));
        if self.outcome.interrupted {
            let ran = |node: &&NodeOutcome| matches!(node, NodeOutcome::Ran(result) if result.success);
            let finished = render::count(self.outcome.nodes.values().filter(ran).count(), "stage");
            line(&mut text, &format!("{finished} finished and kept in the store: the next build continues from there"));
        }
        if !exporting && self.outcome.success() {
            line(&mut text, "results are in the store; -o DIR exports them");
        }
        text
    }

    /// The result as data: the shape of `osbc build --json`.
    pub(crate) fn json(&self) -> String {
        let pipelines: Vec<Value> = self
            .pipelines
            .iter()
            .map(|pipeline| {
                let counts = self.counts(pipeline);
                json!({
                    "name": pipeline.name,
                    "id": pipeline.stages.last().map(|stage| stage.id),
                    "ran": counts.ran,
                    "cached": counts.cached,
                    "equal": counts.equal,
                    "shared": counts.shared,
                    "failed": counts.failed,
                    "not_started": counts.not_started,
                    "milliseconds": milliseconds(counts.duration),
                })
            })
            .collect();
        let exports: Vec<Value> = self
            .plan
            .exports
            .iter()
            .map(|export| json!({"name": export.name, "path": self.exported.get(export.name.as_str()).map(|path| path.to_string_lossy())}))
            .collect();
        let document = json!({
            "success": self.outcome.success(),
            "interrupted": self.outcome.interrupted,
            "milliseconds": milliseconds(self.outcome.duration),
            "pipelines": pipelines,
            "exports": exports,
            "failures": self.outcome.nodes.iter().filter_map(|(node, outcome)| self.failure(*node, outcome)).collect::<Vec<_>>(),
            "metadata": self.metadata(),
        });
        format!("{document:#}\n")
    }

    fn failure(&self, node: NodeIndex, outcome: &NodeOutcome) -> Option<Value> {
        let (place, name) = render::node_name(&self.plan.graph, node);
        match outcome {
            NodeOutcome::Ran(result) if outcome.is_failure() => Some(json!({
                "pipeline": place,
                "module": name,
                "id": self.plan.graph.stage_node(node).map(|stage| stage.id),
                "options": self.options(node),
                "cause": result.cause,
                "error": advice::reason(result),
                "output": result.output,
                "log": result.log.as_ref().map(|path| path.to_string_lossy()),
            })),
            NodeOutcome::FetchFailed { error, cause } if outcome.is_failure() => {
                let error = advice::with_advice(error, Some(*cause));
                Some(json!({"module": place, "checksum": name, "cause": cause, "error": error}))
            }
            _ => None,
        }
    }

    /// What stages said about their results, by pipeline and module.
    fn metadata(&self) -> Value {
        let mut all = json!({});
        for pipeline in &self.pipelines {
            for stage in &pipeline.stages {
                let metadata = match self.outcome.nodes.get(&stage.node) {
                    Some(NodeOutcome::Ran(result)) => &result.metadata,
                    Some(NodeOutcome::Cached { metadata } | NodeOutcome::Equal { metadata, .. }) => metadata,
                    _ => continue,
                };
                if !metadata.is_null() {
                    all[&pipeline.name][&stage.module] = metadata.clone();
                }
            }
        }
        all
    }

    fn options(&self, node: NodeIndex) -> Option<Value> {
        let stage = self.plan.graph.stage_node(node)?;
        Some(redact::value(&self.plan.graph.stage(stage).1.options))
    }

    fn counts(&self, pipeline: &WrittenPipeline) -> Counts {
        let mut counts = Counts::default();
        for stage in &pipeline.stages {
            match (stage.action, self.outcome.nodes.get(&stage.node)) {
                (
                    WrittenAction::Shared,
                    Some(NodeOutcome::Ran(_) | NodeOutcome::Cached { .. } | NodeOutcome::Equal { .. }),
                ) => counts.shared += 1,
                (_, Some(NodeOutcome::Ran(result))) => {
                    counts.ran += 1;
                    match result.cause {
                        None => {}
                        Some(Cause::Interrupted) => counts.not_started += 1,
                        Some(_) => counts.failed += 1,
                    }
                    counts.duration += result.duration;
                }
                (_, Some(NodeOutcome::Cached { .. })) => counts.cached += 1,
                (_, Some(NodeOutcome::Equal { .. })) => {
                    counts.cached += 1;
                    counts.equal += 1;
                }
                (_, Some(NodeOutcome::NotStarted)) => counts.not_started += 1,
                _ => {}
            }
        }
        counts
    }

    /// Where the artifacts of pipelines lie, by the names of the pipelines.
    fn paths(&self) -> HashMap<&str, Vec<&PathBuf>> {
        let mut paths: HashMap<&str, Vec<&PathBuf>> = HashMap::new();
        for export in &self.plan.exports {
            let name = &self.plan.graph.manifest.pipeline(export.pipeline).name;
            paths.entry(name).or_default().extend(self.exported.get(export.name.as_str()));
        }
        paths
    }

    fn result(&self, pipeline: &WrittenPipeline, counts: &Counts, paths: &[&PathBuf]) -> String {
        if counts.failed > 0 {
            return "FAILED".to_owned();
        }
        if counts.not_started > 0 {
            return "not built".to_owned();
        }
        let id = pipeline.stages.last().map(|stage| stage.id);
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        match (paths.is_empty(), id) {
            (false, _) => paths.join(", "),
            (true, Some(id)) => format!("in the store: {}", id.short()),
            (true, None) => "empty".to_owned(),
        }
    }

    fn word(&self) -> &'static str {
        match (self.outcome.interrupted, self.outcome.success()) {
            (true, _) => "interrupted",
            (false, true) if self.plan.is_empty() => "nothing to do: done",
            (false, true) => "done",
            (false, false) => "failed",
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string grows");
}

/// All lines but the first behind a prefix.
fn indented(text: &str, prefix: &str) -> String {
    text.replace('\n', &format!("\n{prefix}"))
}
