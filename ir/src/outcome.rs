//! What came of a build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use crate::id::StageId;
use crate::value::Value;

/// What a stage that ran gave back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageResult {
    /// Whether it succeeded.
    pub success: bool,
    /// What it wrote to its standard output and error, invalid UTF-8 replaced; of very much, the beginning and the end.
    pub output: String,
    /// The file with all of it; none where it could not be kept.
    pub log: Option<PathBuf>,
    /// For a failed stage: what went wrong, in one line where the module could say so.
    pub error: Option<String>,
    /// For an on-disk stage that failed without reporting why: its exit status.
    pub exit_status: Option<i32>,
    /// The exception that an on-disk module reported: an object with `type`, `value` and `traceback`.
    pub exception: Option<Box<Value>>,
    /// The metadata that it wrote; `null` when it wrote none.
    pub metadata: Value,
    /// How long it took, preparation included.
    pub duration: Duration,
    /// How many bytes it and what it started wrote to disks, where the system counts them.
    pub written: Option<u64>,
    /// The most memory that one of its processes had, in bytes, where it was measured.
    pub memory: Option<u64>,
    /// For a failed stage: what it failed of.
    pub cause: Option<Cause>,
}

/// What a stage or a fetch failed of; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its module, or what the manifest asks of that.
    Module,
    /// Its surroundings could not be prepared or taken down: an input, a device, a mount, the sandbox.
    Environment,
    /// The machine had no more of something.
    Exhausted(Resource),
    /// It took longer than it may.
    TimedOut,
    /// The user ended the build.
    Interrupted,
}

/// What a machine may have too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Memory.
    Memory,
    /// Room on a disk.
    Disk,
    /// Loop devices.
    LoopDevices,
    /// Threads and processes.
    Tasks,
    /// What runs programs of another architecture.
    Emulator,
}

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOutcome {
    /// The stage ran, well or not.
    Ran(StageResult),
    /// The result was used from the store; its metadata as recorded when it ran.
    Cached {
        /// The metadata of the stage; `null` when it wrote none.
        metadata: Value,
    },
    /// The stage did not run: its trees hold what those of an earlier run held, whose result was used.
    Equal {
        /// The metadata of that run; `null` when it wrote none.
        metadata: Value,
        /// The stage that ran then.
        to: StageId,
    },
    /// The item was fetched.
    Fetched {
        /// How many bytes it has.
        bytes: u64,
    },
    /// The item could not be fetched.
    FetchFailed {
        /// Why, with where it was to come from.
        error: String,
        /// What it failed of.
        cause: Cause,
    },
    /// Not started, because something that it needs failed or the build was ended.
    NotStarted,
}

/// What came of a build: complete, so that reports never need to read the store.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// For every node that the plan wanted run, fetched or cached.
    pub nodes: BTreeMap<NodeIndex, NodeOutcome>,
    /// Whether the user ended the build.
    pub interrupted: bool,
    /// From start to end.
    pub duration: Duration,
}

impl NodeOutcome {
    /// Whether the user ended the build while it was at this: then it is no failure.
    pub fn is_interrupted(&self) -> bool {
        match self {
            NodeOutcome::Ran(StageResult { cause, .. }) => *cause == Some(Cause::Interrupted),
            NodeOutcome::FetchFailed { cause, .. } => *cause == Cause::Interrupted,
            _ => false,
        }
    }

    /// Whether it failed, by its own doing or for what the machine lacked.
    pub fn is_failure(&self) -> bool {
        let failed =
            matches!(self, NodeOutcome::Ran(StageResult { success: false, .. }) | NodeOutcome::FetchFailed { .. });
        failed && !self.is_interrupted()
    }
}

impl Outcome {
    /// Whether everything that the plan wanted was done.
    pub fn success(&self) -> bool {
        !self.interrupted
            && self.nodes.values().all(|node| match node {
                NodeOutcome::Ran(result) => result.success,
                NodeOutcome::Cached { .. } | NodeOutcome::Equal { .. } | NodeOutcome::Fetched { .. } => true,
                NodeOutcome::FetchFailed { .. } | NodeOutcome::NotStarted => false,
            })
    }
}
