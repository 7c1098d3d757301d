//! Graphs and plans for the tests of the crates that use a store, without the compiler and the built-in modules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{
    Action, CachedSet, Decision, Edge, Export, FormatVersion, Graph, Input, InputOrigin, ItemKey, Kind, Manifest, Map,
    ModuleRef, NodeId, Pipeline, PipelineIndex, Plan, Reason, Reference, References, Revision, Runner, Segment, Source,
    SourceItem, Stage, StageId, Target, Value,
};
use serde_json::json;
use tempfile::TempDir;

use crate::lease::Lease;
use crate::store::Store;
use crate::transaction::Transaction;

/// A manifest in the making. Every stage has a label, which is its only option.
pub struct Sketch {
    manifest: Manifest,
    /// The labels of stages that go on in the segment of the stage before them.
    open: BTreeSet<String>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// Returns an empty manifest with a source.
    pub fn new() -> Self {
        let manifest = Manifest {
            version: FormatVersion::V2,
            metadata: Map::new(),
            sources: vec![Source {
                module: module(Kind::Source, "test.source"),
                items: Vec::new(),
                options: json!({}),
            }],
            pipelines: Vec::new(),
        };
        Self { manifest, open: BTreeSet::new() }
    }

    /// A manifest of one pipeline, `main`, with these stages.
    pub fn chain(labels: &[&str]) -> Self {
        labels.iter().fold(Self::new().pipeline("main", None), |sketch, label| sketch.stage(label, &[]))
    }

    /// Adds a source item that the test source fetches as `description` says.
    pub fn item(mut self, checksum: &str, description: Value) -> Self {
        self.manifest.sources[0].items.push(SourceItem {
            key: ItemKey::new("test.files", checksum),
            description,
            size: None,
        });
        self
    }

    /// Begins a pipeline.
    pub fn pipeline(mut self, name: &str, build: Option<&str>) -> Self {
        let build = build.map(|name| self.index(name));
        let runner = runner();
        let pipeline = Pipeline {
            name: name.to_owned(),
            build,
            empty_build: false,
            runner,
            source_epoch: None,
            stages: Vec::new(),
        };
        self.manifest.pipelines.push(pipeline);
        self
    }

    /// Has the last pipeline's tree, as a build tree, prepared by another runner than the usual one.
    pub fn runner(mut self, name: &str) -> Self {
        self.last().runner = Runner { name: name.to_owned(), exec: name.to_owned() };
        self
    }

    /// Returns the last pipeline an epoch.
    pub fn epoch(mut self, epoch: i64) -> Self {
        self.last().source_epoch = Some(epoch);
        self
    }

    /// Adds a stage to the last pipeline, with an input for each of `needs`: `#checksum` or a pipeline's name.
    pub fn stage(mut self, label: &str, needs: &[&str]) -> Self {
        let inputs = needs.iter().map(|need| {
            let (origin, target) = match need.strip_prefix('#') {
                Some(checksum) => (InputOrigin::Source, Target::Item(checksum.to_owned())),
                None => (InputOrigin::Pipeline, Target::Pipeline(self.index(need))),
            };
            Input {
                name: (*need).to_owned(),
                module: module(Kind::Input, "test.input"),
                origin,
                references: References { ordered: true, entries: vec![Reference { target, options: json!({}) }] },
                options: json!({}),
            }
        });
        let stage = Stage {
            module: module(Kind::Stage, "test.stage"),
            options: json!({ "label": label }),
            inputs: inputs.collect(),
            devices: Vec::new(),
            mounts: Vec::new(),
            host: Vec::new(),
            writes_id: false,
        };
        self.last().stages.push(stage);
        self
    }

    /// Adds a stage that goes on in the segment of the one before it.
    pub fn same_segment(mut self, label: &str) -> Self {
        self.open.insert(label.to_owned());
        self.stage(label, &[])
    }

    /// Commits the manifest.
    pub fn finalize(self) -> FinalizedSketch {
        FinalizedSketch { graph: Arc::new(self.manifest.finalize()), open: self.open }
    }

    fn index(&self, name: &str) -> PipelineIndex {
        let found = self.manifest.pipelines.iter().position(|pipeline| pipeline.name == name);
        PipelineIndex(found.expect("references reach back"))
    }

    fn last(&mut self) -> &mut Pipeline {
        self.manifest.pipelines.last_mut().expect("there is a pipeline")
    }
}

