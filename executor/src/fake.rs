//! Stand-ins for tests that assert on what ran: a runner that does what the test says, a monitor that
//! remembers, a machine that has what the test says.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Value};
use osbc_sandbox::client::{StageIo, StageRunner};
use osbc_sandbox::request::{StageFailure, StageReply, StageRequest};

use crate::event::{Event, Monitor};
use crate::machine::{Free, Machine};

type Script = dyn Fn(&StageRequest, &StageIo<'_>) -> StageReply + Send + Sync;

/// Runs a function in place of each stage, and remembers what it was asked for.
pub struct FakeRunner {
    script: Box<Script>,
    moment: AtomicUsize,
    ran: Mutex<Vec<Ran>>,
}

/// A stage that was run.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was asked for.
    pub request: StageRequest,
    /// When it began, counted in beginnings and ends.
    pub began: usize,
    /// When it ended.
    pub ended: usize,
}

impl FakeRunner {
    /// A runner that does `script` for each stage.
    pub fn new(script: impl Fn(&StageRequest, &StageIo<'_>) -> StageReply + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), moment: AtomicUsize::new(0), ran: Mutex::default() }
    }

    /// A runner whose stages do nothing and succeed.
    pub fn succeeding() -> Self {
        Self::new(|_, _| success())
    }

    /// The stages that were run, in the order in which they ended.
    pub fn ran(&self) -> Vec<Ran> {
        self.ran.lock().expect("no script panicked").clone()
    }
}

impl fmt::Debug for FakeRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRunner").field("ran", &self.ran).finish_non_exhaustive()
    }
}

impl StageRunner for FakeRunner {
    fn run(&self, request: &StageRequest, io: &StageIo<'_>) -> StageReply {
        let began = self.moment.fetch_add(1, Ordering::SeqCst);
        let reply = (self.script)(request, io);
        let ended = self.moment.fetch_add(1, Ordering::SeqCst);
        self.ran.lock().expect("no script panicked").push(Ran { request: request.clone(), began, ended });
        reply
    }
}

impl Ran {
    /// Whether both ran at the same time for a while.
    pub fn overlaps(&self, other: &Ran) -> bool {
        self.began < other.ended && other.began < self.ended
    }
}

/// A machine that has what a test says.
#[derive(Debug)]
pub struct FakeMachine {
    /// Bytes of memory.
    pub memory: AtomicU64,
    /// Bytes of disk.
    pub disk: AtomicU64,
    /// How many processes the kernel killed because memory ran out.
    pub kills: AtomicU64,
    /// Loop devices, unless there is no limit.
    pub loop_devices: Option<u64>,
}

impl FakeMachine {
    /// One that has enough of everything.
    pub const fn plenty() -> Self {
        Self {
            memory: AtomicU64::new(u64::MAX),
            disk: AtomicU64::new(u64::MAX),
            kills: AtomicU64::new(0),
            loop_devices: None,
        }
    }
}

impl Machine for FakeMachine {
    fn free(&self) -> Free {
        Free { memory: Some(self.memory.load(Ordering::SeqCst)), disk: Some(self.disk.load(Ordering::SeqCst)) }
    }

    fn loop_devices(&self) -> Option<u64> {
        self.loop_devices
    }

    fn out_of_memory_kills(&self) -> u64 {
        self.kills.load(Ordering::SeqCst)
    }
}

/// The reply of a stage that did its work.
pub fn success() -> StageReply {
    StageReply { metadata: Value::Null, failure: None, hint: None, exception: None, written: None, memory: None }
}

/// The reply of a stage whose module gave up.
pub fn failure(reason: &str) -> StageReply {
    StageReply::failed(StageFailure::Module(reason.to_owned()))
}

/// Remembers all events.
#[derive(Debug, Default)]
pub struct RecordingMonitor {
    /// What happened, in order.
    pub events: Vec<RecordedEvent>,
}

/// An event, without what it borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of `Event`")]
pub enum RecordedEvent {
    Started,
    Cached(NodeIndex),
    FetchStarted(NodeIndex),
    Waited(NodeIndex),
    FetchProgress(NodeIndex, u64, Option<u64>),
    FetchOutput(NodeIndex, String),
    StageStarted(NodeIndex, usize),
    StageOutput(NodeIndex, String),
    Finished(NodeIndex, NodeOutcome),
    Interrupted,
    Ended,
}

impl Monitor for RecordingMonitor {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        self.events.push(match *event {
            Event::Started { .. } => RecordedEvent::Started,
            Event::Cached { node } => RecordedEvent::Cached(node),
            Event::FetchStarted { node, .. } => RecordedEvent::FetchStarted(node),
            Event::FetchProgress { node, done, total } => RecordedEvent::FetchProgress(node, done, total),
            Event::Waited { node, .. } => RecordedEvent::Waited(node),
            Event::FetchOutput { node, text } => RecordedEvent::FetchOutput(node, text.to_owned()),
            Event::StageStarted { node, worker } => RecordedEvent::StageStarted(node, worker),
            Event::StageOutput { node, text } => RecordedEvent::StageOutput(node, text.to_owned()),
            Event::Finished { node, outcome } => RecordedEvent::Finished(node, outcome.clone()),
            Event::Interrupted => RecordedEvent::Interrupted,
            Event::Ended { .. } => RecordedEvent::Ended,
        });
    }
}
