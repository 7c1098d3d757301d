//! Describes in format 1: build pipelines nested, ids on stages.

use osbc_ir::{Kind, Map, PipelineIndex, Value};
use serde_json::json;

use super::{View, is_set};

pub(super) fn describe(view: &View<'_>) -> Value {
    let manifest = &view.graph.manifest;
    let named = |name: &str| manifest.pipelines.iter().position(|pipeline| pipeline.name == name).map(PipelineIndex);
    let mut pipeline = named("tree").map_or_else(Map::new, |tree| describe_pipeline(view, tree));
    if let Some(assembler) = named("assembler")
        && let Some(stage) = describe_stages(view, assembler).into_iter().next()
    {
        pipeline.insert("assembler".into(), stage);
    }
    let mut description = Map::new();
    description.insert("pipeline".into(), Value::Object(pipeline));
    if !manifest.sources.is_empty() {
        let sources = manifest.sources.iter().map(|source| {
            let name = match source.module.name.as_str() {
                "org.osbuild.curl" => "org.osbuild.files",
                name => name,
            };
            (name.to_owned(), source.options.clone())
        });
        description.insert("sources".into(), Value::Object(sources.collect()));
    }
    Value::Object(description)
}

fn describe_pipeline(view: &View<'_>, index: PipelineIndex) -> Map<String, Value> {
    let manifest = &view.graph.manifest;
    let mut description = Map::new();
    if let Some(build) = manifest.pipeline(index).build {
        let nested = describe_pipeline(view, build);
        let runner = &manifest.pipeline(build).runner.name;
        description.insert("build".into(), json!({ "pipeline": nested, "runner": runner }));
    }
    let stages = describe_stages(view, index);
    if !stages.is_empty() {
        description.insert("stages".into(), Value::Array(stages));
    }
    description
}

fn describe_stages(view: &View<'_>, index: PipelineIndex) -> Vec<Value> {
    let stages = &view.graph.manifest.pipeline(index).stages;
    let nodes = &view.graph.pipelines[index.0].stages;
    let describe = |(stage, node): (&osbc_ir::Stage, &_)| {
        debug_assert!(matches!(stage.module.kind, Kind::Stage | Kind::Assembler));
        let mut description = Map::new();
        description.insert("name".into(), json!(stage.module.name));
        if is_set(&stage.options) {
            description.insert("options".into(), stage.options.clone());
        }
        description.insert("id".into(), view.id(*node));
        Value::Object(description)
    };
    stages.iter().zip(nodes).map(describe).collect()
}
