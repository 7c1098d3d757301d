//! Describes in format 1: build pipelines nested, ids on stages.

use std::borrow::Cow;

use osbc_ir::{PipelineIndex, Value};
use serde::Serialize;

use super::{Id, Named, View, set};

#[derive(Debug, Serialize)]
pub(super) struct Manifest<'a> {
    pipeline: Pipeline<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Named<'a, &'a Value>>,
}

#[derive(Debug, Default, Serialize)]
struct Pipeline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<Box<Build<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<Stage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assembler: Option<Stage<'a>>,
}

#[derive(Debug, Serialize)]
struct Build<'a> {
    pipeline: Pipeline<'a>,
    runner: &'a str,
}

#[derive(Debug, Serialize)]
struct Stage<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a Value>,
    id: Option<Id>,
}

pub(super) fn describe<'a>(view: &View<'a>) -> Manifest<'a> {
    let manifest = &view.graph.manifest;
    let named = |name: &str| manifest.pipelines.iter().position(|pipeline| pipeline.name == name).map(PipelineIndex);
    let mut pipeline = named("tree").map(|tree| describe_pipeline(view, tree)).unwrap_or_default();
    pipeline.assembler = named("assembler").and_then(|assembler| describe_stages(view, assembler).next());
    let mut sources: Vec<(Cow<'a, str>, &'a Value)> = Vec::new();
    for source in &manifest.sources {
        let name = match source.module.name.as_str() {
            "org.osbuild.curl" => "org.osbuild.files",
            name => name,
        };
        // Two names of one source: the last one counts.
        match sources.iter_mut().find(|(known, _)| known == name) {
            Some((_, options)) => *options = &source.options,
            None => sources.push((name.into(), &source.options)),
        }
    }
    Manifest { pipeline, sources: Named::unless_empty(sources.into_iter()) }
}

fn describe_pipeline<'a>(view: &View<'a>, index: PipelineIndex) -> Pipeline<'a> {
    let manifest = &view.graph.manifest;
    let build = manifest.pipeline(index).build.map(|build| {
        let runner = manifest.pipeline(build).runner.name.as_str();
        Box::new(Build { pipeline: describe_pipeline(view, build), runner })
    });
    Pipeline { build, stages: describe_stages(view, index).collect(), assembler: None }
}

fn describe_stages<'a>(view: &View<'a>, index: PipelineIndex) -> impl Iterator<Item = Stage<'a>> {
    let stages = &view.graph.manifest.pipeline(index).stages;
    let nodes = &view.graph.pipelines[index.0].stages;
    stages.iter().zip(nodes).map(|(stage, node)| Stage {
        name: &stage.module.name,
        options: set(&stage.options),
        id: view.id(*node),
    })
}
