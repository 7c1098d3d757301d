//! Replays the events of a parallel build in osbuild's serial order.
//!
//! Every pipeline is reported in the order of its stages; a stage that ran for several pipelines is reported again in
//! each of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use osbc_executor::event::{Event, Monitor};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Outcome, StageResult, Value, redact};

use super::{Display, MonitoredBuild};
use crate::dropin::result::{stage_result, unsaid_reason};
use crate::dropin::sources::SourceReport;

/// The source whose module reports what it has fetched.
const CURL: &str = "org.osbuild.curl";

/// A build's events, replayed to one of osbuild's monitors.
pub(crate) struct SerialReplay {
    monitored: Arc<MonitoredBuild>,
    display: Box<dyn Display>,
    /// For every node that runs, the places that it runs for.
    places: HashMap<NodeIndex, Vec<(usize, usize)>>,
    sources: Vec<SourceState>,
    runs: Vec<RunState>,
    /// The results of stages that are still to be reported for other pipelines.
    results: HashMap<NodeIndex, StageResult>,
    fetches: BTreeMap<NodeIndex, NodeOutcome>,
}

/// How far a source has been reported.
#[derive(Debug, Clone, Default)]
struct SourceState {
    begun: bool,
    finished: bool,
    /// How many of its items are still to be fetched.
    missing: usize,
}

/// How far a pipeline has been reported.
#[derive(Debug, Clone, Default)]
struct RunState {
    begun: bool,
    /// How many of its stages are through.
    done: usize,
    finished: bool,
}

impl SerialReplay {
    /// Returns a replay of a build, shown by `display`.
    pub(crate) fn new(monitored: Arc<MonitoredBuild>, display: Box<dyn Display>) -> Self {
        let mut sources = vec![SourceState::default(); monitored.plan.graph.manifest.sources.len()];
        for item in monitored.plan.fetches.iter().filter_map(|node| monitored.plan.graph.item_node(*node)) {
            sources[item.source].missing += 1;
        }
        Self {
            display,
            places: monitored.schedule.places(),
            sources,
            runs: vec![RunState::default(); monitored.schedule.runs.len()],
            results: HashMap::new(),
            fetches: BTreeMap::new(),
            monitored,
        }
    }

    fn open(&mut self) {
        self.display.say(&self.monitored, &format!("starting {}", self.monitored.manifest));
        for source in 0..self.sources.len() {
            if self.sources[source].missing == 0 {
                self.finish_source(source);
            }
        }
        for run in 0..self.runs.len() {
            if self.monitored.schedule.runs[run].stages.is_empty() {
                self.begin(run);
                self.finish(run);
            }
        }
    }

    fn begin_source(&mut self, source: usize) {
        if !std::mem::replace(&mut self.sources[source].begun, true) {
            self.display.begin_source(&self.monitored, source);
        }
    }

    fn finish_source(&mut self, source: usize) {
        self.begin_source(source);
        if !std::mem::replace(&mut self.sources[source].finished, true) {
            let report = SourceReport::new(&self.monitored.plan, &self.monitored.have, &self.fetches, source);
            self.display.finish_source(&self.monitored, source, &report);
        }
    }

    fn fetch_started(&mut self, node: NodeIndex) {
        if let Some(item) = self.monitored.plan.graph.item_node(node) {
            self.begin_source(item.source);
        }
    }

    fn source_output(&mut self, node: NodeIndex, text: &str) {
        if let Some(source) = self.monitored.plan.graph.item_node(node).map(|item| item.source) {
            self.begin_source(source);
            self.display.source_output(&self.monitored, source, text);
        }
    }

    fn fetched(&mut self, node: NodeIndex, outcome: &NodeOutcome) {
        let monitored = Arc::clone(&self.monitored);
        let Some(node_item) = monitored.plan.graph.item_node(node) else { return };
        let (source, item) = monitored.plan.graph.item(node_item);
        self.begin_source(node_item.source);
        if let (CURL, NodeOutcome::Fetched { .. }, Some(url)) =
            (source.module.name.as_str(), outcome, url(&item.description))
        {
            let line = format!("source/{CURL} ({CURL}): Downloaded {}\n", redact::url(url));
            self.display.source_output(&monitored, node_item.source, &line);
        }
        self.fetches.insert(node, outcome.clone());
        let state = &mut self.sources[node_item.source];
        state.missing = state.missing.saturating_sub(1);
        if state.missing == 0 {
            self.finish_source(node_item.source);
        }
    }

