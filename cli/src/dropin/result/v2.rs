//! The result of a build of a manifest of version 2.

use osbc_ir::{Map, PipelineIndex, Value};
use serde_json::json;

use super::{Finished, error, output};

pub(super) fn document(finished: Finished<'_>) -> Value {
    let sources = finished.sources();
    let failed_source = sources.iter().find_map(|source| Some((source, source.error()?)));
    let mut document = match (failed_source, finished.failure()) {
        (Some((source, reason)), _) => {
            failure("org.osbuild.error.source", json!({"source": {"type": source.module, "output": reason}}))
        }
        (None, Some((stage, module, result))) => failure(
            "org.osbuild.error.stage",
            json!({"stage": {"id": stage.id, "type": module, "output": output(&result), "error": error(&result)}}),
        ),
        (None, None) => json!({"type": "result", "success": true, "metadata": metadata(finished)}),
    };
    let mut reports = Map::new();
    reports.insert("success".to_owned(), json!(failed_source.is_none()));
    reports.extend(sources.iter().map(|source| (source.module.clone(), source.document())));
    document["sources"] = Value::Object(reports);
    document["log"] = log(finished);
    document
}

fn failure(kind: &str, details: Value) -> Value {
    json!({"type": "error", "success": false, "error": {"type": kind, "details": details}})
}

/// By pipeline and module, what stages said; of stages of one module the last one counts where they say the same thing.
fn metadata(finished: Finished<'_>) -> Value {
    let mut all = Map::new();
    for (index, pipeline) in finished.monitored.written.manifest.pipelines.iter().enumerate() {
        let mut of_pipeline = Map::new();
        for (position, said) in finished.metadata(PipelineIndex(index)) {
            let entry = of_pipeline.entry(pipeline.stages[position].module.name.clone()).or_insert_with(|| json!({}));
            if let (Some(entry), Some(said)) = (entry.as_object_mut(), said.as_object()) {
                entry.extend(said.clone());
            }
        }
        if !of_pipeline.is_empty() {
            all.insert(pipeline.name.clone(), Value::Object(of_pipeline));
        }
    }
    Value::Object(all)
}

fn log(finished: Finished<'_>) -> Value {
    let mut all = Map::new();
    for (index, pipeline) in finished.monitored.written.manifest.pipelines.iter().enumerate() {
        let Some(run) = finished.run(PipelineIndex(index)) else { continue };
        let stages: Vec<Value> = finished
            .results(run)
            .map(|(stage, module, result)| {
                let mut entry = json!({"id": stage.id, "type": module, "output": output(&result)});
                if !result.success {
                    entry["success"] = json!(false);
                    let error = error(&result);
                    if !error.is_null() {
                        entry["error"] = error;
                    }
                }
                entry
            })
            .collect();
        if !stages.is_empty() {
            all.insert(pipeline.name.clone(), Value::Array(stages));
        }
    }
    Value::Object(all)
}
