//! osbuild's monitors.
//!
//! [`SerialReplay`] puts the events of a build into osbuild's order, source by source and pipeline by pipeline; a
//! [`Display`] prints them as one of osbuild's monitors does.

mod context;
mod descriptor;
mod json_seq;
mod log;
mod serial_replay;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use osbc_ir::{CachedSet, CompatId, Graph, PipelineIndex, Plan, Runner, StageResult, Value, compat, redact};

use super::serial_schedule::{IdView, SerialSchedule, StageRun};
use super::sources::SourceReport;

pub(super) use serial_replay::SerialReplay;

/// What a monitor knows of a build before it begins.
pub(crate) struct MonitoredBuild {
    /// The manifest's path, as the user wrote it.
    pub(crate) manifest: String,
    pub(crate) written: Arc<Graph>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) have: CachedSet,
    pub(crate) schedule: SerialSchedule,
    /// The runner of pipelines that run in the host's tree.
    pub(crate) host: Runner,
    /// The pipelines whose stages run in a virtual machine.
    pub(crate) in_vm: BTreeSet<PipelineIndex>,
}

impl MonitoredBuild {
    pub(crate) fn ids(&self) -> IdView<'_> {
        IdView { written: &self.written, plan: &self.plan }
    }

    /// How many sources and pipelines there are to go through.
    fn steps(&self) -> usize {
        self.plan.graph.manifest.sources.len() + self.schedule.runs.len()
    }

    /// The module of a stage.
    fn module(&self, run: usize, stage: &StageRun) -> &str {
        &self.stage(run, stage).module.name
    }

    /// Returns its options; `None` if osbuild would treat them as not set.
    fn options(&self, run: usize, stage: &StageRun) -> Option<Value> {
        Some(&self.stage(run, stage).options)
            .filter(|options| options.as_object().is_none_or(|entries| !entries.is_empty()))
            .map(redact::value)
    }

    fn stage(&self, run: usize, stage: &StageRun) -> &osbc_ir::Stage {
        &self.pipeline(run).stages[stage.position]
    }

    fn pipeline(&self, run: usize) -> &osbc_ir::Pipeline {
        self.written.manifest.pipeline(self.schedule.runs[run].pipeline)
    }

    fn source_id(&self, source: usize) -> CompatId {
        compat::source_id(&self.written.manifest.sources[source])
    }
}

/// One of osbuild's monitors.
pub(super) trait Display {
    /// Something about the whole build.
    fn say(&mut self, monitored: &MonitoredBuild, text: &str);
    /// A source begins.
    fn begin_source(&mut self, monitored: &MonitoredBuild, source: usize);
    /// The module of a source said something.
    fn source_output(&mut self, monitored: &MonitoredBuild, source: usize, text: &str);
    /// A source is through.
    fn finish_source(&mut self, monitored: &MonitoredBuild, source: usize, report: &SourceReport);
    /// A pipeline begins; an index into the schedule.
    fn begin(&mut self, monitored: &MonitoredBuild, run: usize);
    /// A stage begins.
    fn stage(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun);
    /// A stage wrote something.
    fn output(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun, text: &str);
    /// A stage is through.
    fn result(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun, result: &StageResult);
    /// A pipeline is through, well or not.
    fn finish(&mut self, monitored: &MonitoredBuild, run: usize);
}

/// Returns osbuild's monitor of that name; `None` if it has none.
pub(super) fn display(name: &str, out: Out) -> Option<Box<dyn Display>> {
    match name {
        "NullMonitor" => Some(Box::new(Null)),
        "LogMonitor" => Some(Box::new(log::Log::new(out))),
        "JSONSeqMonitor" => Some(Box::new(json_seq::JsonSeq::new(out))),
        _ => None,
    }
}

/// Where a monitor writes.
#[derive(Debug)]
pub(super) struct Out {
    file: File,
    pub(super) is_terminal: bool,
}

impl Out {
    /// The descriptor of that number.
    ///
    /// # Errors
    /// It is not open.
    pub(super) fn new(descriptor: i32) -> std::io::Result<Self> {
        let file = File::from(descriptor::duplicate(descriptor)?);
        let is_terminal = file.is_terminal();
        Ok(Self { file, is_terminal })
    }

    /// Writes. That nobody reads any more is no reason to fail a build.
    fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).ok();
    }
}

/// Shows nothing.
struct Null;

impl Display for Null {
    fn say(&mut self, _: &MonitoredBuild, _: &str) {}
    fn begin_source(&mut self, _: &MonitoredBuild, _: usize) {}
    fn source_output(&mut self, _: &MonitoredBuild, _: usize, _: &str) {}
    fn finish_source(&mut self, _: &MonitoredBuild, _: usize, _: &SourceReport) {}
    fn begin(&mut self, _: &MonitoredBuild, _: usize) {}
    fn stage(&mut self, _: &MonitoredBuild, _: usize, _: &StageRun) {}
    fn output(&mut self, _: &MonitoredBuild, _: usize, _: &StageRun, _: &str) {}
    fn result(&mut self, _: &MonitoredBuild, _: usize, _: &StageRun, _: &StageResult) {}
    fn finish(&mut self, _: &MonitoredBuild, _: usize) {}
}
