//! Graphs for tests, drawn as text: a line a pipeline, `name(build): stage stage@ stage<input,#item`.
//!
//! A stage with `@` works through a device; what follows `<` are pipelines or, with `#`, source items. Stages with the
//! same text are the same stage.

use std::sync::Arc;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{
    CachedSet, Device, Export, FormatVersion, Graph, Input, InputOrigin, ItemKey, Kind, Manifest, ModuleRef, Node,
    NodeId, Pipeline, PipelineIndex, Plan, Reference, References, Revision, Runner, Source, SourceItem, Stage, Target,
};
use serde_json::json;

use super::{Request, Retention, plan, share};

pub(crate) struct Sketch {
    pub(crate) graph: Arc<Graph>,
}

impl Sketch {
    /// Every written stage a node of its own.
    pub(crate) fn as_written(text: &str) -> Self {
        Self { graph: Arc::new(manifest(text).finalize()) }
    }

    /// Equal stages one node.
    pub(crate) fn shared(text: &str) -> Self {
        Self { graph: Arc::new(share(manifest(text).finalize())) }
    }

    /// `pipeline/stage` as written first, or `#item`.
    pub(crate) fn label(&self, node: NodeIndex) -> String {
        match &self.graph.dag[node] {
            Node::Stage(stage) => {
                let (pipeline, stage) = self.graph.stage(stage);
                format!("{}/{}", pipeline.name, short(&stage.module.name))
            }
            Node::Item(item) => self.graph.item(item).1.key.checksum.clone(),
        }
    }

    pub(crate) fn labels(&self, nodes: impl IntoIterator<Item = NodeIndex>) -> Vec<String> {
        nodes.into_iter().map(|node| self.label(node)).collect()
    }

    pub(crate) fn node(&self, label: &str) -> NodeIndex {
        let mut nodes = self.graph.dag.node_indices();
        nodes.find(|node| self.label(*node) == label).unwrap_or_else(|| panic!("no node `{label}`"))
    }

    pub(crate) fn id(&self, label: &str) -> NodeId {
        self.graph.id(self.node(label))
    }

    pub(crate) fn have(&self, labels: &[&str]) -> CachedSet {
        labels.iter().map(|label| self.id(label)).collect()
    }

    pub(crate) fn exports(&self, names: &[&str]) -> Vec<Export> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        super::resolve_exports(&self.graph, &names).expect("pipelines of the sketch")
    }

    pub(crate) fn plan(&self, exports: &[&str], have: &[&str]) -> Plan {
        self.plan_keeping(exports, have, Retention::Every)
    }

    pub(crate) fn plan_keeping(&self, exports: &[&str], have: &[&str], retention: Retention) -> Plan {
        plan(self.graph.clone(), Request::Exports(self.exports(exports)), &self.have(have), retention, &|_, _| None)
    }
}

fn short(name: &str) -> &str {
    name.trim_start_matches("org.osbuild.")
}

pub(crate) fn manifest(text: &str) -> Manifest {
    let mut items: Vec<SourceItem> = Vec::new();
    let mut pipelines: Vec<Pipeline> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, stages) = line.split_once(':').expect("a colon after the pipeline's name");
        let (name, build) = match head.split_once('(') {
            Some((name, build)) => (name, Some(find(&pipelines, build.trim_end_matches(')')))),
            None => (head, None),
        };
        let stages = stages.split_whitespace().map(|text| stage(text, &pipelines, &mut items)).collect();
        let runner = Runner { name: "org.osbuild.linux".into(), exec: "org.osbuild.linux".into() };
        pipelines.push(Pipeline { name: name.into(), build, empty_build: false, runner, source_epoch: None, stages });
    }
    let curl = Source { module: module(Kind::Source, "curl"), items, options: json!({}) };
    Manifest { version: FormatVersion::V2, metadata: Default::default(), sources: vec![curl], pipelines }
}

fn stage(text: &str, pipelines: &[Pipeline], items: &mut Vec<SourceItem>) -> Stage {
    let (text, inputs) = text.split_once('<').unwrap_or((text, ""));
    let name = text.trim_end_matches('@');
    let disk =
        Device { name: "disk".into(), module: module(Kind::Device, "loopback"), parent: None, options: json!({}) };
    let inputs = inputs.split(',').filter(|target| !target.is_empty()).map(|target| {
        let (origin, to) = if target.starts_with('#') {
            if items.iter().all(|item| item.key.checksum != target) {
                items.push(SourceItem {
                    key: ItemKey::new("org.osbuild.files", target),
                    description: json!({}),
                    size: Some(10),
                });
            }
            (InputOrigin::Source, Target::Item(target.into()))
        } else {
            (InputOrigin::Pipeline, Target::Pipeline(find(pipelines, target)))
        };
        Input {
            name: target.into(),
            module: module(Kind::Input, "tree"),
            origin,
            references: References { ordered: true, entries: vec![Reference { target: to, options: json!({}) }] },
            options: json!({}),
        }
    });
    Stage {
        module: module(Kind::Stage, name),
        options: json!({}),
        inputs: inputs.collect(),
        host: vec![],
        writes_id: false,
        devices: if text.ends_with('@') { vec![disk] } else { vec![] },
        mounts: vec![],
    }
}

fn module(kind: Kind, name: &str) -> ModuleRef {
    ModuleRef { kind, name: format!("org.osbuild.{name}"), revision: Revision::BuiltIn(1) }
}

fn find(pipelines: &[Pipeline], name: &str) -> PipelineIndex {
    let found = pipelines.iter().position(|pipeline| pipeline.name == name);
    PipelineIndex(found.unwrap_or_else(|| panic!("no earlier pipeline `{name}`")))
}
