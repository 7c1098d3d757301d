//! Events as JSON lines, to be written down and read back: `docs/events.md` describes them.
//!
//! What a line says about a node it says by number; the lines after the first say what each number stands for.

use std::io::{self, BufRead};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Graph, Node, NodeOutcome, Plan};
use serde::{Deserialize, Serialize};

use super::writer::Form;
use super::{Event, Wait};

/// The version of the lines. Raised when a reader of the one before would misunderstand; more kinds of lines and more
/// fields are no reason.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Microseconds since the start.
    pub at: u64,
    /// What happened.
    pub event: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// The first line.
    Started {
        /// [`VERSION`] of who wrote it.
        version: u32,
        /// The osbc that did.
        osbc: String,
        /// Microseconds since 1970 at the start.
        wall: u64,
        /// How many stages can run at the same time.
        workers: usize,
    },
    /// A stage or item that the build has to do with.
    Node(NodeLine),
    /// The store has it.
    Cached {
        /// The node's number.
        node: usize,
    },
    /// A stage did not run, since what it works on has the content of an earlier run, whose result was used.
    Equal {
        /// The node's number.
        node: usize,
        /// The stage that ran then, by osbc's id.
        to: String,
    },
    /// An item is being fetched.
    FetchStarted {
        /// The node's number.
        node: usize,
        /// Who fetches it.
        worker: usize,
    },
    /// A fetch goes on.
    FetchProgress {
        /// The node's number.
        node: usize,
        /// Bytes had so far.
        done: u64,
        /// Bytes in all.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        total: Option<u64>,
    },
    /// The source of an item wrote something.
    FetchOutput {
        /// The number of the first of the items that it fetches.
        node: usize,
        /// The text.
        text: String,
    },
    /// What starts next had to wait.
    Waited {
        /// The node's number.
        node: usize,
        /// From when on, in microseconds since the start.
        since: u64,
        /// What for.
        reason: Wait,
    },
    /// A stage begins.
    StageStarted {
        /// The node's number.
        node: usize,
        /// The worker that runs it.
        worker: usize,
    },
    /// A stage wrote something.
    StageOutput {
        /// The node's number.
        node: usize,
        /// The text.
        text: String,
    },
    /// A stage is done.
    StageFinished {
        /// The node's number.
        node: usize,
        /// Whether it succeeded.
        success: bool,
        /// Whether that is because the build was ended.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        interrupted: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<String>,
        /// How long it took, in microseconds.
        duration: u64,
        /// How many bytes it wrote, where the system counts them.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        written: Option<u64>,
        /// The name of its log in the directory of the build's logs.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        log: Option<String>,
    },
    /// An item was fetched.
    Fetched {
        /// The node's number.
        node: usize,
        /// Its size.
        bytes: u64,
    },
    /// An item could not be fetched.
    FetchFailed {
        /// The node's number.
        node: usize,
        /// Why.
        error: String,
        /// Whether that is because the build was ended.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        interrupted: bool,
    },
    /// The user asked to end the build.
    Interrupted,
    /// The last line of a build that came to its end.
    Ended {
        /// Whether all that was wanted is done.
        success: bool,
        /// Whether the user ended it.
        interrupted: bool,
        /// From start to end, in microseconds.
        duration: u64,
    },
}

/// A stage or item, as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Its number in this build.
    pub node: usize,
    /// The full id: a stage's or an item's.
    pub id: String,
    /// osbuild's id of a stage.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub osbuild_id: Option<String>,
    /// The pipeline of a stage, the first of those that share it; none for an item.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pipeline: Option<String>,
    /// The full name of the module.
    pub module: String,
    /// The checksum of an item.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checksum: Option<String>,
    /// What the plan says: `run`, `fetch` or `cached`.
    pub action: Action,
}

impl NodeLine {
    /// The node of a graph, with what happens to it.
    pub fn new(graph: &Graph, index: NodeIndex, action: Action) -> Self {
        let node = index.index();
        match &graph.dag[index] {
            Node::Stage(stage) => {
                let (pipeline, written) = graph.stage(stage);
                Self {
                    node,
                    id: stage.id.to_string(),
                    osbuild_id: Some(stage.compat.to_string()),
                    pipeline: Some(pipeline.name.clone()),
                    module: written.module.name.clone(),
                    checksum: None,
                    action,
                }
            }
            Node::Item(item) => {
                let (source, written) = graph.item(item);
                Self {
                    node,
                    id: item.id.to_string(),
                    osbuild_id: None,
                    pipeline: None,
                    module: source.module.name.clone(),
                    checksum: Some(written.key.checksum.clone()),
                    action,
                }
            }
        }
    }

