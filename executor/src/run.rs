//! Runs a plan from its first event to its last: fetches and segments as tasks, workers for both, one thread for the
//! monitor.
//!
//! Knows which task is what; neither how it is done nor what comes first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, NodeOutcome, Outcome, Plan, Segment, Value};
use osbc_module_api::Catalog;
use osbc_module_api::threads::{self, NoThread};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::vm;
use osbc_store::history::{History, HistoryLine};
use osbc_store::{Lease, StoreError, Transaction};

use crate::build::{Context, Parts, Worker, WorkerEvent};
use crate::cutoff::Cutoff;
use crate::event::{Event, Monitor, Tee, Wait};
use crate::log::BuildLogs;
use crate::machine::ResourceNeed;
use crate::needs::Needs;
use crate::prepared::Preparations;
use crate::record::Recording;
use crate::scheduler::{Pool, Scheduler, Task, Ticket};
use crate::tokens::Tokens;
use crate::{fetch, segment, step};

/// How many items are fetched at the same time.
const FETCHES: usize = 4;
/// How many events may wait for the monitor before their senders wait too.
const EVENTS: usize = 1024;
/// Shorter waits of a ready task are the overhead of changing tasks, and produce no event.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// How soon an interrupt is shown when nothing else happens.
const INTERRUPT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a plan was not run, or its results are not in the store.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There are not enough threads; nothing was begun.
    #[error(transparent)]
    NoThread(#[from] NoThread),
    /// The disk refused to take what was stored; of that, what had not reached it was taken back.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Does what a plan says.
///
/// The transaction must have the lease that the plan was made with. Every failure of a stage or fetch is in the
/// outcome; the monitor is called on this thread only.
///
/// # Errors
/// See [`RunError`].
pub fn run(plan: &Plan, transaction: &Transaction, parts: Parts<'_>) -> Result<Outcome, RunError> {
    let (start, wall) = (Instant::now(), SystemTime::now());
    let Parts { runner, catalog, monitor, machine, interrupt, settings, about } = parts;
    let recording = Recording::begin(transaction.store(), plan, about);
    let logs = BuildLogs::new(recording.directory());
    let mut tee = Tee(vec![Box::new(recording), Box::new(monitor)]);
    let mut report = |at: Instant, event: &Event<'_>| tee.event(at.saturating_duration_since(start), event);
    report(start, &Event::Started { wall, workers: settings.jobs.get() });
    for node in plan.graph.dag.node_indices().filter(|node| plan.decision(*node).action == Action::Cached) {
        report(start, &Event::Cached { node });
    }
    let mut outcome = Outcome { nodes: before(plan, transaction), ..Outcome::default() };
    let fetches = fetch::groups(plan, catalog);
    // Without a history nothing is known, which is as good.
    let history = transaction.store().history().unwrap_or_default();
    let scheduler = Scheduler::new(
        tasks(plan, catalog, &fetches, &history, &settings.in_vm),
        settings.keep_going,
        machine,
        interrupt,
    );
    let (events, receiver) = crossbeam_channel::bounded(EVENTS);
    let kills = AtomicU64::new(machine.out_of_memory_kills());
    // Without a thread for it, all would have to wait for make.
    let tokens = settings.jobserver.clone().and_then(|client| Tokens::new(client).ok());
    let (cutoff, committed) = Cutoff::new(plan, transaction);
    let preparations = Preparations::new(catalog, transaction, runner, interrupt, settings.stage_timeout);
    let context = Context {
        plan,
        fetches,
        transaction,
        runner,
        catalog,
        machine,
        kills,
        tokens,
        interrupt,
        settings,
        logs,
        preparations,
        history,
        cutoff,
        needs: Needs::new(plan),
    };
    // Closed until all threads are there: without one of them nothing is to begin.
    let gate = RwLock::new(false);
    let may_begin = || *gate.read().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let mut is_open = gate.write().unwrap_or_else(PoisonError::into_inner);
        let worker = || Worker { context: &context, scheduler: &scheduler, events: events.clone() };
        let start_all = || {
            if !plan.segments.is_empty() {
                threads::spawn_scoped(scope, || context.cutoff.note_all(&committed, interrupt))?;
            }
            for number in 0..FETCHES.min(context.fetches.len()) {
                let (worker, may_begin) = (worker(), &may_begin);
                threads::spawn_scoped(scope, move || may_begin().then(|| worker.fetch(number)))?;
            }
            for number in 0..settings.jobs.get().min(plan.segments.len()) {
                let (worker, may_begin) = (worker(), &may_begin);
                threads::spawn_scoped(scope, move || may_begin().then(|| worker.run_stages(number)))?;
            }
            Ok::<_, NoThread>(())
        };
        let started = start_all();
        *is_open = started.is_ok();
        drop((is_open, events));
        watch(&receiver, interrupt, start, &mut report, &mut outcome);
        context.cutoff.close();
        started
    })?;
    outcome.interrupted = interrupt.is_raised();
    // Both are for the next build to know more; this one is as good without.
    transaction.store().add_to_history(&lines(plan, transaction, &outcome)).ok();
    transaction.settle()?;
    outcome.duration = start.elapsed();
    report(start + outcome.duration, &Event::Ended { outcome: &outcome, duration: outcome.duration });
    Ok(outcome)
}

