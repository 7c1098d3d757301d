//! Turns a manifest into a graph, and computes every id once, in one pass.
//!
//! References only lead to earlier pipelines, so no id depends on a later one, and nodes are in order of dependencies.
//! Nothing is shared here: two stages with the same id are two nodes, as written. osbuild-compatible ids are computed
//! on a second thread; nothing waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::compat;
use crate::graph::{Edge, Graph, ItemNode, Node, NodeId, PipelineNodes, StageNode};
use crate::id::{CompatId, StageId};
use crate::identity::{self, Facts};
use crate::manifest::{Manifest, Pipeline, PipelineIndex};
use crate::stage::{Stage, Target};

/// The number of stages and items from which a second thread pays off.
const WORTH_A_THREAD: usize = 200;

impl Manifest {
    /// Computes all ids and returns the graph.
    ///
    /// It has a node for each written stage and each source item; items come first, and each kind is in the manifest's
    /// order. Edges lead from lower to higher indices. A build pipeline or an input's pipeline without stages has no
    /// tree, and so no edge.
    pub fn finalize(self) -> Graph {
        let stages: usize = self.pipelines.iter().map(|pipeline| pipeline.stages.len()).sum();
        let items: usize = self.sources.iter().map(|source| source.items.len()).sum();
        let mut builder = Builder {
            dag: DiGraph::with_capacity(stages + items, 2 * stages + items),
            items: HashMap::with_capacity(items),
            by_id: HashMap::with_capacity(stages + items),
            pipelines: Vec::with_capacity(self.pipelines.len()),
        };
        let (ids, compat_ids) = thread::scope(|scope| {
            let compat = || stage_ids(&self, stages, compat::stage_id);
            let worth = stages + items >= WORTH_A_THREAD;
            // Where no thread can be had, there is still this one.
            let helper = worth.then(|| thread::Builder::new().spawn_scoped(scope, compat).ok()).flatten();
            builder.add_items(&self);
            let ids = stage_ids(&self, stages, identity::stage_id);
            let compat_ids = helper.map_or_else(compat, |helper| helper.join().expect("computing ids does not panic"));
            (ids, compat_ids)
        });
        let mut ids = ids.into_iter().zip(compat_ids);
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            builder.add_pipeline(PipelineIndex(index), pipeline, &mut ids);
        }
        let Builder { dag, by_id, pipelines, .. } = builder;
        Graph { dag, by_id, pipelines, manifest: Arc::new(self) }
    }
}

/// Returns the ids of all stages in the manifest's order, as `id_of` computes them.
fn stage_ids<Id: Copy>(manifest: &Manifest, stages: usize, id_of: fn(&Facts<'_, Id>) -> Id) -> Vec<Id> {
    let mut ids = Vec::with_capacity(stages);
    let mut trees = Vec::with_capacity(manifest.pipelines.len());
    for pipeline in &manifest.pipelines {
        let mut base = None;
        for stage in &pipeline.stages {
            let id = id_of(&Facts { manifest, pipeline, stage, base, trees: &trees });
            ids.push(id);
            base = Some(id);
        }
        trees.push(base);
    }
    ids
}

/// A graph in the making.
struct Builder {
    dag: DiGraph<Node, Edge>,
    /// Items by checksum.
    items: HashMap<String, Vec<NodeIndex>>,
    by_id: HashMap<NodeId, NodeIndex>,
    pipelines: Vec<PipelineNodes>,
}

impl Builder {
    fn add_items(&mut self, manifest: &Manifest) {
        for (source_index, source) in manifest.sources.iter().enumerate() {
            for (position, item) in source.items.iter().enumerate() {
                let id = identity::item_id(&item.key);
                let node = self.dag.add_node(Node::Item(ItemNode { id, source: source_index, position }));
                self.by_id.entry(NodeId::Item(id)).or_insert(node);
                self.items.entry(item.key.checksum.clone()).or_default().push(node);
            }
        }
    }

    fn add_pipeline(
        &mut self,
        index: PipelineIndex,
        pipeline: &Pipeline,
        ids: &mut impl Iterator<Item = (StageId, CompatId)>,
    ) {
        let mut nodes = Vec::with_capacity(pipeline.stages.len());
        for ((position, stage), (id, compat)) in pipeline.stages.iter().enumerate().zip(ids) {
            let node = self.dag.add_node(Node::Stage(StageNode { id, compat, pipeline: index, position }));
            self.by_id.entry(NodeId::Stage(id)).or_insert(node);
            for (needed, edge) in self.needs(pipeline, stage, nodes.last().copied()) {
                self.dag.add_edge(needed, node, edge);
            }
            nodes.push(node);
        }
        self.pipelines.push(PipelineNodes { stages: nodes });
    }

    /// Returns the nodes that a stage depends on, each with the kinds of dependency.
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
