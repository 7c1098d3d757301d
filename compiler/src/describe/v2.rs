//! Describes in format 2: flat pipelines, references by id.

use std::borrow::Cow;
use std::collections::HashMap;

use osbc_ir::{Map, Number, PipelineIndex, Target, Value, stage};
use serde::{Serialize, Serializer};

use super::{Id, Named, View, set};

#[derive(Debug, Serialize)]
pub(super) struct Manifest<'a> {
    version: &'static str,
    pipelines: Vec<Pipeline<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Named<'a, Source<'a>>>,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    items: Named<'a, &'a Value>,
}

#[derive(Debug, Serialize)]
struct Pipeline<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runner: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<Stage<'a>>,
}

#[derive(Debug, Serialize)]
struct Stage<'a> {
    r#type: &'a str,
    id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Named<'a, Device<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<Named<'a, Input<'a>>>,
}

#[derive(Debug, Serialize)]
struct Device<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a Value>,
}

#[derive(Debug, Serialize)]
struct Mount<'a> {
    name: &'a str,
    r#type: &'a str,
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<&'a Number>,
}

#[derive(Debug, Serialize)]
struct Input<'a> {
    r#type: &'a str,
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    references: Option<References<'a>>,
}

/// References by what they lead to, each once.
#[derive(Debug)]
struct References<'a>(Vec<(Reference<'a>, &'a Value)>);

/// What an input refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reference<'a> {
    /// A pipeline; none without stages.
    Pipeline(Option<Id>),
    Item(&'a str),
}

impl Serialize for References<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(reference, options)| (reference, options)))
    }
}

impl Serialize for Reference<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reference::Pipeline(Some(id)) => id.serialize(serializer),
            // As a key, Python's `None` becomes text.
            Reference::Pipeline(None) => serializer.serialize_str("null"),
            Reference::Item(checksum) => serializer.serialize_str(checksum),
        }
    }
}

pub(super) fn describe<'a>(view: &View<'a>) -> Manifest<'a> {
    let manifest = &view.graph.manifest;
    let runners = runners(view);
    let pipelines = (0..manifest.pipelines.len()).map(|index| describe_pipeline(view, PipelineIndex(index), &runners));
    let sources = manifest.sources.iter().map(|source| {
        let items = source.items.iter().map(|item| (Cow::from(&item.key.checksum), &item.description));
        (Cow::from(&source.module.name), Source { items: Named(items.collect()) })
    });
    Manifest {
        version: "2",
        pipelines: pipelines.collect(),
        metadata: Some(&manifest.metadata).filter(|metadata| !metadata.is_empty()),
        sources: Named::unless_empty(sources),
    }
}

/// The runner's name by the id of a build pipeline. osbuild keeps runners by id, so of pipelines with the same
/// content the last one's counts for all.
fn runners<'a>(view: &View<'a>) -> HashMap<Id, &'a str> {
    let pipelines = &view.graph.manifest.pipelines;
    let id = |index| view.pipeline_id(PipelineIndex(index));
    let all = pipelines.iter().enumerate();
    let all: HashMap<Id, &str> =
        all.filter_map(|(index, pipeline)| Some((id(index)?, pipeline.runner.name.as_str()))).collect();
    let builds = pipelines.iter().filter_map(|pipeline| id(pipeline.build?.0));
    builds.filter_map(|build| Some((build, *all.get(&build)?))).collect()
}

fn describe_pipeline<'a>(view: &View<'a>, index: PipelineIndex, runners: &HashMap<Id, &'a str>) -> Pipeline<'a> {
    let pipeline = view.graph.manifest.pipeline(index);
    let nodes = &view.graph.pipelines[index.0].stages;
    let stages = pipeline.stages.iter().zip(nodes).map(|(stage, node)| describe_stage(view, stage, view.id(*node)));
    Pipeline {
        name: &pipeline.name,
        build: pipeline.build.and_then(|build| view.pipeline_id(build)),
        runner: view.pipeline_id(index).and_then(|id| runners.get(&id)).copied(),
        stages: stages.collect(),
    }
}

fn describe_stage<'a>(view: &View<'a>, stage: &'a stage::Stage, id: Option<Id>) -> Stage<'a> {
    let devices = stage.devices.iter().map(|device| {
        let described = Device { r#type: &device.module.name, options: set(&device.options) };
        (Cow::from(&device.name), described)
    });
    let mounts = stage.mounts.iter().map(|mount| Mount {
        name: &mount.name,
        r#type: &mount.module.name,
        target: mount.target.as_deref(),
        source: mount.source.map(|source| stage.devices[source].name.as_str()),
        options: set(&mount.options),
        partition: mount.partition.as_ref(),
    });
    let inputs = stage.inputs.iter().map(|input| (Cow::from(&input.name), describe_input(view, input)));
    Stage {
        r#type: &stage.module.name,
        id,
        options: set(&stage.options),
        devices: Named::unless_empty(devices),
        mounts: mounts.collect(),
        inputs: Named::unless_empty(inputs),
    }
}

fn describe_input<'a>(view: &View<'a>, input: &'a stage::Input) -> Input<'a> {
    let mut references: Vec<(Reference<'a>, &'a Value)> = Vec::with_capacity(input.references.entries.len());
    let mut pipelines: HashMap<Option<Id>, usize> = HashMap::new();
    for reference in &input.references.entries {
        match &reference.target {
            Target::Item(checksum) => references.push((Reference::Item(checksum), &reference.options)),
            // Of two pipelines with the same content the one named last counts, as in osbuild.
            Target::Pipeline(index) => {
                let id = view.pipeline_id(*index);
                let position = *pipelines.entry(id).or_insert(references.len());
                match references.get_mut(position) {
                    Some((_, options)) => *options = &reference.options,
                    None => references.push((Reference::Pipeline(id), &reference.options)),
                }
            }
        }
    }
    Input {
        r#type: &input.module.name,
        origin: input.origin.as_str(),
        options: set(&input.options),
        references: (!references.is_empty()).then_some(References(references)),
    }
}
