//! Runs a plan from its first event to its last: fetches and segments as tasks, workers for both, one thread for the
//! monitor. Knows which task is what; neither how it is done nor what comes first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, NodeOutcome, Outcome, Pipeline, Plan, Runner, Segment, Stage, StageNode, Value};
use osbc_module_api::Catalog;
use osbc_module_api::threads::{self, NoThread};
use osbc_sandbox::client::StageRunner;
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::vm;
use osbc_store::history::{History, HistoryLine};
use osbc_store::{Lease, StoreError};

use crate::cutoff::Cutoff;
use crate::event::{Event, Monitor, Tee, Wait};
use crate::log::BuildLogs;
use crate::machine::{Machine, Need};
use crate::prepared::Preparations;
use crate::record::{About, Recording};
use crate::scheduler::{Pool, Scheduler, Task, Ticket};
use crate::tokens::Tokens;
use crate::{fetch, segment, step};

/// How many items are fetched at the same time.
const FETCHES: usize = 4;
/// How many events may wait for the monitor before who sends them waits too.
const EVENTS: usize = 1024;
/// A shorter wait of a ready task is the change of tasks, and not told.
const WAIT: Duration = Duration::from_millis(1);
/// How soon an interrupt is shown when nothing else happens.
const GLANCE: Duration = Duration::from_millis(50);

/// What a build is done with.
pub struct Parts<'a> {
    /// Runs the stages.
    pub runner: &'a dyn StageRunner,
    /// Describes the modules.
    pub catalog: &'a Catalog,
    /// Sees what happens.
    pub monitor: &'a mut dyn Monitor,
    /// Where it is done: asked before a stage begins beside others.
    pub machine: &'a dyn Machine,
    /// Ends the build when raised.
    pub interrupt: &'a Interrupt,
    /// How it is done.
    pub settings: &'a Settings,
    /// What it says about itself in the record that is kept of it.
    pub about: &'a About,
}

/// How a build is done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many stages run at the same time.
    pub jobs: NonZeroUsize,
    /// Whether what does not depend on a failure goes on after it.
    pub keep_going: bool,
    /// The jobserver of a `make` that osbc runs under: stages then run with its tokens.
    pub jobserver: Option<jobserver::Client>,
    /// How long a stage may take.
    pub stage_timeout: Option<Duration>,
    /// The stages that run in a virtual machine.
    pub in_vm: BTreeSet<NodeIndex>,
    /// The runner for stages that run in the host's tree.
    pub host_runner: Runner,
    /// A stage that runs even where an earlier run's result would do.
    pub always_run: Option<NodeIndex>,
    /// The variables of the environment that source modules may ask for.
    pub environment: BTreeMap<String, String>,
    /// The environment of on-disk modules on the host's side.
    pub host_environment: BTreeMap<String, String>,
}

/// What all workers share.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    /// What is fetched, in groups that are fetched at once.
    pub(crate) fetches: Vec<Vec<NodeIndex>>,
    pub(crate) lease: &'a Lease,
    pub(crate) runner: &'a dyn StageRunner,
    pub(crate) catalog: &'a Catalog,
    pub(crate) machine: &'a dyn Machine,
    /// How often the machine had killed for want of memory when it was last asked.
    kills: AtomicU64,
    /// The tokens of a jobserver, where there is one.
    tokens: Option<Tokens>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) settings: &'a Settings,
    pub(crate) logs: BuildLogs,
    pub(crate) preparations: Preparations,
    pub(crate) history: History,
    pub(crate) cutoff: Cutoff<'a>,
}

impl<'a> Context<'a> {
    /// The stage at a node of the plan's steps.
    pub(crate) fn stage_node(&self, node: NodeIndex) -> &'a StageNode {
        self.plan.graph.stage_node(node).expect("only stages are steps of a segment")
    }

    /// What the result of a stage takes in the store, by what it took before.
    pub(crate) fn known_bytes(&self, node: NodeIndex) -> Option<u64> {
        self.history.bytes(self.stage_node(node).id, &self.stage(node).1.module.name)
    }

    /// Whether the kernel has killed for want of memory since this was last asked.
    pub(crate) fn memory_ran_out(&self) -> bool {
        let kills = self.machine.out_of_memory_kills();
        kills > self.kills.swap(kills, Ordering::Relaxed)
    }

    /// What it says, and the pipeline that it was written in.
    pub(crate) fn stage(&self, node: NodeIndex) -> (&'a Pipeline, &'a Stage) {
        self.plan.graph.stage(self.stage_node(node))
    }
}

/// What workers tell the thread that owns the monitor.
#[derive(Debug)]
pub(crate) enum Message {
    FetchStarted { node: NodeIndex, worker: usize },
    FetchProgress { node: NodeIndex, done: u64, total: Option<u64> },
    Waited { node: NodeIndex, since: Instant, reason: Wait },
    FetchOutput { node: NodeIndex, text: String },
    StageStarted { node: NodeIndex, worker: usize },
    StageOutput { node: NodeIndex, text: String },
    Finished { node: NodeIndex, outcome: Box<NodeOutcome> },
}

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

