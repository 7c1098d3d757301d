//! The plan: every node of a graph with an action and a reason, and the order in which stages run.

use std::collections::HashSet;
use std::sync::Arc;

use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use crate::graph::{Edge, Graph, NodeId};
use crate::id::StageId;
use crate::manifest::PipelineIndex;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A stage runs.
    Run,
    /// A source item is fetched.
    Fetch,
    /// The result in the store is used.
    Cached,
    /// Nothing happens to it.
    Unneeded,
}

/// Why a node has its action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Run: the export or checkpoint of this name ends here.
    Exported {
        /// The pipeline as the user named it.
        name: String,
    },
    /// Run or fetch: a stage that runs needs it.
    NeededBy {
        /// The first stage that needs it.
        id: StageId,
        /// As what.
        edge: Edge,
    },
    /// Fetch: all source items are requested.
    AllSources,
    /// Cached: the store has it, and an export or a stage that runs uses it.
    InStore,
    /// Cached: the store has the result of the same stage on trees of equal content, under another id.
    EqualContent,
    /// Unneeded: only nodes before a cached result would need it.
    CoveredByCache,
    /// Unneeded: no export needs it.
    NotRequested,
}

/// What a plan says about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// The nodes of a graph that the store has. Fixed before planning, so that planning and running cannot disagree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachedSet(HashSet<NodeId>);

impl CachedSet {
    /// Whether the store has the result of a stage, or an item.
    pub fn contains(&self, id: &NodeId) -> bool {
        self.0.contains(id)
    }
}

impl Extend<NodeId> for CachedSet {
    fn extend<T: IntoIterator<Item = NodeId>>(&mut self, ids: T) {
        self.0.extend(ids);
    }
}

impl FromIterator<NodeId> for CachedSet {
    fn from_iter<T: IntoIterator<Item = NodeId>>(ids: T) -> Self {
        Self(ids.into_iter().collect())
    }
}

/// A requested result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// As the user named it: a pipeline's name or an id.
    pub name: String,
    /// The pipeline.
    pub pipeline: PipelineIndex,
    /// Its last stage's node; `None` for a pipeline without stages, whose tree is empty.
    #[serde(skip)]
    pub node: Option<NodeIndex>,
}

/// Consecutive stages of one pipeline that change one tree, from a committed base to the next commit.
///
/// The unit of scheduling: segments run in parallel, the stages of one segment do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The stages to run, in order; at least one. Only the last one's result is committed.
    pub steps: Vec<NodeIndex>,
    /// The committed node that the first step continues; `None` for an empty tree.
    pub base: Option<NodeIndex>,
    /// The segments that must be done before this one starts (indices into [`Plan::segments`], ascending, all smaller
    /// than its own).
    pub after: Vec<usize>,
    /// The items that must be fetched before this one starts (nodes with action `Fetch`, ascending).
    pub fetches: Vec<NodeIndex>,
    /// The longest remaining path from the start of this segment to the end of the build, in milliseconds by
    /// recorded durations where known: higher runs first.
    pub rank: u64,
}

/// A complete plan of a build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The graph that all indices point into.
    pub graph: Arc<Graph>,
    /// The requested results, in the order of the request.
    pub exports: Vec<Export>,
    /// For every node of the graph, by its index.
    pub decisions: Vec<Decision>,
    /// What to fetch: every node with action `Fetch`, the most urgent first.
    pub fetches: Vec<NodeIndex>,
    /// What to run; dependencies come before their dependents.
    pub segments: Vec<Segment>,
}

impl Plan {
    /// The decision on a node.
    pub fn decision(&self, node: NodeIndex) -> &Decision {
        &self.decisions[node.index()]
    }

    /// Whether there is nothing to fetch and nothing to run.
    pub fn is_empty(&self) -> bool {
        self.fetches.is_empty() && self.segments.is_empty()
    }
}
