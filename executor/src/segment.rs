//! One segment: from a committed base over its steps to the next committed result.

use std::time::Instant;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Cause, NodeOutcome, Resource, Segment, StageResult, Value};
use osbc_store::{CommitInfo, StepRecord, StoreError, Work};

use crate::build::{Context, Worker, WorkerEvent};
use crate::step;

/// Takes the result of an earlier run that a segment would only give again; says whether there is one.
pub(crate) fn take_equal(worker: &Worker<'_>, segment: &Segment) -> bool {
    if worker.context.settings.always_run.is_some_and(|node| segment.steps.contains(&node)) {
        return false;
    }
    let Some(earlier) = worker.context.cutoff.find(segment) else { return false };
    // The last step is the last one of then; of those before it some may have been committed by themselves.
    let before = segment.steps.len().checked_sub(earlier.steps.len());
    for (index, &node) in segment.steps.iter().enumerate() {
        let step = before.and_then(|before| earlier.steps.get(index.checked_sub(before)?));
        let metadata = step.map_or(Value::Null, |step| step.metadata.clone());
        let to = step.map_or(earlier.id, |step| step.id);
        worker.send(WorkerEvent::Finished { node, outcome: Box::new(NodeOutcome::Equal { metadata, to }) });
    }
    true
}

/// Runs a segment as the worker `number`; says whether all of it succeeded.
///
/// When nothing more is to begin, what its steps did so far is committed as the result of the last one that ran, which
/// it is as much as that of any other stage.
///
/// A step that makes what no layer can hold has the segment run once more, from its base, on a plain directory.
///
/// A step that found no room on the disk, by what is free and not by what it says, is given some, if anything can be
/// evicted, and the segment is run once more from its base: what the step left of the tree is nothing to go on from.
pub(crate) fn run(worker: &Worker<'_>, segment: &Segment, number: usize) -> bool {
    let is_plain = segment.steps.iter().any(|step| step::needs_plain_tree(worker.context, *step));
    let mut conditions = Conditions { is_plain, ..Conditions::default() };
    loop {
        match attempt(worker, segment, number, &conditions) {
            Attempt::Done { success } => return success,
            Attempt::NoRoom { at } => {
                conditions.made_room = true;
                conditions.reported = Some(at);
            }
            Attempt::NeedsPlainTree { at } => {
                conditions.is_plain = true;
                conditions.reported = Some(at);
            }
        }
    }
}

/// What came of running a segment.
enum Attempt {
    Done { success: bool },
    NoRoom { at: usize },
    NeedsPlainTree { at: usize },
}

/// How a segment is run.
#[derive(Default)]
struct Conditions {
    /// Whether its tree is a plain directory whatever the store's way of layering is.
    is_plain: bool,
    /// Whether room was made for it, which is done once.
    made_room: bool,
    /// The step at which it began anew, up to which everything was reported.
    reported: Option<usize>,
}

/// Runs it once.
fn attempt(worker: &Worker<'_>, segment: &Segment, number: usize, conditions: &Conditions) -> Attempt {
    let (context, again) = (worker.context, conditions.reported);
    let mut work = None;
    let mut records = Vec::with_capacity(segment.steps.len());
    for (index, &node) in segment.steps.iter().enumerate() {
        if let Some(before) = index.checked_sub(1)
            && worker.scheduler.stops()
            && let Some(work) = work.take()
        {
            // These stages have succeeded whether or not their result is kept.
            commit(context, work, segment.steps[before], records).ok();
            return Attempt::Done { success: false };
        }
        let start = Instant::now();
        if again.is_none_or(|at| index > at) {
            worker.send(WorkerEvent::StageStarted { node, worker: number });
        }
        let mut result = match begin(context, segment, &mut work, conditions) {
            Ok(work) => match step::run(worker, node, work) {
                Some(result) => result,
                None => return Attempt::NeedsPlainTree { at: index },
            },
            Err(error) => failed(error, context, node),
        };
        if !result.success && !conditions.made_room && result.cause == Some(Cause::Exhausted(Resource::Disk)) {
            drop(work.take());
            if context.transaction.store().make_some_room() {
                return Attempt::NoRoom { at: index };
            }
        }
        result.duration = start.elapsed();
        if result.success {
            records.push(record(context, node, &result));
            if let Some(work) = &work
                && let Err(error) = work.keep_checkpoint(&context.plan.graph, node, &records)
            {
                result = StageResult { output: result.output, log: result.log, ..failed(error, context, node) };
            }
        }
        if result.success
            && index + 1 == segment.steps.len()
            && let Some(work) = work.take()
        {
            if let Err(error) = commit(context, work, node, std::mem::take(&mut records)) {
                result = StageResult { output: result.output, log: result.log, ..failed(error, context, node) };
            }
            result.duration = start.elapsed();
        }
        let success = result.success;
        if !success && context.interrupt.is_raised() {
            // What is ended may say anything.
            result.cause = Some(Cause::Interrupted);
        }
        if again.is_none_or(|at| index >= at) || !success {
            worker.send(WorkerEvent::Finished { node, outcome: Box::new(NodeOutcome::Ran(result)) });
        }
        if !success {
            return Attempt::Done { success: false };
        }
    }
    Attempt::Done { success: true }
}

/// The tree that the segment's steps change; begun with the first of them.
fn begin<'w, 'a>(
    context: &Context<'a>,
    segment: &Segment,
    work: &'w mut Option<Work<'a>>,
    conditions: &Conditions,
) -> Result<&'w Work<'a>, StoreError> {
    Ok(match work {
        Some(work) => work,
        None => {
            let base = segment.base.and_then(|node| context.plan.graph.stage_node(node)).map(|stage| stage.id);
            let transaction = context.transaction;
            work.insert(if conditions.is_plain { transaction.plain_work(base) } else { transaction.work(base) }?)
        }
    })
}

fn commit(context: &Context<'_>, work: Work<'_>, node: NodeIndex, steps: Vec<StepRecord>) -> Result<(), StoreError> {
    let source_epoch = context.stage(node).0.source_epoch;
    work.commit(CommitInfo { source_epoch, steps }).map(drop)
}

fn record(context: &Context<'_>, node: NodeIndex, result: &StageResult) -> StepRecord {
    let (_, stage) = context.stage(node);
    StepRecord {
        id: context.stage_node(node).id,
        module: stage.module.name.clone(),
        metadata: result.metadata.clone(),
        duration: result.duration,
    }
}

/// The result of a stage that the store got in the way of.
fn failed(error: StoreError, context: &Context<'_>, node: NodeIndex) -> StageResult {
    let error = error.needing_about(context.known_bytes(node));
    let is_full = error.is_full();
    StageResult {
        success: false,
        output: String::new(),
        log: None,
        error: Some(error.to_string()),
        exit_status: None,
        exception: None,
        metadata: Value::Null,
        duration: Default::default(),
        written: None,
        memory: None,
        cause: Some(if is_full { Cause::Exhausted(Resource::Disk) } else { Cause::Environment }),
    }
}