/// A finalized manifest.
pub struct FinalizedSketch {
    /// Its graph.
    pub graph: Arc<Graph>,
    open: BTreeSet<String>,
}

impl FinalizedSketch {
    /// The ids of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.graph.dag.node_weights().map(osbc_ir::Node::id)
    }

    /// The label of a stage, or `#checksum`.
    pub fn label(&self, node: NodeIndex) -> String {
        match self.graph.stage_node(node) {
            Some(stage) => self.graph.stage(stage).1.options["label"].as_str().expect("a label").to_owned(),
            None => format!("#{}", self.graph.item(self.graph.item_node(node).expect("an item")).1.key.checksum),
        }
    }

    /// The node of a label.
    pub fn node(&self, label: &str) -> NodeIndex {
        self.graph.dag.node_indices().find(|node| self.label(*node) == label).expect("a label of the sketch")
    }

    /// The id of the stage of a label.
    pub fn id(&self, label: &str) -> StageId {
        self.graph.stage_node(self.node(label)).expect("a stage").id
    }

    /// A transaction with a lease on all of it.
    pub fn begin(&self, store: &Store) -> Transaction {
        Transaction::begin(self.lease(store)).expect("begins")
    }

    /// A lease on all of it.
    pub fn lease(&self, store: &Store) -> Lease {
        store.lease(&self.graph, self.ids()).expect("a lease")
    }

    /// A plan to build all pipelines: what `have` has is cached, every other stage a segment, unless it was to go on in
    /// that of the stage before it.
    pub fn plan(&self, have: &CachedSet) -> Plan {
        let graph = &self.graph;
        let reason = Reason::InStore;
        let decide = |node: NodeIndex| match (have.contains(&graph.id(node)), graph.stage_node(node).is_some()) {
            (true, _) => Action::Cached,
            (false, true) => Action::Run,
            (false, false) => Action::Fetch,
        };
        let actions: Vec<Action> = graph.dag.node_indices().map(decide).collect();
        let mut segments: Vec<Segment> = Vec::new();
        let mut sealed_by = BTreeMap::new();
        for node in graph.dag.node_indices().filter(|node| actions[node.index()] == Action::Run) {
            let mut segment = match (self.open.contains(&self.label(node)), graph.base(node)) {
                (true, Some(base)) => {
                    assert_eq!(sealed_by.remove(&base), Some(segments.len() - 1), "it follows the stage before it");
                    segments.pop().expect("the stage before it runs")
                }
                (_, base) => Segment { steps: Vec::new(), base, after: Vec::new(), fetches: Vec::new(), rank: 0 },
            };
            segment.steps.push(node);
            for (need, edge) in graph.needs(node) {
                if edge == Edge::Fetch && actions[need.index()] == Action::Fetch {
                    segment.fetches.push(need);
                } else if let Some(index) = sealed_by.get(&need) {
                    segment.after.push(*index);
                }
            }
            sealed_by.insert(node, segments.len());
            segments.push(segment);
        }
        Plan {
            graph: Arc::clone(graph),
            exports: self.exports(),
            fetches: graph.dag.node_indices().filter(|node| actions[node.index()] == Action::Fetch).collect(),
            decisions: actions.into_iter().map(|action| Decision { action, reason: reason.clone() }).collect(),
            segments,
        }
    }

    fn exports(&self) -> Vec<Export> {
        let pipelines = self.graph.manifest.pipelines.iter().zip(&self.graph.pipelines).enumerate();
        pipelines
            .map(|(index, (pipeline, nodes))| Export {
                name: pipeline.name.clone(),
                pipeline: PipelineIndex(index),
                node: nodes.last(),
            })
            .collect()
    }
}

fn module(kind: Kind, name: &str) -> ModuleRef {
    ModuleRef { kind, name: name.to_owned(), revision: Revision::BuiltIn(1) }
}

/// The usual runner.
pub fn runner() -> Runner {
    Runner { name: "test.runner".to_owned(), exec: "test.runner".to_owned() }
}

/// An empty directory on a real file system, which the one for temporary files need not be.
pub fn directory() -> TempDir {
    let program = std::env::current_exe().expect("the test's program");
    tempfile::tempdir_in(program.parent().expect("it lies in a directory")).expect("a temporary directory")
}