    fn begin(&mut self, run: usize) {
        if !std::mem::replace(&mut self.runs[run].begun, true) {
            self.display.begin(&self.monitored, run);
        }
    }

    fn finish(&mut self, run: usize) {
        if self.runs[run].begun && !std::mem::replace(&mut self.runs[run].finished, true) {
            self.display.finish(&self.monitored, run);
        }
    }

    fn stage_started(&mut self, node: NodeIndex) {
        let Some(&(run, position)) = self.places.get(&node).and_then(|places| places.first()) else { return };
        self.begin(run);
        self.catch_up(run);
        self.display.stage(&self.monitored, run, &self.monitored.schedule.runs[run].stages[position]);
    }

    fn stage_output(&mut self, node: NodeIndex, text: &str) {
        if let Some(&(run, position)) = self.places.get(&node).and_then(|places| places.first()) {
            self.display.output(&self.monitored, run, &self.monitored.schedule.runs[run].stages[position], text);
        }
    }

    fn stage_finished(&mut self, node: NodeIndex, result: &StageResult) {
        let Some(places) = self.places.get(&node).cloned() else { return };
        let Some((&(run, position), others)) = places.split_first() else { return };
        let stage = &self.monitored.schedule.runs[run].stages[position];
        if let Some(reason) = unsaid_reason(result) {
            self.display.output(&self.monitored, run, stage, &reason);
        }
        self.display.result(&self.monitored, run, stage, result);
        self.through(run, result.success);
        if !others.is_empty() {
            self.results.insert(node, result.clone());
        }
        for (run, _) in others {
            self.catch_up(*run);
        }
    }

    /// Reports the stages of a pipeline that have run for another one, as far as the order allows it.
    fn catch_up(&mut self, run: usize) {
        let monitored = Arc::clone(&self.monitored);
        while let Some(stage) = monitored.schedule.runs[run].stages.get(self.runs[run].done)
            && self.places.get(&stage.node).is_some_and(|places| places[0] != (run, self.runs[run].done))
            && let Some(result) = self.results.get(&stage.node).cloned()
            && !self.runs[run].finished
        {
            self.begin(run);
            self.display.stage(&monitored, run, stage);
            self.display.output(&monitored, run, stage, &result.output);
            self.display.result(&monitored, run, stage, &result);
            self.through(run, result.success);
        }
    }

    /// Counts a stage that is through.
    fn through(&mut self, run: usize, success: bool) {
        self.runs[run].done += 1;
        if !success || self.runs[run].done == self.monitored.schedule.runs[run].stages.len() {
            self.finish(run);
        }
    }

    /// Closes what a failure or an interrupt left open, and reports how it went, unless the user ended the build.
    fn end(&mut self, outcome: &Outcome) {
        for source in 0..self.sources.len() {
            if self.sources[source].begun {
                self.finish_source(source);
            }
        }
        for run in 0..self.runs.len() {
            self.finish(run);
        }
        if !outcome.interrupted {
            let how = if outcome.success() { "finished successfully" } else { "failed" };
            self.display.say(&self.monitored, &format!("manifest {} {how}\n", self.monitored.manifest));
        }
    }
}

impl Monitor for SerialReplay {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        match event {
            Event::Started { .. } => self.open(),
            Event::FetchStarted { node, .. } => self.fetch_started(*node),
            Event::FetchOutput { node, text } => self.source_output(*node, text),
            Event::StageStarted { node, .. } => self.stage_started(*node),
            Event::StageOutput { node, text } => self.stage_output(*node, text),
            // osbuild says nothing of what a signal ends.
            Event::Finished { outcome, .. } if outcome.is_interrupted() => {}
            Event::Finished { node, outcome: NodeOutcome::Ran(result) } => self.stage_finished(*node, result),
            Event::Finished { node, outcome: outcome @ NodeOutcome::Equal { .. } } => {
                self.stage_started(*node);
                if let Some(result) = stage_result(outcome) {
                    self.stage_finished(*node, &result);
                }
            }
            Event::Finished {
                node,
                outcome: outcome @ (NodeOutcome::Fetched { .. } | NodeOutcome::FetchFailed { .. }),
            } => {
                self.fetched(*node, outcome);
            }
            Event::Ended { outcome, .. } => self.end(outcome),
            Event::Finished { .. }
            | Event::Cached { .. }
            | Event::FetchProgress { .. }
            | Event::Waited { .. }
            | Event::Interrupted => {}
        }
    }
}

/// Where an item of the curl source comes from.
fn url(description: &Value) -> Option<&str> {
    description.as_str().or_else(|| description.get("url")?.as_str())
}
