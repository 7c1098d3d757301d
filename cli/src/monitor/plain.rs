//! One line for each thing that is done, for logs and pipes.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use osbc_executor::event::{Event, Monitor};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Plan, printable};

use crate::render;

/// Writes `[3/14] tree: org.osbuild.hostname (3 ms)` lines.
pub(crate) struct Plain {
    plan: Arc<Plan>,
    total: usize,
    done: usize,
}

impl Plain {
    /// A monitor of a build by this plan.
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let total = total(&plan);
        Self { plan, total, done: 0 }
    }

    fn line(&mut self, node: NodeIndex, end: &str) {
        self.done += 1;
        let (place, name) = render::node_name(&self.plan.graph, node);
        let (place, name) = (printable::line(place), printable::line(name));
        let width = self.total.to_string().len();
        // Progress that nobody can read any more is no reason to fail a build.
        writeln!(io::stderr(), "[{:width$}/{}] {place}: {name} {end}", self.done, self.total).ok();
    }
}

/// How many fetches and stages a plan has.
pub(super) fn total(plan: &Plan) -> usize {
    plan.fetches.len() + plan.segments.iter().map(|segment| segment.steps.len()).sum::<usize>()
}

impl Monitor for Plain {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        match event {
            Event::Finished { node, outcome } if outcome.is_interrupted() => self.line(*node, "interrupted"),
            Event::Finished { node, outcome } => match outcome {
                NodeOutcome::Ran(result) if result.success => {
                    self.line(*node, &format!("({})", render::duration(result.duration)));
                }
                NodeOutcome::Ran(_) => self.line(*node, "FAILED"),
                NodeOutcome::Fetched { bytes } => self.line(*node, &format!("({})", render::bytes(*bytes))),
                NodeOutcome::FetchFailed { .. } => self.line(*node, "FAILED"),
                NodeOutcome::Equal { .. } => self.line(*node, "(cached: equal content)"),
                NodeOutcome::Cached { .. } | NodeOutcome::NotStarted => {}
            },
            Event::Interrupted => {
                writeln!(io::stderr(), "interrupted: ending the running stages").ok();
            }
            Event::Started { .. }
            | Event::Cached { .. }
            | Event::Waited { .. }
            | Event::FetchStarted { .. }
            | Event::FetchProgress { .. }
            | Event::FetchOutput { .. }
            | Event::StageStarted { .. }
            | Event::StageOutput { .. }
            | Event::Ended { .. } => {}
        }
    }
}
