//! What happens during a build, as one typed stream. Monitors take `&Event` and return nothing; a new display never
//! touches the run. All events reach a monitor on one thread, in the order in which they happened.

use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Outcome};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The build begins; the plan is settled.
    Started,
    /// A source item is being fetched.
    FetchStarted {
        /// The item.
        node: NodeIndex,
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

/// Shows or records events.
pub trait Monitor {
    /// Takes notice of an event.
    fn event(&mut self, event: &Event<'_>);
}