impl Worker<'_> {
    /// Reports how long a task that begins now was ready before.
    fn send_wait(&self, node: NodeIndex, ticket: &Ticket<'_, '_>, reason: Wait) {
        if ticket.ready.elapsed() >= SHORTEST_WAIT {
            self.send(WorkerEvent::Waited { node, since: ticket.ready, reason });
        }
    }

    fn fetch(&self, number: usize) {
        while let Some(ticket) = self.scheduler.next(Pool::Fetches) {
            let nodes = &self.context.fetches[ticket.task];
            self.send_wait(nodes[0], &ticket, ticket.waited_for);
            if fetch::run(self, nodes, number) {
                ticket.succeed();
            }
        }
    }

    fn run_stages(&self, number: usize) {
        let (plan, fetches) = (self.context.plan, self.context.fetches.len());
        while let Some(ticket) = self.scheduler.next(Pool::Stages) {
            let index = ticket.task - fetches;
            let segment = &plan.segments[index];
            let mut waited_for = ticket.waited_for;
            let asked = Instant::now();
            let _token = match &self.context.tokens {
                Some(tokens) => match tokens.take(self.context.interrupt) {
                    Some(token) => Some(token),
                    None => return,
                },
                None => None,
            };
            if asked.elapsed() >= SHORTEST_WAIT {
                waited_for = Wait::Admission;
            }
            self.send_wait(segment.steps[0], &ticket, waited_for);
            if !segment::take_equal(self, segment) {
                if !segment::run(self, segment, number) {
                    continue;
                }
                self.context.cutoff.committed(index);
            }
            self.context.release(index);
            ticket.succeed();
        }
    }
}

/// The plan as tasks: its fetches, then its segments.
fn tasks(
    plan: &Plan,
    catalog: &Catalog,
    groups: &[Vec<NodeIndex>],
    history: &History,
    in_vm: &BTreeSet<NodeIndex>,
) -> Vec<Task> {
    let fetches = groups.len();
    let nodes = groups.iter().zip(0..).flat_map(|(nodes, task)| nodes.iter().map(move |node| (*node, task)));
    let task_of: HashMap<NodeIndex, usize> = nodes.collect();
    let fetch = |index: usize| Task {
        pool: Pool::Fetches,
        rank: (fetches - index) as u64,
        needs: Vec::new(),
        takes: ResourceNeed::default(),
    };
    let takes = |segment: &Segment| {
        // One after the other, so the most that any of them takes.
        segment.steps.iter().fold(ResourceNeed::default(), |most, step| {
            let Some(node) = plan.graph.stage_node(*step) else { return most };
            let stage = plan.graph.stage(node).1;
            let need = match in_vm.contains(step) {
                true => ResourceNeed { memory: vm::MEMORY, loop_devices: 0 },
                false => ResourceNeed {
                    memory: history.memory(node.id, &stage.module.name),
                    loop_devices: step::loop_devices(catalog, stage),
                },
            };
            ResourceNeed {
                memory: most.memory.max(need.memory),
                loop_devices: most.loop_devices.max(need.loop_devices),
            }
        })
    };
    let segment = |segment: &Segment| Task {
        pool: Pool::Stages,
        rank: segment.rank,
        needs: segment
            .fetches
            .iter()
            .map(|node| task_of[node])
            .chain(segment.after.iter().map(|index| fetches + index))
            .collect(),
        takes: takes(segment),
    };
    (0..fetches).map(fetch).chain(plan.segments.iter().map(segment)).collect()
}

