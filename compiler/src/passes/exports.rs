//! Finds the nodes of exports by the names that the user gave, and the default exports.

use std::collections::{HashMap, HashSet};
use std::fmt;

use osbc_ir::{CompatId, Export, Graph, PipelineIndex, StageId, Value};

/// All exports that name no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ExportError {
    /// What names nothing, in the order of asking.
    pub unknown: Vec<UnknownExport>,
    /// The pipelines that there are.
    pub known: Vec<String>,
}

/// A name or id that is no pipeline's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownExport {
    /// As asked for.
    pub name: String,
    /// A pipeline with a similar name.
    pub similar: Option<String>,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such pipeline: ")?;
        for (index, UnknownExport { name, similar }) in self.unknown.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}`{name}`")?;
            if let Some(similar) = similar {
                write!(f, " (did you mean `{similar}`?)")?;
            }
        }
        match self.known.as_slice() {
            [] => f.write_str("; the manifest has no pipelines"),
            known => write!(f, "; the manifest has {}", known.join(", ")),
        }
    }
}

/// Finds the pipelines that are asked for, by name or by the id of their last stage (of either kind, in full); each
/// once, in the order of asking.
///
/// # Errors
/// Something is no pipeline's name or id; all such are reported.
pub fn resolve_exports(graph: &Graph, names: &[String]) -> Result<Vec<Export>, ExportError> {
    let pipelines = &graph.manifest.pipelines;
    let by_name: HashMap<&str, usize> =
        pipelines.iter().enumerate().map(|(index, pipeline)| (pipeline.name.as_str(), index)).collect();
    let mut asked = HashSet::with_capacity(names.len());
    let mut exports: Vec<Export> = Vec::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in names.iter().filter(|name| asked.insert(name.as_str())) {
        match by_name.get(name.as_str()).copied().or_else(|| by_id(graph, name)) {
            Some(index) => exports.push(export(graph, name.clone(), index)),
            None => {
                let similarity = |known: &str| strsim::jaro_winkler(known, name);
                let best = pipelines
                    .iter()
                    .map(|pipeline| pipeline.name.as_str())
                    .max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
                let similar = best.filter(|best| similarity(best) > 0.8).map(str::to_owned);
                unknown.push(UnknownExport { name: name.clone(), similar });
            }
        }
    }
    if unknown.is_empty() {
        return Ok(exports);
    }
    Err(ExportError { unknown, known: pipelines.iter().map(|pipeline| pipeline.name.clone()).collect() })
}

/// What is exported when nothing is asked for: what the manifest's `metadata.exports` names, else every pipeline that
/// no other one uses as its build pipeline or as an input.
///
/// For version 1 that is the assembler, or the tree.
///
/// # Errors
/// `metadata.exports` names something that is no pipeline.
pub fn default_exports(graph: &Graph) -> Result<Vec<Export>, ExportError> {
    let named = graph.manifest.metadata.get("exports").and_then(Value::as_array).into_iter().flatten();
    let named: Vec<String> =
        named.filter_map(|export| export.get("name")).filter_map(Value::as_str).map(str::to_owned).collect();
    if !named.is_empty() {
        return resolve_exports(graph, &named);
    }
    let pipelines = &graph.manifest.pipelines;
    let mut used = vec![false; pipelines.len()];
    for pipeline in pipelines {
        let read = pipeline.stages.iter().flat_map(osbc_ir::Stage::pipelines);
        for PipelineIndex(index) in read.chain(pipeline.build) {
            used[index] = true;
        }
    }
    let unused = used.iter().enumerate().filter(|(_, used)| !**used);
    Ok(unused.map(|(index, _)| export(graph, pipelines[index].name.clone(), index)).collect())
}

fn by_id(graph: &Graph, text: &str) -> Option<usize> {
    let last = |index: usize| graph.pipelines[index].last().and_then(|node| graph.stage_node(node));
    let stage: StageId = text.parse().ok()?;
    let compat = CompatId::from_bytes(*stage.as_bytes());
    (0..graph.pipelines.len()).find(|index| last(*index).is_some_and(|node| node.id == stage || node.compat == compat))
}

fn export(graph: &Graph, name: String, index: usize) -> Export {
    Export { name, pipeline: PipelineIndex(index), node: graph.pipelines[index].last() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use osbc_ir::Graph;
    use serde_json::json;

    use super::*;
    use crate::passes::sketch::{Sketch, manifest};

    fn names(exports: &[Export]) -> Vec<(&str, usize)> {
        exports.iter().map(|export| (export.name.as_str(), export.pipeline.0)).collect()
    }

    const MANIFEST: &str = "build: packages\nos(build): packages\ntar(build): tar<os\nqcow2: truncate";

    #[test]
    fn pipelines_are_found_by_name_and_by_both_ids() {
        let sketch = Sketch::shared(MANIFEST);
        let node = sketch.graph.stage_node(sketch.node("tar/tar")).expect("a stage");
        let (id, compat) = (node.id.to_string(), node.compat.to_string());
        let asked = [id.clone(), "os".into(), compat.clone(), "os".into()];
        let exports = resolve_exports(&sketch.graph, &asked).expect("all known");
        assert_eq!(names(&exports), [(id.as_str(), 2), ("os", 1), (&compat, 2)]);
        assert_eq!(exports[0].node, Some(sketch.node("tar/tar")));
    }

    #[test]
    fn unknown_names_are_reported_together_with_similar_ones() {
        let sketch = Sketch::shared(MANIFEST);
        let asked = ["qcow", "os", "zzz"].map(str::to_owned);
        let error = resolve_exports(&sketch.graph, &asked).expect_err("two are unknown");
        assert_eq!(
            error.to_string(),
            "no such pipeline: `qcow` (did you mean `qcow2`?), `zzz`; the manifest has build, os, tar, qcow2"
        );
    }

    #[test]
    fn by_default_what_nothing_else_uses_is_exported() {
        let sketch = Sketch::shared(MANIFEST);
        assert_eq!(names(&default_exports(&sketch.graph).expect("known")), [("tar", 2), ("qcow2", 3)]);
    }

    #[test]
    fn the_manifest_may_say_what_is_exported_by_default() {
        let with = |exports| -> Arc<Graph> {
            let mut manifest = manifest(MANIFEST);
            manifest.metadata.insert("exports".into(), exports);
            Arc::new(manifest.finalize())
        };
        let exports = default_exports(&with(json!([{"name": "os"}, {"name": "tar"}]))).expect("known");
        assert_eq!(names(&exports), [("os", 1), ("tar", 2)]);
        assert_eq!(names(&default_exports(&with(json!([]))).expect("known")), [("tar", 2), ("qcow2", 3)]);
        assert!(default_exports(&with(json!([{"name": "nothing"}]))).is_err());
    }
}
