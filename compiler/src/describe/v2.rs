//! Describes in format 2: flat pipelines, references by id.

use std::collections::HashMap;

use osbc_ir::{Device, Input, Map, Mount, PipelineIndex, Stage, Target, Value};
use serde_json::json;

use super::{View, is_set};

pub(super) fn describe(view: &View<'_>) -> Value {
    let manifest = &view.graph.manifest;
    let runners = runners(view);
    let pipelines = (0..manifest.pipelines.len()).map(|index| describe_pipeline(view, PipelineIndex(index), &runners));
    let mut description = Map::new();
    description.insert("version".into(), json!("2"));
    description.insert("pipelines".into(), pipelines.collect());
    if !manifest.metadata.is_empty() {
        description.insert("metadata".into(), Value::Object(manifest.metadata.clone()));
    }
    if !manifest.sources.is_empty() {
        let sources = manifest.sources.iter().map(|source| {
            let items = source.items.iter().map(|item| (item.checksum.clone(), item.description.clone()));
            (source.module.name.clone(), json!({ "items": items.collect::<Map<_, _>>() }))
        });
        description.insert("sources".into(), Value::Object(sources.collect()));
    }
    Value::Object(description)
}

/// The runner's name by the id of a build pipeline. osbuild keeps runners by id, so of pipelines with the same
/// content the last one's counts for all.
fn runners<'a>(view: &View<'a>) -> HashMap<String, &'a str> {
    let manifest = &view.graph.manifest;
    let id = |index| view.pipeline_id(PipelineIndex(index)).as_str().map(str::to_owned);
    let mut all: HashMap<String, &str> = HashMap::new();
    for (index, pipeline) in manifest.pipelines.iter().enumerate() {
        all.extend(id(index).map(|id| (id, pipeline.runner.name.as_str())));
    }
    let builds = manifest.pipelines.iter().filter_map(|pipeline| id(pipeline.build?.0));
    builds.filter_map(|build| all.get(&build).copied().map(|runner| (build, runner))).collect()
}

fn describe_pipeline(view: &View<'_>, index: PipelineIndex, runners: &HashMap<String, &str>) -> Value {
    let pipeline = view.graph.manifest.pipeline(index);
    let mut description = Map::new();
    description.insert("name".into(), json!(pipeline.name));
    if let Some(build) = pipeline.build {
        description.insert("build".into(), view.pipeline_id(build));
    }
    if let Some(runner) = view.pipeline_id(index).as_str().and_then(|id| runners.get(id)) {
        description.insert("runner".into(), json!(runner));
    }
    let nodes = &view.graph.pipelines[index.0].stages;
    let stages = pipeline.stages.iter().zip(nodes).map(|(stage, node)| describe_stage(view, stage, view.id(*node)));
    let stages: Vec<Value> = stages.collect();
    if !stages.is_empty() {
        description.insert("stages".into(), Value::Array(stages));
    }
    Value::Object(description)
}

fn describe_stage(view: &View<'_>, stage: &Stage, id: Value) -> Value {
    let mut description = Map::new();
    description.insert("type".into(), json!(stage.module.name));
    description.insert("id".into(), id);
    if is_set(&stage.options) {
        description.insert("options".into(), stage.options.clone());
    }
    if !stage.devices.is_empty() {
        let devices = stage.devices.iter().map(|device| (device.name.clone(), describe_device(device)));
        description.insert("devices".into(), Value::Object(devices.collect()));
    }
    if !stage.mounts.is_empty() {
        let mounts = stage.mounts.iter().map(|mount| describe_mount(mount, &stage.devices));
        description.insert("mounts".into(), mounts.collect());
    }
    if !stage.inputs.is_empty() {
        let inputs = stage.inputs.iter().map(|input| (input.name.clone(), describe_input(view, input)));
        description.insert("inputs".into(), Value::Object(inputs.collect()));
    }
    Value::Object(description)
}

fn describe_device(device: &Device) -> Value {
    let mut description = Map::new();
    description.insert("type".into(), json!(device.module.name));
    if is_set(&device.options) {
        description.insert("options".into(), device.options.clone());
    }
    Value::Object(description)
}

fn describe_mount(mount: &Mount, devices: &[Device]) -> Value {
    let mut description = Map::new();
    description.insert("name".into(), json!(mount.name));
    description.insert("type".into(), json!(mount.module.name));
    description.insert("target".into(), json!(mount.target));
    if let Some(source) = mount.source {
        description.insert("source".into(), json!(devices[source].name));
    }
    if is_set(&mount.options) {
        description.insert("options".into(), mount.options.clone());
    }
    if let Some(partition) = &mount.partition {
        description.insert("partition".into(), Value::Number(partition.clone()));
    }
    Value::Object(description)
}

fn describe_input(view: &View<'_>, input: &Input) -> Value {
    let mut description = Map::new();
    description.insert("type".into(), json!(input.module.name));
    description.insert("origin".into(), json!(input.origin.as_str()));
    if is_set(&input.options) {
        description.insert("options".into(), input.options.clone());
    }
    // By id: of two pipelines with the same content the one named last counts, as in osbuild.
    let references = input.references.entries.iter().map(|reference| {
        let id = match &reference.target {
            Target::Pipeline(index) => view.pipeline_id(*index).as_str().unwrap_or("null").to_owned(),
            Target::Item(checksum) => checksum.clone(),
        };
        (id, reference.options.clone())
    });
    let references: Map<String, Value> = references.collect();
    if !references.is_empty() {
        description.insert("references".into(), Value::Object(references));
    }
    Value::Object(description)
}
