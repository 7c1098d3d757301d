//! The critical path: the chain of stages and items that ends with the node that finished last, where each could only
//! start after the one before.
//!
//! A faster build must shorten it.

use osbc_engine::timeline::{BuildTimeline, TimelineNode};
use osbc_ir::Graph;
use osbc_ir::graph::NodeIndex;

/// A step of it; moments and spans in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) node: usize,
    /// How long it took.
    pub(super) took: u64,
    /// How long after the end of the step before it began.
    pub(super) waited: u64,
}

impl Step {
    pub(super) fn total(&self) -> u64 {
        self.took.saturating_add(self.waited)
    }
}

/// The path, first to last; empty where nothing ran.
pub(super) fn critical(past: &BuildTimeline, graph: &Graph) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut next = past.nodes.values().filter(|node| node.finished.is_some()).max_by_key(|node| node.finished);
    while let Some(node) = next {
        let (Some(started), Some(took)) = (node.started, node.duration()) else { break };
        let before = before(past, graph, node, started);
        let ready = before.and_then(|before| before.finished).unwrap_or(started);
        steps.push(Step { node: node.about.node, took, waited: started.saturating_sub(ready) });
        next = before;
    }
    steps.reverse();
    steps
}

/// Of what a node needs, that which was done last.
fn before<'a>(past: &'a BuildTimeline, graph: &Graph, node: &TimelineNode, started: u64) -> Option<&'a TimelineNode> {
    let index = NodeIndex::new(node.about.node);
    graph.dag.node_weight(index)?;
    let needs = graph.needs(index).filter_map(|(need, _)| past.nodes.get(&need.index()));
    // What was there already has no end; an end after the start would be no cause of it.
    needs.filter(|need| need.finished.is_some_and(|end| end <= started)).max_by_key(|need| need.finished)
}
