//! The result of a build of a manifest of version 1: nested as the manifest is.

use std::collections::BTreeMap;

use osbc_ir::{PipelineIndex, Value};
use serde_json::json;

use super::{Finished, error, output};

/// The pipelines that a manifest of version 1 becomes.
const MAIN: &str = "tree";
const ASSEMBLER: &str = "assembler";

pub(super) fn document(finished: Finished<'_>) -> Value {
    let pipelines = &finished.monitored.written.manifest.pipelines;
    let find = |name: &str| pipelines.iter().position(|pipeline| pipeline.name == name).map(PipelineIndex);
    let mut document = find(MAIN).map_or_else(|| json!({"success": true}), |main| pipeline(finished, main));
    let sources = finished.sources();
    if let Some((source, reason)) = sources.iter().find_map(|source| Some((source, source.error()?))) {
        // osbuild's document says nothing of it, and success is that of pipelines; its exit code is 1.
        document["error"] = json!({"type": "org.osbuild.error.source", "details": {"source": {
            "type": source.module, "output": reason
        }}});
    }
    if let Some(assembler) = find(ASSEMBLER)
        && let Some(stage) = stages(finished, assembler).into_iter().next()
    {
        if stage["success"] == false {
            document["success"] = json!(false);
        }
        document["assembler"] = stage;
    }
    document
}

/// Returns a pipeline with its build pipeline inside.
///
/// As in osbuild, the success of the inner one counts for both; the stages and the exit code say that the build failed.
fn pipeline(finished: Finished<'_>, index: PipelineIndex) -> Value {
    let stages = stages(finished, index);
    let mut document = json!({ "success": stages.iter().all(|stage| stage["success"] == true) });
    if let Some(build) = finished.monitored.written.manifest.pipeline(index).build {
        let build = pipeline(finished, build);
        document["success"] = build["success"].clone();
        document["build"] = build;
    }
    if !stages.is_empty() {
        document["stages"] = Value::Array(stages);
    }
    document
}

fn stages(finished: Finished<'_>, index: PipelineIndex) -> Vec<Value> {
    let Some(run) = finished.run(index) else { return Vec::new() };
    let metadata: BTreeMap<usize, Value> = finished.metadata(run.pipeline).into_iter().collect();
    let stage = finished.results(run).map(|(stage, module, result)| {
        json!({
            "id": stage.id,
            "type": module,
            "success": result.success,
            "error": error(&result),
            "output": output(&result),
            "metadata": metadata.get(&stage.position),
        })
    });
    stage.collect()
}
