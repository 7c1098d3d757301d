//! A stage: one step of a pipeline with its inputs, devices and mounts, names resolved.

use serde::{Deserialize, Serialize};

use crate::id::FileDigest;
use crate::manifest::PipelineIndex;
use crate::module::ModuleRef;
use crate::value::{Number, Value};

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its module; the kind is `Stage` or, for version 1's last step, `Assembler`.
    pub module: ModuleRef,
    /// The options, an object; `{}` when the manifest gives none.
    pub options: Value,
    /// The inputs, in the manifest's order, names unique.
    pub inputs: Vec<Input>,
    /// The devices, parents before children, names unique.
    pub devices: Vec<Device>,
    /// The mounts, in the order in which they are made, names unique.
    pub mounts: Vec<Mount>,
    /// What the stage uses of the host's tree, sorted by name; empty with a build tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<HostFile>,
    /// Whether the module makes its own id part of the result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writes_id: bool,
}

impl Stage {
    /// The pipelines whose trees its inputs refer to, as often as they do.
    pub fn pipelines(&self) -> impl Iterator<Item = PipelineIndex> {
        let references = self.inputs.iter().flat_map(|input| &input.references.entries);
        references.filter_map(|reference| match reference.target {
            Target::Pipeline(index) => Some(index),
            Target::Item(_) => None,
        })
    }

    /// Returns whether every device lies on an earlier one and every mount is of one that is there.
    pub(crate) fn has_its_devices(&self) -> bool {
        let parents =
            self.devices.iter().enumerate().all(|(own, device)| device.parent.is_none_or(|parent| parent < own));
        parents && self.mounts.iter().all(|mount| mount.source.is_none_or(|source| source < self.devices.len()))
    }
}

/// A tool, file or directory of the host's tree that a stage without a build tree works with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// The name of a tool, or an absolute path.
    pub name: String,
    /// Its content; `None` if the host does not have it.
    pub digest: Option<FileDigest>,
}

/// Where an input's references lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputOrigin {
    /// To items of the manifest's sources (`org.osbuild.source`).
    Source,
    /// To trees of other pipelines (`org.osbuild.pipeline`).
    Pipeline,
}

impl InputOrigin {
    /// The name that manifests and modules use.
    pub const fn as_str(self) -> &'static str {
        match self {
            InputOrigin::Source => "org.osbuild.source",
            InputOrigin::Pipeline => "org.osbuild.pipeline",
        }
    }
}

/// Trees or source items that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name within the stage, e.g. `tree`.
    pub name: String,
    /// The module that makes it visible.
    pub module: ModuleRef,
    /// What kind of thing it refers to.
    pub origin: InputOrigin,
    /// What it refers to.
    pub references: References,
    /// Options of the input itself; `{}` when not given.
    pub options: Value,
}

/// The references of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// Whether the manifest gave a list, whose order may matter to a module and so is part of the id, rather than
    /// an object.
    pub ordered: bool,
    /// The references as written; every target once.
    pub entries: Vec<Reference>,
}

/// One reference of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// What is referred to.
    pub target: Target,
    /// Options of this reference; `{}` when not given.
    pub options: Value,
}

/// The far end of a reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The finished tree of an earlier pipeline.
    Pipeline(PipelineIndex),
    /// The source item with this checksum, `ALGORITHM:HEX`.
    Item(String),
}

/// A block device that a stage works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name within the stage.
    pub name: String,
    /// The module that opens it.
    pub module: ModuleRef,
    /// The device that it lies on: an index into [`Stage::devices`], smaller than its own.
    pub parent: Option<usize>,
    /// Its options; `{}` when not given.
    pub options: Value,
}

/// A file system that is mounted while a stage runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its name within the stage.
    pub name: String,
    /// The module that mounts it.
    pub module: ModuleRef,
    /// The device that is mounted: an index into [`Stage::devices`].
    pub source: Option<usize>,
    /// The partition of the device, starting at one.
    pub partition: Option<Number>,
    /// Where below the mounts' root it appears.
    pub target: Option<String>,
    /// Its options; `{}` when not given.
    pub options: Value,
}
