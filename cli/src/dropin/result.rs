//! osbuild's result documents: what `--json` prints when a build is over, in the shape of the manifest's format.

mod v1;
mod v2;

use std::borrow::Cow;
use std::time::Duration;

use osbc_ir::{FormatVersion, NodeOutcome, Outcome, PipelineIndex, StageResult, Value};
use osbc_store::Transaction;
use serde_json::json;

use super::monitor::MonitoredBuild;
use super::serial_schedule::{PipelineRun, StageRun};
use super::sources::SourceReport;
use crate::advice;

/// A build that is over.
#[derive(Clone, Copy)]
pub(super) struct Finished<'a> {
    pub(super) monitored: &'a MonitoredBuild,
    pub(super) outcome: &'a Outcome,
    pub(super) transaction: &'a Transaction,
}

impl<'a> Finished<'a> {
    /// The result document.
    pub(super) fn document(self) -> Value {
        match self.monitored.written.manifest.version {
            FormatVersion::V1 => v1::document(self),
            FormatVersion::V2 => v2::document(self),
        }
    }

    /// The reports on all sources.
    fn sources(self) -> Vec<SourceReport> {
        SourceReport::all(&self.monitored.plan, &self.monitored.have, &self.outcome.nodes)
    }

    /// What osbuild would have run of a pipeline; of several with one id it is the same.
    fn run(self, pipeline: PipelineIndex) -> Option<&'a PipelineRun> {
        let id = self.monitored.ids().id(pipeline);
        self.monitored.schedule.runs.iter().find(|run| run.id == id)
    }

    /// The stages of a run that have run, with what came of them.
    fn results(self, run: &'a PipelineRun) -> impl Iterator<Item = (&'a StageRun, &'a str, Cow<'a, StageResult>)> {
        let stages = &self.monitored.written.manifest.pipeline(run.pipeline).stages;
        run.stages.iter().filter_map(move |stage| {
            let result = stage_result(self.outcome.nodes.get(&stage.node)?)?;
            Some((stage, stages[stage.position].module.name.as_str(), result))
        })
    }

    /// The first stage that failed, in osbuild's order.
    fn failure(self) -> Option<(&'a StageRun, &'a str, Cow<'a, StageResult>)> {
        let mut all = self.monitored.schedule.runs.iter().flat_map(|run| self.results(run));
        all.find(|(_, _, result)| !result.success)
    }

    /// What the stages of a pipeline said about its tree, by position; nothing if there is no such tree.
    fn metadata(self, pipeline: PipelineIndex) -> Vec<(usize, Value)> {
        let stages = self.monitored.ids().stages(pipeline);
        let Some(last) = stages.last() else { return Vec::new() };
        let said = self.transaction.metadata(&self.monitored.plan.graph, last.node);
        let position = |node| stages.iter().position(|stage| stage.node == node);
        let mut all: Vec<(usize, Value)> =
            said.into_iter().filter_map(|(node, value)| Some((position(node)?, value))).collect();
        all.sort_by_key(|(position, _)| *position);
        all
    }
}

/// Returns the result of a stage that was planned to run. A result that was found in the store after all is reported as
/// a run without output.
pub(super) fn stage_result(outcome: &NodeOutcome) -> Option<Cow<'_, StageResult>> {
    match outcome {
        NodeOutcome::Ran(result) => Some(Cow::Borrowed(result)),
        NodeOutcome::Equal { metadata, .. } => Some(Cow::Owned(StageResult {
            success: true,
            output: String::new(),
            log: None,
            error: None,
            exit_status: None,
            exception: None,
            metadata: metadata.clone(),
            duration: Duration::ZERO,
            written: None,
            memory: None,
            cause: None,
        })),
        _ => None,
    }
}

/// Returns what went wrong with a stage, as the exception that its module reported or in the shape of one; `null` if
/// nothing did, or if the module gave only an exit status.
pub(super) fn error(result: &StageResult) -> Value {
    if let Some(exception) = &result.exception {
        return json!({"type": "exception", "data": exception});
    }
    advice::reason(result).filter(|_| result.exit_status.is_none()).map_or(
        Value::Null,
        |reason| json!({"type": "exception", "data": {"type": "Error", "value": reason, "traceback": ""}}),
    )
}

/// Returns what a stage wrote and, if that does not say it, why the stage failed.
pub(super) fn output(result: &StageResult) -> Cow<'_, str> {
    match unsaid_reason(result) {
        Some(reason) => Cow::Owned(format!("{}{reason}", result.output)),
        None => Cow::Borrowed(&result.output),
    }
}

/// Why a stage failed, as the last lines of its output, if it did not say so itself.
pub(super) fn unsaid_reason(result: &StageResult) -> Option<String> {
    let is_said = |reason: &str| result.exit_status.is_some() || result.output.contains(reason);
    result.error.as_ref().filter(|reason| !is_said(reason))?;
    let reason = advice::reason(result)?;
    let separator = if result.output.is_empty() || result.output.ends_with('\n') { "" } else { "\n" };
    Some(format!("{separator}{reason}\n"))
}

/// The document for what was refused before anything was built.
pub(super) fn error_document(reason: &str) -> Value {
    json!({
        "type": "error",
        "success": false,
        "error": {"type": "org.osbuild.error.request", "details": {"message": reason}},
    })
}
