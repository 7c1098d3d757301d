//! The build graph: every stage and source item is a node with its content id; edges are dependencies.
//!
//! [`Manifest`] → [`Manifest::finalize`] → [`Graph`]. A node never changes; passes of the compiler read a graph and say
//! things *about* its nodes, because a plan has a word to say on every one of them.

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::DiGraph;
pub use petgraph::graph::NodeIndex;
use petgraph::visit::{EdgeRef, IntoNodeReferences};
use serde::{Deserialize, Serialize};

use crate::id::{CompatId, ItemId, StageId};
use crate::manifest::{Manifest, Pipeline, PipelineIndex, Source, SourceItem};
use crate::stage::Stage;

/// Why one node needs another. Edges point from what is needed to what needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// The stage continues the tree of the one before it.
    Base,
    /// The stage runs inside that tree.
    Build,
    /// The stage reads that tree.
    Input,
    /// The stage reads that source item.
    Fetch,
}

/// The id of either kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// A stage's.
    Stage(StageId),
    /// A source item's.
    Item(ItemId),
}

/// A node of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// A stage, and the tree after it.
    Stage(StageNode),
    /// Something to fetch.
    Item(ItemNode),
}

impl Node {
    /// Its id.
    pub fn id(&self) -> NodeId {
        match self {
            Node::Stage(stage) => NodeId::Stage(stage.id),
            Node::Item(item) => NodeId::Item(item.id),
        }
    }
}

/// A stage in the graph. What it says is in the manifest, at the place where it was written first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageNode {
    /// What sharing and caching go by.
    pub id: StageId,
    /// osbuild's id of the same stage.
    pub compat: CompatId,
    /// The pipeline that it stands in; the first of those that share it.
    pub pipeline: PipelineIndex,
    /// Its position in that pipeline.
    pub position: usize,
}

/// A source item in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemNode {
    /// What caching goes by.
    pub id: ItemId,
    /// Its source: an index into [`Manifest::sources`].
    pub source: usize,
    /// Its position in [`Source::items`].
    pub position: usize,
}

/// The nodes of a pipeline, in order. Two pipelines may name the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineNodes {
    /// The stages' nodes, first to last.
    pub stages: Vec<NodeIndex>,
}

impl PipelineNodes {
    /// The node that the pipeline's name points at: its last stage; `None` for a pipeline without stages.
    pub fn last(&self) -> Option<NodeIndex> {
        self.stages.last().copied()
    }
}

/// The build graph of a manifest. When it is serialized and read back it keeps its ids; they are not computed again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Graph {
    /// The manifest that the nodes point into.
    pub manifest: Arc<Manifest>,
    /// Nodes and edges; edges point from what is needed to what needs it.
    pub dag: DiGraph<Node, Edge>,
    /// The nodes by id; where ids are equal, the first written.
    #[serde(skip)]
    pub by_id: HashMap<NodeId, NodeIndex>,
    /// For every pipeline of the manifest, in its order, its nodes.
    pub pipelines: Vec<PipelineNodes>,
}

/// A serialized graph.
#[derive(Deserialize)]
struct Written {
    manifest: Arc<Manifest>,
    dag: DiGraph<Node, Edge>,
    pipelines: Vec<PipelineNodes>,
}

