//! osbuild's result documents: what `--json` prints when a build is over, in the shape of the manifest's format.

mod v1;
mod v2;

use std::borrow::Cow;
use std::time::Duration;

use osbc_executor::store::Lease;
use osbc_ir::{FormatVersion, NodeOutcome, Outcome, PipelineIndex, StageResult, Value};
use serde_json::json;

use super::course::{PipelineRun, StageRun};
use super::monitor::Script;
use super::sources::SourceReport;
use crate::advice;

/// A build that is over.
#[derive(Clone, Copy)]
pub(super) struct Finished<'a> {
    pub(super) script: &'a Script,
    pub(super) outcome: &'a Outcome,
    pub(super) lease: &'a Lease,
}

impl<'a> Finished<'a> {
    /// The result document.
    pub(super) fn document(self) -> Value {
        match self.script.written.manifest.version {
            FormatVersion::V1 => v1::document(self),
            FormatVersion::V2 => v2::document(self),
        }
    }

    /// The reports on all sources.
    fn sources(self) -> Vec<SourceReport> {
        SourceReport::all(&self.script.plan, &self.script.have, &self.outcome.nodes)
    }

    /// What osbuild would have run of a pipeline; of several with one id it is the same.
    fn run(self, pipeline: PipelineIndex) -> Option<&'a PipelineRun> {
        let id = self.script.names().id(pipeline);
        self.script.course.runs.iter().find(|run| run.id == id)
    }

    /// The stages of a run that have run, with what came of them.
    fn results(self, run: &'a PipelineRun) -> impl Iterator<Item = (&'a StageRun, &'a str, Cow<'a, StageResult>)> {
        let stages = &self.script.written.manifest.pipeline(run.pipeline).stages;
        run.stages.iter().filter_map(move |stage| {
            let result = stage_result(self.outcome.nodes.get(&stage.node)?)?;
            Some((stage, stages[stage.position].module.name.as_str(), result))
        })
    }

    /// The first stage that failed, in osbuild's order.
    fn failure(self) -> Option<(&'a StageRun, &'a str, Cow<'a, StageResult>)> {
        let mut all = self.script.course.runs.iter().flat_map(|run| self.results(run));
        all.find(|(_, _, result)| !result.success)
    }

    /// What the stages of a pipeline said about its tree, by position; nothing if there is no such tree.
    fn metadata(self, pipeline: PipelineIndex) -> Vec<(usize, Value)> {
        let stages = self.script.names().stages(pipeline);
        let Some(last) = stages.last() else { return Vec::new() };
        let said = self.lease.metadata(&self.script.plan.graph, last.node);
        let position = |node| stages.iter().position(|stage| stage.node == node);
        let mut all: Vec<(usize, Value)> =
            said.into_iter().filter_map(|(node, value)| Some((position(node)?, value))).collect();
        all.sort_by_key(|(position, _)| *position);
        all
    }
}

/// What came of a stage that was to run. That its result was there after all is told as a run without a word.
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

/// What went wrong with a stage, as the exception that its module has reported or in the shape of one; `null` if nothing
/// did, or if the module said no more than its exit status.
pub(super) fn error(result: &StageResult) -> Value {
    if let Some(exception) = &result.exception {
        return json!({"type": "exception", "data": exception});
    }
    advice::reason(result).filter(|_| result.exit_status.is_none()).map_or(
        Value::Null,
        |reason| json!({"type": "exception", "data": {"type": "Error", "value": reason, "traceback": ""}}),
    )
}

/// What a stage wrote and, where that does not tell, why it failed: all that people look at.
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
pub(super) fn refusal(reason: &str) -> Value {
    json!({
        "type": "error",
        "success": false,
        "error": {"type": "org.osbuild.error.request", "details": {"message": reason}},
    })
}
