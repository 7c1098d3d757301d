//! The provenance of an exported result, as an in-toto statement with SLSA's predicate: the manifest, the sources with
//! their digests, the stages with their ids, the builder.

use std::path::Path;

use osbc_ir::graph::Graph;
use osbc_ir::{Export, Value, hex, redact};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{Error, attest};

/// The statement about an exported result; `artifact` is where it lies, `manifest` the text that it was made from.
///
/// # Errors
/// The artifact cannot be read.
pub(crate) fn slsa(graph: &Graph, export: &Export, artifact: &Path, manifest: &str) -> Result<Value, Error> {
    let id = export.node.and_then(|node| graph.stage_node(node)).map(|stage| stage.id.to_string());
    let name = artifact.file_name().map(|name| name.to_string_lossy().into_owned());
    let (name, digest) = match attest::digest(artifact)? {
        Some(sum) => (name.unwrap_or_else(|| export.name.clone()), json!({"sha256": sum})),
        // A tree has no bytes of its own; the id of its last stage says what is in it.
        None => (export.name.clone(), json!({"osbcStage": id})),
    };
    let pipelines = attest::with_build_roots(graph, export.pipeline);
    let stages = pipelines.iter().flat_map(|pipeline| {
        let pipeline = &graph.pipelines[pipeline.0];
        pipeline.stages.iter().filter_map(|node| graph.stage_node(*node)).map(|stage| {
            let (pipeline, description) = graph.stage(stage);
            json!({"pipeline": pipeline.name, "module": description.module.name, "id": stage.id.to_string()})
        })
    });
    let items = attest::items(graph, &pipelines).into_iter().map(|(module, item)| {
        let (algorithm, hex) = item.key.checksum.split_once(':').unwrap_or(("osbcItem", &item.key.checksum));
        let described = item.description.as_str().or_else(|| item.description.get("url")?.as_str());
        let place = described
            .map_or_else(|| format!("urn:osbc:{module}:{}", item.key.checksum), |url| redact::url(url).into_owned());
        json!({"uri": place, "digest": {algorithm: hex}})
    });
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": digest}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:osbc:build:v1",
                "externalParameters": {
                    "export": export.name,
                    "manifest": {"digest": {"sha256": hex(&Sha256::digest(manifest))}}
                },
                "internalParameters": {"stages": stages.collect::<Vec<_>>()},
                "resolvedDependencies": items.collect::<Vec<_>>()
            },
            "runDetails": {
                "builder": {"id": "urn:osbc:builder:local", "version": {"osbc": env!("CARGO_PKG_VERSION")}},
                "metadata": {"invocationId": id}
            }
        }
    }))
}
