//! Sealing: a manifest becomes a graph, every id computed once, in one pass over what was written.
//!
//! References only reach back, so an id never waits for one that comes later, and the order of nodes is an order of
//! dependencies. Sealing knows nothing of sharing: two stages with the same id are two nodes here, as written.

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::graph::{Edge, Graph, ItemNode, Node, NodeId, PipelineNodes, StageNode};
use crate::id::{CompatId, StageId};
use crate::identity::{self, Facts};
use crate::manifest::{Manifest, PipelineIndex};
use crate::stage::{Stage, Target};
use crate::{Pipeline, compat};

impl Manifest {
    /// Gives every stage and source item its ids and ties them together.
    ///
    /// One node per written stage and per source item, items first, each kind in the manifest's order; an edge runs
    /// from a node with a lower index to one with a higher. A build pipeline or an input's pipeline without stages has
    /// no tree and gives no edge.
    pub fn seal(self) -> Graph {
        let stages: usize = self.pipelines.iter().map(|pipeline| pipeline.stages.len()).sum();
        let items: usize = self.sources.iter().map(|source| source.items.len()).sum();
        let mut sealing = Sealing {
            dag: DiGraph::with_capacity(stages + items, 2 * stages + items),
            items: HashMap::with_capacity(items),
            by_id: HashMap::with_capacity(stages + items),
            pipelines: Vec::with_capacity(self.pipelines.len()),
            trees: Vec::with_capacity(self.pipelines.len()),
            compat_trees: Vec::with_capacity(self.pipelines.len()),
        };
        sealing.add_items(&self);
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            sealing.add_pipeline(&self, PipelineIndex(index), pipeline);
        }
        let Sealing { dag, by_id, pipelines, .. } = sealing;
        Graph { dag, by_id, pipelines, manifest: Arc::new(self) }
    }
}

/// What has been sealed so far.
struct Sealing {
    dag: DiGraph<Node, Edge>,
    /// Items by checksum.
    items: HashMap<String, Vec<NodeIndex>>,
    by_id: HashMap<NodeId, NodeIndex>,
    pipelines: Vec<PipelineNodes>,
    trees: Vec<Option<StageId>>,
    compat_trees: Vec<Option<CompatId>>,
}

impl Sealing {
    fn add_items(&mut self, manifest: &Manifest) {
        for (source_index, source) in manifest.sources.iter().enumerate() {
            for (position, item) in source.items.iter().enumerate() {
                let id = identity::item_id(&source.content_type, &item.checksum);
                let node = self.dag.add_node(Node::Item(ItemNode { id, source: source_index, position }));
                self.by_id.entry(NodeId::Item(id)).or_insert(node);
                self.items.entry(item.checksum.clone()).or_default().push(node);
            }
        }
    }

    fn add_pipeline(&mut self, manifest: &Manifest, index: PipelineIndex, pipeline: &Pipeline) {
        let mut nodes = Vec::with_capacity(pipeline.stages.len());
        let mut base: Option<(StageId, CompatId)> = None;
        for (position, stage) in pipeline.stages.iter().enumerate() {
            let id = identity::stage_id(&Facts {
                manifest,
                pipeline,
                stage,
                base: base.map(|(id, _)| id),
                trees: &self.trees,
            });
            let compat = compat::stage_id(&Facts {
                manifest,
                pipeline,
                stage,
                base: base.map(|(_, compat)| compat),
                trees: &self.compat_trees,
            });
            let node = self.dag.add_node(Node::Stage(StageNode { id, compat, pipeline: index, position }));
            self.by_id.entry(NodeId::Stage(id)).or_insert(node);
            for (needed, edge) in self.needs(pipeline, stage, nodes.last().copied()) {
                self.dag.add_edge(needed, node, edge);
            }
            nodes.push(node);
            base = Some((id, compat));
        }
        self.trees.push(base.map(|(id, _)| id));
        self.compat_trees.push(base.map(|(_, compat)| compat));
        self.pipelines.push(PipelineNodes { stages: nodes });
    }

    /// What a stage needs, each thing once per way of needing it.
    fn needs(&self, pipeline: &Pipeline, stage: &Stage, base: Option<NodeIndex>) -> Vec<(NodeIndex, Edge)> {
        let mut needs = Vec::new();
        needs.extend(base.map(|node| (node, Edge::Base)));
        needs.extend(pipeline.build.and_then(|build| self.tree(build)).map(|node| (node, Edge::Build)));
        for reference in stage.inputs.iter().flat_map(|input| &input.references.entries) {
            match &reference.target {
                Target::Pipeline(index) => needs.extend(self.tree(*index).map(|node| (node, Edge::Input))),
                Target::Item(checksum) => {
                    let items = self.items.get(checksum).into_iter().flatten();
                    needs.extend(items.map(|node| (*node, Edge::Fetch)));
                }
            }
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    fn tree(&self, pipeline: PipelineIndex) -> Option<NodeIndex> {
        self.pipelines[pipeline.0].last()
    }
}
