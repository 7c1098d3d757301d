//! The outcome of a build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use crate::id::StageId;
use crate::value::Value;

/// The result of a stage that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageResult {
    /// Whether it succeeded.
    pub success: bool,
    /// Its standard output and error, invalid UTF-8 replaced. Of long output, only the beginning and the end.
    pub output: String,
    /// The file with all of it; `None` if it could not be written.
    pub log: Option<PathBuf>,
    /// For a failed stage: what went wrong, in one line if the module reported it.
    pub error: Option<String>,
    /// For an on-disk stage that failed without reporting why: its exit status.
    pub exit_status: Option<i32>,
    /// The exception that an on-disk module reported: an object with `type`, `value` and `traceback`.
    pub exception: Option<Box<Value>>,
    /// The metadata that it wrote; `null` if it wrote none.
    pub metadata: Value,
    /// How long it took, preparation included.
    pub duration: Duration,
    /// Bytes that it and its children wrote to disks, if the system counts them.
    pub written: Option<u64>,
    /// The peak memory of its largest process in bytes, if it was measured.
    pub memory: Option<u64>,
    /// For a failed stage: the cause.
    pub cause: Option<Cause>,
}

/// Why a stage or a fetch failed; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its module, or the options of the manifest.
    Module,
    /// An input, a device, a mount or the sandbox could not be set up or torn down.
    Environment,
    /// A resource of the machine was exhausted.
    Exhausted(Resource),
    /// It exceeded its time limit.
    TimedOut,
    /// The user ended the build.
    Interrupted,
}

/// A resource that can be exhausted.
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
    /// The emulator for programs of another architecture.
    Emulator,
}

/// The outcome of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOutcome {
    /// The stage ran, and succeeded or failed.
    Ran(StageResult),
    /// The result was used from the store; its metadata as recorded when it ran.
    Cached {
        /// The metadata of the stage; `null` when it wrote none.
        metadata: Value,
    },
    /// The stage did not run: its trees have the content of those of an earlier run, whose result was used.
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
        /// Why, with its URL.
        error: String,
        /// The cause.
        cause: Cause,
    },
    /// Not started, because a node that it needs failed, or the build was ended.
    NotStarted,
}

/// The outcome of a build, complete, so that reports never need to read the store.
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
    /// Whether the user ended the build during this node; then it is no failure.
    pub fn is_interrupted(&self) -> bool {
        match self {
            NodeOutcome::Ran(StageResult { cause, .. }) => *cause == Some(Cause::Interrupted),
            NodeOutcome::FetchFailed { cause, .. } => *cause == Cause::Interrupted,
            _ => false,
        }
    }

    /// Whether it failed, for any cause.
    pub fn is_failure(&self) -> bool {
        let failed =
            matches!(self, NodeOutcome::Ran(StageResult { success: false, .. }) | NodeOutcome::FetchFailed { .. });
        failed && !self.is_interrupted()
    }
}

impl Outcome {
    /// Whether everything in the plan was done.
    pub fn success(&self) -> bool {
        !self.interrupted
            && self.nodes.values().all(|node| match node {
                NodeOutcome::Ran(result) => result.success,
                NodeOutcome::Cached { .. } | NodeOutcome::Equal { .. } | NodeOutcome::Fetched { .. } => true,
                NodeOutcome::FetchFailed { .. } | NodeOutcome::NotStarted => false,
            })
    }
}
