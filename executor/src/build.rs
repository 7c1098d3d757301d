//! What all workers of a build share, and what each of them sends. Knows neither in which order things happen nor how
//! one of them is done.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Pipeline, Plan, Runner, Stage, StageNode};
use osbc_module_api::Catalog;
use osbc_sandbox::client::StageRunner;
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::Transaction;
use osbc_store::history::History;

use crate::cutoff::Cutoff;
use crate::event::{Monitor, Wait};
use crate::log::BuildLogs;
use crate::machine::Machine;
use crate::needs::Needs;
use crate::prepared::Preparations;
use crate::record::About;
use crate::scheduler::Scheduler;
use crate::tokens::Tokens;

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
    pub(crate) transaction: &'a Transaction,
    pub(crate) runner: &'a dyn StageRunner,
    pub(crate) catalog: &'a Catalog,
    pub(crate) machine: &'a dyn Machine,
    /// How many processes the machine had killed because memory ran out when it was last asked.
    pub(crate) kills: AtomicU64,
    /// The tokens of a jobserver, where there is one.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) settings: &'a Settings,
    pub(crate) logs: BuildLogs,
    pub(crate) preparations: Preparations<'a>,
    pub(crate) history: History,
    pub(crate) cutoff: Cutoff<'a>,
    pub(crate) needs: Needs,
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

    /// Gives up the results that nothing needs once this segment is over.
    pub(crate) fn release(&self, segment: usize) {
        for id in self.needs.over(segment) {
            // What is not given up only stays until the end of the build.
            self.transaction.release(id).ok();
        }
    }

    /// Whether the kernel has killed a process because memory ran out since this was last asked.
    pub(crate) fn memory_ran_out(&self) -> bool {
        let kills = self.machine.out_of_memory_kills();
        kills > self.kills.swap(kills, Ordering::Relaxed)
    }

    /// What it says, and the pipeline that it was written in.
    pub(crate) fn stage(&self, node: NodeIndex) -> (&'a Pipeline, &'a Stage) {
        self.plan.graph.stage(self.stage_node(node))
    }
}

/// What a worker sends to the thread that owns the monitor.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    FetchStarted { node: NodeIndex, worker: usize },
    FetchProgress { node: NodeIndex, done: u64, total: Option<u64> },
    Waited { node: NodeIndex, since: Instant, reason: Wait },
    FetchOutput { node: NodeIndex, text: String },
    StageStarted { node: NodeIndex, worker: usize },
    StageOutput { node: NodeIndex, text: String },
    Finished { node: NodeIndex, outcome: Box<NodeOutcome> },
}

/// One thread that takes tasks.
pub(crate) struct Worker<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) scheduler: &'a Scheduler<'a>,
    pub(crate) events: Sender<(Instant, WorkerEvent)>,
}

impl Worker<'_> {
    /// Sends an event to the thread that owns the monitor.
    pub(crate) fn send(&self, event: WorkerEvent) {
        // The other end lives until the last worker is done.
        self.events.send((Instant::now(), event)).ok();
    }
}
