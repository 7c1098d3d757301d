//! A build as its events show it afterwards: what became of every node, when, and by whom. Knows lines, not where they
//! come from.

use std::collections::BTreeMap;

use osbc_executor::event::Wait;
use osbc_executor::event::line::{EventLine, Happened, NodeLine};
use osbc_ir::Action;
use serde::Serialize;

/// A build that was, by its events.
#[derive(Debug, Clone, Default)]
pub struct BuildTimeline {
    /// What it had to do with, by number.
    pub nodes: BTreeMap<usize, TimelineNode>,
    /// How many stages could run at a time.
    pub workers: usize,
    /// The moment of the last event, in microseconds since the start.
    pub last: u64,
    /// When the user asked to end it.
    pub interrupted: Option<u64>,
}

/// What became of a stage or item. Moments are in microseconds since the start.
#[derive(Debug, Clone, Serialize)]
pub struct TimelineNode {
    /// What it is.
    pub about: NodeLine,
    /// What became of it.
    pub state: State,
    /// Who ran or fetched it.
    pub worker: Option<usize>,
    /// When it began.
    pub started: Option<u64>,
    /// When it was done, well or not.
    pub finished: Option<u64>,
    /// What it waited for before it began.
    pub waits: Vec<TimelineWait>,
    /// What went wrong.
    pub error: Option<String>,
    /// The bytes that a stage wrote, or that an item has.
    pub bytes: Option<u64>,
    /// The name of its log.
    pub log: Option<String>,
}

/// A wait of something that was ready.
#[derive(Debug, Clone, Serialize)]
pub struct TimelineWait {
    /// From when on.
    pub since: u64,
    /// Until when.
    pub until: u64,
    /// What for.
    pub reason: Wait,
}

/// What became of a node, what a person looks for first at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It failed.
    Failed,
    /// It was at it when the build was ended, or when the events end.
    Unfinished,
    /// It ran or was fetched.
    Done,
    /// The store had it.
    Cached,
    /// It did not begin.
    NotStarted,
}

impl State {
    /// In one or two words.
    pub fn word(self) -> &'static str {
        match self {
            State::Failed => "failed",
            State::Unfinished => "unfinished",
            State::Done => "done",
            State::Cached => "cached",
            State::NotStarted => "not started",
        }
    }
}

impl TimelineNode {
    fn new(about: NodeLine) -> Self {
        let state = if about.action == Action::Cached { State::Cached } else { State::NotStarted };
        Self {
            about,
            state,
            worker: None,
            started: None,
            finished: None,
            waits: Vec::new(),
            error: None,
            bytes: None,
            log: None,
        }
    }

    /// Whether it is a stage and not an item.
    pub fn is_stage(&self) -> bool {
        self.about.pipeline.is_some()
    }

    /// How long it took, in microseconds.
    pub fn duration(&self) -> Option<u64> {
        Some(self.finished?.saturating_sub(self.started?))
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        self.about.name()
    }
}

impl BuildTimeline {
    /// Returns what the lines of a build's events say.
    pub fn new(lines: &[EventLine]) -> Self {
        let mut timeline = Self::default();
        for line in lines {
            timeline.last = timeline.last.max(line.at);
            timeline.take(line.at, &line.event);
        }
        timeline
    }

    fn take(&mut self, at: u64, event: &Happened) {
        let number = match event {
            Happened::Started { workers, .. } => {
                self.workers = *workers;
                return;
            }
            Happened::Node(about) => {
                self.nodes.insert(about.node, TimelineNode::new(about.clone()));
                return;
            }
            Happened::Interrupted => {
                self.interrupted = Some(at);
                return;
            }
            Happened::Ended { .. } => return,
            Happened::Cached { node }
            | Happened::Equal { node, .. }
            | Happened::FetchStarted { node, .. }
            | Happened::FetchProgress { node, .. }
            | Happened::FetchOutput { node, .. }
            | Happened::Waited { node, .. }
            | Happened::StageStarted { node, .. }
            | Happened::StageOutput { node, .. }
            | Happened::StageFinished { node, .. }
            | Happened::Fetched { node, .. }
            | Happened::FetchFailed { node, .. } => *node,
        };
        // What was never introduced is none of what the build had to do with.
        let Some(node) = self.nodes.get_mut(&number) else { return };
        match event {
            Happened::FetchStarted { worker, .. } | Happened::StageStarted { worker, .. } => {
                (node.state, node.worker, node.started) = (State::Unfinished, Some(*worker), Some(at));
            }
            Happened::Equal { .. } => node.state = State::Cached,
            Happened::Waited { since, reason, .. } => {
                node.waits.push(TimelineWait { since: *since, until: at, reason: *reason });
            }
            Happened::StageFinished { success, interrupted, error, written, log, .. } => {
                node.state = match (success, interrupted) {
                    (true, _) => State::Done,
                    (false, true) => State::Unfinished,
                    (false, false) => State::Failed,
                };
                (node.finished, node.bytes) = (Some(at), *written);
                (node.error, node.log) = (error.clone(), log.clone());
            }
            Happened::Fetched { bytes, .. } => {
                (node.state, node.finished, node.bytes) = (State::Done, Some(at), Some(*bytes));
            }
            Happened::FetchFailed { error, interrupted, .. } => {
                node.state = if *interrupted { State::Unfinished } else { State::Failed };
                (node.finished, node.error) = (Some(at), Some(error.clone()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_gets_what_the_events_say_of_it() {
        let node = |node, action| {
            Happened::Node(NodeLine {
                node,
                id: "1".to_owned(),
                osbuild_id: None,
                pipeline: Some("tree".to_owned()),
                module: "org.osbuild.mkdir".to_owned(),
                checksum: None,
                action,
            })
        };
        let finished = Happened::StageFinished {
            node: 1,
            success: false,
            interrupted: false,
            error: Some("it broke".to_owned()),
            duration: 9,
            written: Some(4096),
            log: Some("001.log".to_owned()),
        };
        let happened = [
            (0, node(0, Action::Cached)),
            (0, node(1, Action::Run)),
            (0, node(2, Action::Run)),
            (0, node(3, Action::Run)),
            (0, Happened::Cached { node: 0 }),
            (5, Happened::Waited { node: 1, since: 2, reason: Wait::Worker }),
            (5, Happened::StageStarted { node: 1, worker: 1 }),
            (6, Happened::StageStarted { node: 2, worker: 0 }),
            (14, finished),
            (15, Happened::StageStarted { node: 99, worker: 0 }),
        ];
        let lines: Vec<EventLine> = happened.into_iter().map(|(at, event)| EventLine { at, event }).collect();
        let timeline = BuildTimeline::new(&lines);
        let states: Vec<_> = timeline.nodes.values().map(|node| node.state).collect();
        assert_eq!(states, [State::Cached, State::Failed, State::Unfinished, State::NotStarted]);
        let failed = &timeline.nodes[&1];
        assert_eq!((failed.duration(), failed.worker, failed.waits.len()), (Some(9), Some(1), 1));
        assert_eq!((failed.error.as_deref(), failed.log.as_deref()), (Some("it broke"), Some("001.log")));
        assert_eq!((failed.name().as_str(), timeline.last), ("tree: org.osbuild.mkdir", 15));
    }
}