/// Does what a plan says. The lease must be the one that the plan was made with. Every failure of a stage or fetch is
/// in the outcome; the monitor is called on this thread only.
///
/// # Errors
/// See [`RunError`].
pub fn run(plan: &Plan, lease: &Lease, parts: Parts<'_>) -> Result<Outcome, RunError> {
    let (start, wall) = (Instant::now(), SystemTime::now());
    let Parts { runner, catalog, monitor, machine, interrupt, settings, about } = parts;
    let recording = Recording::begin(lease.store(), plan, about);
    let logs = BuildLogs::new(recording.directory());
    let mut tee = Tee(vec![Box::new(recording), Box::new(monitor)]);
    let mut tell = |at: Instant, event: &Event<'_>| tee.event(at.saturating_duration_since(start), event);
    tell(start, &Event::Started { wall, workers: settings.jobs.get() });
    for node in plan.graph.dag.node_indices().filter(|node| plan.decision(*node).action == Action::Cached) {
        tell(start, &Event::Cached { node });
    }
    let mut outcome = Outcome { nodes: before(plan, lease), ..Outcome::default() };
    let fetches = fetch::groups(plan, catalog);
    // Without a history nothing is known, which is as good.
    let history = lease.store().history().unwrap_or_default();
    let scheduler = Scheduler::new(
        tasks(plan, catalog, &fetches, &history, &settings.in_vm),
        settings.keep_going,
        machine,
        interrupt,
    );
    let (messages, receiver) = crossbeam_channel::bounded(EVENTS);
    let kills = AtomicU64::new(machine.out_of_memory_kills());
    // Without a thread for it, all would have to wait for make.
    let tokens = settings.jobserver.clone().and_then(|client| Tokens::new(client).ok());
    let (cutoff, sealed) = Cutoff::new(plan, lease);
    let preparations = Preparations::default();
    let context = Context {
        plan,
        fetches,
        lease,
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
    };
    // Closed until all threads are there: without one of them nothing is to begin.
    let gate = RwLock::new(false);
    let may_begin = || *gate.read().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let mut is_open = gate.write().unwrap_or_else(PoisonError::into_inner);
        let worker = || Worker { context: &context, scheduler: &scheduler, messages: messages.clone() };
        let start_all = || {
            if !plan.segments.is_empty() {
                threads::spawn_scoped(scope, || context.cutoff.note_all(&sealed, interrupt))?;
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
        drop((is_open, messages));
        watch(&receiver, interrupt, start, &mut tell, &mut outcome);
        context.cutoff.close();
        started
    })?;
    outcome.interrupted = interrupt.is_raised();
    // Both are for the next build to know more; this one is as good without.
    lease.store().add_to_history(&lines(plan, lease, &outcome)).ok();
    lease.settle()?;
    outcome.duration = start.elapsed();
    tell(start + outcome.duration, &Event::Ended { outcome: &outcome, duration: outcome.duration });
    Ok(outcome)
}

/// One thread that takes tasks.
pub(crate) struct Worker<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) scheduler: &'a Scheduler<'a>,
    messages: Sender<(Instant, Message)>,
}

impl Worker<'_> {
    /// Tells the thread that owns the monitor.
    pub(crate) fn tell(&self, message: Message) {
        // The other end lives until the last worker is done.
        self.messages.send((Instant::now(), message)).ok();
    }

    /// Tells how long a task that begins now was ready before.
    fn tell_wait(&self, node: NodeIndex, ticket: &Ticket<'_, '_>, reason: Wait) {
        if ticket.ready.elapsed() >= WAIT {
            self.tell(Message::Waited { node, since: ticket.ready, reason });
        }
    }

    fn fetch(&self, number: usize) {
        while let Some(ticket) = self.scheduler.next(Pool::Fetches) {
            let nodes = &self.context.fetches[ticket.task];
            self.tell_wait(nodes[0], &ticket, ticket.waited_for);
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
            if asked.elapsed() >= WAIT {
                waited_for = Wait::Admission;
            }
            self.tell_wait(segment.steps[0], &ticket, waited_for);
            if segment::take_equal(self, segment) {
                ticket.succeed();
            } else if segment::run(self, segment, number) {
                self.context.cutoff.sealed(index);
                ticket.succeed();
            }
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
        takes: Need::default(),
    };
    let takes = |segment: &Segment| {
        // One after the other, so the most that any of them takes.
        segment.steps.iter().fold(Need::default(), |most, step| {
            let Some(node) = plan.graph.stage_node(*step) else { return most };
            let stage = plan.graph.stage(node).1;
            let need = match in_vm.contains(step) {
                true => Need { memory: vm::MEMORY, loop_devices: 0 },
                false => Need {
                    memory: history.memory(node.id, &stage.module.name),
                    loop_devices: step::loop_devices(catalog, stage),
                },
            };
            Need { memory: most.memory.max(need.memory), loop_devices: most.loop_devices.max(need.loop_devices) }
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

/// Passes on what the workers tell until the last one is done.
fn watch(
    messages: &Receiver<(Instant, Message)>,
    interrupt: &Interrupt,
    start: Instant,
    tell: &mut dyn FnMut(Instant, &Event<'_>),
    outcome: &mut Outcome,
) {
    let mut told = false;
    loop {
        if !told && interrupt.is_raised() {
            told = true;
            tell(Instant::now(), &Event::Interrupted);
        }
        let (at, message) = match messages.recv_timeout(GLANCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match message {
            Message::FetchStarted { node, worker } => tell(at, &Event::FetchStarted { node, worker }),
            Message::FetchProgress { node, done, total } => tell(at, &Event::FetchProgress { node, done, total }),
            Message::Waited { node, since, reason } => {
                tell(at, &Event::Waited { node, since: since.saturating_duration_since(start), reason });
            }
            Message::FetchOutput { node, text } => tell(at, &Event::FetchOutput { node, text: &text }),
            Message::StageStarted { node, worker } => tell(at, &Event::StageStarted { node, worker }),
            Message::StageOutput { node, text } => tell(at, &Event::StageOutput { node, text: &text }),
            Message::Finished { node, outcome: result } => {
                tell(at, &Event::Finished { node, outcome: &result });
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
