//! The live view on a terminal: a line for each running stage with its last output, one for the fetches with their
//! speed, and a total.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use osbc_executor::event::{Event, Monitor};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Plan, printable};

use super::plain;
use crate::render;

/// How often running lines are redrawn.
const TICK: Duration = Duration::from_millis(100);

/// Draws the state of a build.
pub(crate) struct Live {
    plan: Arc<Plan>,
    bars: MultiProgress,
    total: ProgressBar,
    fetch: Option<ProgressBar>,
    fetched: BTreeMap<NodeIndex, u64>,
    stages: BTreeMap<NodeIndex, ProgressBar>,
}

impl Live {
    /// A monitor of a build by this plan, drawn with `bars`.
    pub(crate) fn new(plan: Arc<Plan>, bars: MultiProgress) -> Self {
        let total = bars.add(ProgressBar::new(plain::total(&plan) as u64));
        total.set_style(style("{bar:30.green/dim} {pos}/{len}  {elapsed}  {msg}"));
        Self { plan, bars, total, fetch: None, fetched: BTreeMap::new(), stages: BTreeMap::new() }
    }

    fn start_stage(&mut self, node: NodeIndex) {
        let (pipeline, module) = render::node_name(&self.plan.graph, node);
        let (pipeline, module) = (printable::line(pipeline), printable::line(module));
        let bar = self.bars.insert_before(&self.total, ProgressBar::new_spinner());
        bar.set_style(style("{spinner:.cyan} {prefix:.bold}  {elapsed:.dim}  {wide_msg:.dim}"));
        bar.set_prefix(format!("{pipeline}: {module}"));
        bar.enable_steady_tick(TICK);
        self.stages.insert(node, bar);
    }

    fn fetching(&mut self, node: NodeIndex, done: u64) {
        let bar = self.fetch.get_or_insert_with(|| {
            let bar = self.bars.insert(0, ProgressBar::new_spinner());
            bar.set_style(style("{spinner:.cyan} {prefix:.bold}  {bytes}  {bytes_per_sec}"));
            bar.set_prefix("fetching");
            bar.enable_steady_tick(TICK);
            bar
        });
        self.fetched.insert(node, done);
        bar.set_position(self.fetched.values().sum());
    }

    fn finish(&mut self, node: NodeIndex, outcome: &NodeOutcome) {
        if let Some(bar) = self.stages.remove(&node) {
            bar.finish_and_clear();
        }
        match outcome {
            NodeOutcome::Fetched { bytes } => self.fetching(node, *bytes),
            NodeOutcome::Ran(_) | NodeOutcome::FetchFailed { .. } | NodeOutcome::Equal { .. } => {}
            NodeOutcome::Cached { .. } | NodeOutcome::NotStarted => return,
        }
        self.total.inc(1);
        if outcome.is_failure() {
            let (place, name) = render::node_name(&self.plan.graph, node);
            self.bars.println(format!("failed: {}: {}", printable::line(place), printable::line(name))).ok();
        }
    }
}

/// A style from a template of this file.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

/// The last line of a text that says something, without control characters.
fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).collect())
}

impl Monitor for Live {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        match event {
            Event::Started { .. } => self.total.enable_steady_tick(TICK),
            Event::FetchStarted { node, .. } => self.fetching(*node, 0),
            Event::FetchProgress { node, done, .. } => self.fetching(*node, *done),
            // The overall line is no place for what a source says.
            Event::FetchOutput { .. } => {}
            Event::StageStarted { node, .. } => self.start_stage(*node),
            Event::StageOutput { node, text } => {
                if let (Some(bar), Some(line)) = (self.stages.get(node), last_line(text)) {
                    bar.set_message(line);
                }
            }
            Event::Finished { node, outcome } => self.finish(*node, outcome),
            Event::Cached { .. } | Event::Waited { .. } => {}
            Event::Interrupted => self.total.set_message("ending the running stages"),
            Event::Ended { .. } => {
                if let Some(bar) = self.fetch.take() {
                    bar.finish_and_clear();
                }
                self.total.finish_and_clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::last_line;

    #[test]
    fn the_last_line_that_says_something_is_shown() {
        assert_eq!(last_line("one\ntwo\x1b[31m\n\n").as_deref(), Some("two[31m"));
        assert_eq!(last_line("\n \n"), None);
    }
}