/// Why a serialized graph is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no graph of stages: {0}")]
struct NoGraph(&'static str);

impl Written {
    /// Checks that every index is valid and every edge leads forward.
    fn check(&self) -> Result<(), NoGraph> {
        let all = |holds: bool, what| holds.then_some(()).ok_or(NoGraph(what));
        let Manifest { pipelines, sources, .. } = &*self.manifest;
        let back = |from: usize, to: PipelineIndex| to.0 < from;
        for (index, pipeline) in pipelines.iter().enumerate() {
            all(pipeline.build.is_none_or(|build| back(index, build)), "a build pipeline does not come earlier")?;
            for stage in &pipeline.stages {
                all(stage.pipelines().all(|target| back(index, target)), "an input's pipeline does not come earlier")?;
                all(stage.has_its_devices(), "a device is not there")?;
            }
        }
        let forward = self.dag.edge_references().all(|edge| edge.source() < edge.target());
        all(forward, "an edge does not lead forward")?;
        let is_stage = |node: &NodeIndex| matches!(self.dag.node_weight(*node), Some(Node::Stage(_)));
        all(self.pipelines.len() == pipelines.len(), "its pipelines are not the manifest's")?;
        for (nodes, pipeline) in self.pipelines.iter().zip(pipelines) {
            all(nodes.stages.len() == pipeline.stages.len(), "a pipeline has other stages than the manifest's")?;
            all(nodes.stages.iter().all(is_stage), "a pipeline's node is no stage")?;
        }
        for (index, node) in self.dag.node_references() {
            let there = match node {
                Node::Stage(StageNode { pipeline, position, .. }) => {
                    let stages = self.pipelines.get(pipeline.0).map(|nodes| &nodes.stages);
                    stages.and_then(|stages| stages.get(*position)) == Some(&index)
                }
                Node::Item(ItemNode { source, position, .. }) => {
                    sources.get(*source).is_some_and(|source| *position < source.items.len())
                }
            };
            all(there, "a node stands for nothing of the manifest")?;
        }
        Ok(())
    }
}

impl TryFrom<Written> for Graph {
    type Error = NoGraph;

    fn try_from(written: Written) -> Result<Self, NoGraph> {
        written.check()?;
        let Written { manifest, dag, pipelines } = written;
        let mut by_id = HashMap::with_capacity(dag.node_count());
        for node in dag.node_indices() {
            by_id.entry(dag[node].id()).or_insert(node);
        }
        Ok(Self { manifest, dag, by_id, pipelines })
    }
}

impl Graph {
    /// The id of the node at `index`.
    pub fn id(&self, index: NodeIndex) -> NodeId {
        self.dag[index].id()
    }

    /// What the node at `index` needs, and as what.
    pub fn needs(&self, index: NodeIndex) -> impl Iterator<Item = (NodeIndex, Edge)> {
        self.dag.edges_directed(index, Direction::Incoming).map(|edge| (edge.source(), *edge.weight()))
    }

    /// What needs the node at `index`, and as what.
    pub fn users(&self, index: NodeIndex) -> impl Iterator<Item = (NodeIndex, Edge)> {
        self.dag.edges_directed(index, Direction::Outgoing).map(|edge| (edge.target(), *edge.weight()))
    }

    /// The node that the stage at `index` continues.
    pub fn base(&self, index: NodeIndex) -> Option<NodeIndex> {
        self.needs(index).find_map(|(node, edge)| (edge == Edge::Base).then_some(node))
    }

    /// The node whose tree the stage at `index` runs in; the host's tree when none.
    pub fn build(&self, index: NodeIndex) -> Option<NodeIndex> {
        self.needs(index).find_map(|(node, edge)| (edge == Edge::Build).then_some(node))
    }

    /// Returns the stage node at `index`; `None` if it is a source item.
    pub fn stage_node(&self, index: NodeIndex) -> Option<&StageNode> {
        match &self.dag[index] {
            Node::Stage(stage) => Some(stage),
            Node::Item(_) => None,
        }
    }

    /// Returns the item node at `index`; `None` if it is a stage.
    pub fn item_node(&self, index: NodeIndex) -> Option<&ItemNode> {
        match &self.dag[index] {
            Node::Stage(_) => None,
            Node::Item(item) => Some(item),
        }
    }

    /// The stage that a stage node stands for, and the pipeline that it was written in.
    pub fn stage(&self, node: &StageNode) -> (&Pipeline, &Stage) {
        let pipeline = self.manifest.pipeline(node.pipeline);
        (pipeline, &pipeline.stages[node.position])
    }

    /// The source item that an item node stands for, and its source.
    pub fn item(&self, node: &ItemNode) -> (&Source, &SourceItem) {
        let source = &self.manifest.sources[node.source];
        (source, &source.items[node.position])
    }
}