    /// The pipeline and module of a stage, or the module and checksum of an item.
    pub fn name(&self) -> String {
        match (&self.pipeline, &self.checksum) {
            (Some(pipeline), _) => format!("{pipeline}: {}", self.module),
            (None, Some(checksum)) => format!("{}: {checksum}", self.module),
            (None, None) => self.module.clone(),
        }
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A moment in microseconds since 1970.
pub fn micros_since_1970(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, micros)
}

/// The lines that an event comes to: one, or at the start one more for each node.
pub fn lines(plan: &Plan, at: Duration, event: &Event<'_>) -> Vec<EventLine> {
    let at = micros(at);
    let happened = match event {
        Event::Started { wall, workers } => {
            let started = Happened::Started {
                version: VERSION,
                osbc: env!("CARGO_PKG_VERSION").to_owned(),
                wall: micros_since_1970(*wall),
                workers: *workers,
            };
            let nodes = plan.graph.dag.node_indices().map(|node| (node, plan.decision(node).action));
            let nodes = nodes.filter(|(_, action)| *action != Action::Unneeded);
            let nodes = nodes.map(|(node, action)| Happened::Node(NodeLine::new(&plan.graph, node, action)));
            return std::iter::once(started).chain(nodes).map(|event| EventLine { at, event }).collect();
        }
        Event::Cached { node } => Happened::Cached { node: node.index() },
        Event::FetchStarted { node, worker } => Happened::FetchStarted { node: node.index(), worker: *worker },
        Event::FetchProgress { node, done, total } => {
            Happened::FetchProgress { node: node.index(), done: *done, total: *total }
        }
        Event::FetchOutput { node, text } => Happened::FetchOutput { node: node.index(), text: (*text).to_owned() },
        Event::Waited { node, since, reason } => {
            Happened::Waited { node: node.index(), since: micros(*since), reason: *reason }
        }
        Event::StageStarted { node, worker } => Happened::StageStarted { node: node.index(), worker: *worker },
        Event::StageOutput { node, text } => Happened::StageOutput { node: node.index(), text: (*text).to_owned() },
        Event::Finished { node, outcome } => match outcome {
            NodeOutcome::Ran(result) => Happened::StageFinished {
                node: node.index(),
                success: result.success,
                interrupted: outcome.is_interrupted(),
                error: result.error.clone(),
                duration: micros(result.duration),
                written: result.written,
                log: result.log.as_ref().and_then(|log| Some(log.file_name()?.to_string_lossy().into_owned())),
            },
            NodeOutcome::Equal { to, metadata: _ } => Happened::Equal { node: node.index(), to: to.to_string() },
            NodeOutcome::Fetched { bytes } => Happened::Fetched { node: node.index(), bytes: *bytes },
            NodeOutcome::FetchFailed { error, cause: _ } => Happened::FetchFailed {
                node: node.index(),
                error: error.clone(),
                interrupted: outcome.is_interrupted(),
            },
            // Both come before anything starts, or not at all.
            NodeOutcome::Cached { .. } | NodeOutcome::NotStarted => return Vec::new(),
        },
        Event::Interrupted => Happened::Interrupted,
        Event::Ended { outcome, duration } => Happened::Ended {
            success: outcome.success(),
            interrupted: outcome.interrupted,
            duration: micros(*duration),
        },
    };
    vec![EventLine { at, event: happened }]
}

/// JSON, a line each.
#[derive(Debug)]
pub struct JsonLines;

impl Form for JsonLines {
    fn put(&mut self, line: &EventLine, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *out, line)?;
        out.push(b'\n');
        Ok(())
    }
}

/// Reads lines back. One that is cut short by the death of its writer ends them; one of a kind that this osbc does not
/// know is passed over.
///
/// # Errors
/// What is read is something else, or of a newer version.
pub fn read(from: impl BufRead) -> io::Result<Vec<EventLine>> {
    let mut lines = Vec::new();
    for text in from.split(b'\n') {
        let text = text?;
        let line: EventLine = match serde_json::from_slice(&text) {
            Ok(line) => line,
            Err(error) if error.is_eof() && !lines.is_empty() => break,
            Err(error) if error.is_data() && !lines.is_empty() => continue,
            Err(error) => return Err(error.into()),
        };
        match &line.event {
            Happened::Started { version, .. } if *version > VERSION => {
                let reason = format!("events of version {version}; this osbc knows version {VERSION}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Happened::Started { .. } => {}
            _ if lines.is_empty() => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the first line is no `started`"));
            }
            _ => {}
        }
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(version: u32) -> String {
        let event = Happened::Started { version, osbc: "1".to_owned(), wall: 7, workers: 2 };
        serde_json::to_string(&EventLine { at: 0, event }).expect("has a JSON form") + "\n"
    }

    #[test]
    fn lines_are_read_back_up_to_where_their_writer_died() {
        let text = started(VERSION)
            + r#"{"at":5,"event":{"stage_started":{"node":3,"worker":0}}}
{"at":6,"event":{"a_kind_of_later":{"node":3}}}
{"at":7,"event":"interrupted"}
{"at":8,"event":{"stage_fini"#;
        let lines = read(text.as_bytes()).expect("reads");
        let events: Vec<_> = lines[1..].iter().map(|line| (line.at, &line.event)).collect();
        let started = Happened::StageStarted { node: 3, worker: 0 };
        assert_eq!(events, [(5, &started), (7, &Happened::Interrupted)]);
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused() {
        for text in ["{}\n", "{\"at\":1,\"event\":\"interrupted\"}\n", "no\n", "{"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        let error = read(started(VERSION + 1).as_bytes()).expect_err("newer");
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}
