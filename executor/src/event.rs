//! What happens during a build, as one typed stream.
//!
//! Monitors take `&Event` and return nothing; a new display never touches the run. All events reach a monitor on one
//! thread, each with the moment at which it happened; those of one node come in order.

pub mod line;
pub mod trace;
pub mod writer;

use std::time::{Duration, SystemTime};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Outcome};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The build begins; the plan is settled.
    Started {
        /// When, by the wall clock; all moments count from here.
        wall: SystemTime,
        /// How many stages can run at the same time.
        workers: usize,
    },
    /// The store has a result or an item, and the build uses it.
    Cached {
        /// The stage or item.
        node: NodeIndex,
    },
    /// A source item is being fetched.
    FetchStarted {
        /// The item.
        node: NodeIndex,
        /// The one that fetches it, from 0; those who fetch are counted apart from those who run stages.
        worker: usize,
    },
    /// A fetch goes on.
    FetchProgress {
        /// The item.
        node: NodeIndex,
        /// Bytes had so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// What is about to start was ready and had to wait. Shorter waits than the overhead of changing tasks are left
    /// out.
    Waited {
        /// The stage or item.
        node: NodeIndex,
        /// From when on.
        since: Duration,
        /// What for.
        reason: Wait,
    },
    /// The source of an item wrote something: an on-disk one, for all items that it fetches at once.
    FetchOutput {
        /// The first of the items.
        node: NodeIndex,
        /// Whole lines, each behind the source's name.
        text: &'a str,
    },
    /// A stage begins.
    StageStarted {
        /// The stage.
        node: NodeIndex,
        /// The worker that runs it, from 0.
        worker: usize,
    },
    /// A stage wrote something.
    StageOutput {
        /// The stage.
        node: NodeIndex,
        /// The text, possibly cut anywhere; invalid UTF-8 replaced.
        text: &'a str,
    },
    /// A stage or fetch is done, well or not.
    Finished {
        /// The stage or item.
        node: NodeIndex,
        /// What came of it.
        outcome: &'a NodeOutcome,
    },
    /// The user asked to end the build.
    Interrupted,
    /// The build is over.
    Ended {
        /// All that came of it.
        outcome: &'a Outcome,
        /// From start to end.
        duration: Duration,
    },
}

/// What a task that was ready had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// A worker that is free.
    Worker,
    /// Room on the machine: memory, loop devices, disk, or a token of `make`.
    Admission,
}

/// Shows or records events.
pub trait Monitor {
    /// Takes notice of an event that happened `at` this time after the start.
    fn event(&mut self, at: Duration, event: &Event<'_>);
}

impl<M: Monitor + ?Sized> Monitor for &mut M {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        (**self).event(at, event);
    }
}

/// Several monitors as one.
#[derive(Default)]
pub struct Tee<'m>(pub Vec<Box<dyn Monitor + 'm>>);

impl Monitor for Tee<'_> {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        for monitor in &mut self.0 {
            monitor.event(at, event);
        }
    }
}
