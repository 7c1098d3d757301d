//! What the documents about a result share: its pipelines and items, and the digest of its file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use osbc_ir::graph::Graph;
use osbc_ir::{PipelineIndex, Source, SourceItem, Target, hex};
use sha2::{Digest, Sha256};

use crate::Error;

/// Returns the pipelines whose trees become part of a pipeline's tree, itself included.
pub(crate) fn made_from(graph: &Graph, pipeline: PipelineIndex) -> BTreeSet<PipelineIndex> {
    reach(graph, pipeline, false)
}

/// Returns the same with their build pipelines, and all that these depend on.
pub(crate) fn with_build_roots(graph: &Graph, pipeline: PipelineIndex) -> BTreeSet<PipelineIndex> {
    reach(graph, pipeline, true)
}

fn reach(graph: &Graph, pipeline: PipelineIndex, build_roots: bool) -> BTreeSet<PipelineIndex> {
    let (mut found, mut rest) = (BTreeSet::new(), vec![pipeline]);
    while let Some(index) = rest.pop() {
        if found.insert(index) {
            let pipeline = &graph.manifest.pipelines[index.0];
            rest.extend(pipeline.stages.iter().flat_map(|stage| stage.pipelines()));
            rest.extend(pipeline.build.filter(|_| build_roots));
        }
    }
    found
}

/// The items of sources that stages of these pipelines take, with the modules that fetch them, in the manifest's order.
pub(crate) fn items<'g>(graph: &'g Graph, pipelines: &BTreeSet<PipelineIndex>) -> Vec<(&'g str, &'g SourceItem)> {
    let stages = pipelines.iter().flat_map(|index| &graph.manifest.pipelines[index.0].stages);
    let entries = stages.flat_map(|stage| &stage.inputs).flat_map(|input| &input.references.entries);
    let wanted: BTreeSet<&str> = entries
        .filter_map(|entry| match &entry.target {
            Target::Item(checksum) => Some(checksum.as_str()),
            Target::Pipeline(_) => None,
        })
        .collect();
    let of_source = |source: &'g Source| source.items.iter().map(|item| (source.module.name.as_str(), item));
    let all = graph.manifest.sources.iter().flat_map(of_source);
    all.filter(|(_, item)| wanted.contains(item.key.checksum.as_str())).collect()
}

/// The SHA-256 of a file; `None` for a directory.
///
/// # Errors
/// It cannot be read.
pub(crate) fn digest(artifact: &Path) -> Result<Option<String>, Error> {
    let failed = |source: io::Error| Error::Io { act: "read", path: artifact.to_owned(), source };
    if artifact.is_dir() {
        return Ok(None);
    }
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
    let mut file = File::open(artifact).map_err(failed)?;
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Some(hex(&sum.finalize()))),
            length => sum.update(&buffer[..length]),
        }
    }
}
