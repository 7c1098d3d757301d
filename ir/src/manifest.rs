//! A manifest as meant: the lowered form that both formats share, every name resolved.

use serde::{Deserialize, Serialize};

use crate::item::ItemKey;
use crate::module::ModuleRef;
use crate::stage::Stage;
use crate::value::{Map, Value};

/// Which of osbuild's formats a manifest is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FormatVersion {
    /// One nested pipeline with an assembler; no `version` key.
    #[serde(rename = "1")]
    V1,
    /// Flat pipelines; `"version": "2"`.
    #[serde(rename = "2")]
    V2,
}

/// A lowered manifest. References between pipelines only ever reach back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format it was written in; only describers need to know.
    pub version: FormatVersion,
    /// The `metadata` object as written; empty when absent.
    pub metadata: Map<String, Value>,
    /// The sources, in the manifest's order.
    pub sources: Vec<Source>,
    /// The pipelines, in the manifest's order, names unique.
    pub pipelines: Vec<Pipeline>,
}

/// The position of a pipeline in [`Manifest::pipelines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PipelineIndex(pub usize);

/// A list of stages that build one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Its name: a label, no part of any id.
    pub name: String,
    /// The pipeline whose tree its stages run in; the host when none.
    pub build: Option<PipelineIndex>,
    /// Whether the manifest says `"build": ""`. That is the host, as without `build`, but osbuild's ids differ.
    pub empty_build: bool,
    /// The runner that this pipeline's tree is used with when it is a build root, as the manifest names it; the
    /// host's when the manifest names none.
    pub runner: Runner,
    /// Seconds since 1970 that modification times are clamped to.
    pub source_epoch: Option<i64>,
    /// Its stages, first to last; may be empty.
    pub stages: Vec<Stage>,
}

/// A runner by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The name as the manifest gives it (`org.osbuild.fedora39`), or that of the host's runner.
    pub name: String,
    /// The runner that was chosen for it: same distribution, highest version that is not newer
    /// (`org.osbuild.fedora38`).
    pub exec: String,
}

/// All items that one source module fetches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The module that fetches.
    pub module: ModuleRef,
    /// The items in the manifest's order, checksums unique.
    pub items: Vec<SourceItem>,
    /// Version 2: the options. Version 1: the whole description of the source, as osbuild describes it back.
    pub options: Value,
}

/// One thing to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceItem {
    /// What names it.
    #[serde(flatten)]
    pub key: ItemKey,
    /// How to get it, in the module's terms (a URL, an object, inline data).
    pub description: Value,
    /// Its size in bytes, if the manifest states it.
    pub size: Option<u64>,
}

impl Manifest {
    /// The pipeline at an index that this manifest gave out.
    pub fn pipeline(&self, index: PipelineIndex) -> &Pipeline {
        &self.pipelines[index.0]
    }

    /// The runner that the stages of a pipeline are started with: that of its build pipeline, or the host's when it has
    /// none or one without stages, whose tree does not exist.
    pub fn runner_of<'a>(&'a self, pipeline: &Pipeline, host: &'a Runner) -> &'a Runner {
        let build = pipeline.build.map(|build| self.pipeline(build));
        build.filter(|build| !build.stages.is_empty()).map_or(host, |build| &build.runner)
    }
}