/// What the outcome says of every node that the plan wants before anything has begun.
fn before(plan: &Plan, lease: &Lease) -> BTreeMap<NodeIndex, NodeOutcome> {
    let graph = &plan.graph;
    let outcome = |node: NodeIndex| match plan.decision(node).action {
        Action::Run | Action::Fetch => Some(NodeOutcome::NotStarted),
        Action::Cached => {
            let object = graph.stage_node(node).and_then(|stage| lease.object(stage.id));
            let metadata = object.map_or(Value::Null, |object| object.metadata().clone());
            Some(NodeOutcome::Cached { metadata })
        }
        Action::Unneeded => None,
    };
    graph.dag.node_indices().filter_map(|node| Some((node, outcome(node)?))).collect()
}

/// Passes on the events of the workers until the last one is done.
fn watch(
    events: &Receiver<(Instant, WorkerEvent)>,
    interrupt: &Interrupt,
    start: Instant,
    report: &mut dyn FnMut(Instant, &Event<'_>),
    outcome: &mut Outcome,
) {
    let mut is_reported = false;
    loop {
        if !is_reported && interrupt.is_raised() {
            is_reported = true;
            report(Instant::now(), &Event::Interrupted);
        }
        let (at, event) = match events.recv_timeout(INTERRUPT_POLL_INTERVAL) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match event {
            WorkerEvent::FetchStarted { node, worker } => report(at, &Event::FetchStarted { node, worker }),
            WorkerEvent::FetchProgress { node, done, total } => report(at, &Event::FetchProgress { node, done, total }),
            WorkerEvent::Waited { node, since, reason } => {
                report(at, &Event::Waited { node, since: since.saturating_duration_since(start), reason });
            }
            WorkerEvent::FetchOutput { node, text } => report(at, &Event::FetchOutput { node, text: &text }),
            WorkerEvent::StageStarted { node, worker } => report(at, &Event::StageStarted { node, worker }),
            WorkerEvent::StageOutput { node, text } => report(at, &Event::StageOutput { node, text: &text }),
            WorkerEvent::Finished { node, outcome: result } => {
                report(at, &Event::Finished { node, outcome: &result });
                outcome.nodes.insert(node, *result);
            }
        }
    }
}

/// What the history is to keep of a build.
fn lines(plan: &Plan, lease: &Lease, outcome: &Outcome) -> Vec<HistoryLine> {
    let line = |(node, outcome): (&NodeIndex, &NodeOutcome)| {
        let (stage, NodeOutcome::Ran(result)) = (plan.graph.stage_node(*node)?, outcome) else { return None };
        let ms = u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX);
        let module = plan.graph.stage(stage).1.module.name.clone();
        let size = lease.store().input_bytes(&plan.graph, *node);
        let bytes = lease.object(stage.id).filter(|_| lease.store().keeps()).map(|object| object.bytes);
        result.success.then(|| HistoryLine {
            id: stage.id,
            module,
            ms,
            size,
            memory: result.memory.unwrap_or(0),
            bytes,
        })
    };
    outcome.nodes.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests;
