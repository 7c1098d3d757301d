//! Turns a graph back into a manifest with ids, as `inspect` prints it. With osbuild's ids it equals osbuild's output.

use std::borrow::Cow;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, FormatVersion, Graph, PipelineIndex, StageId, Value};
use serde::{Serialize, Serializer};

mod v1;
mod v2;

/// Which ids to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdScheme {
    /// osbuild's, SHA-256.
    Osbuild,
    /// Those that osbc caches and shares by, BLAKE3.
    Blake3,
}

/// A graph as a manifest; what it holds is borrowed and becomes JSON when it is serialized.
#[derive(Debug)]
pub struct Described<'a>(Shape<'a>);

#[derive(Debug)]
enum Shape<'a> {
    V1(v1::Manifest<'a>),
    V2(v2::Manifest<'a>),
}

impl Serialize for Described<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Shape::V1(manifest) => manifest.serialize(serializer),
            Shape::V2(manifest) => manifest.serialize(serializer),
        }
    }
}

/// Describes a graph in the format that its manifest was written in, with an id on every stage.
pub fn describe(graph: &Graph, ids: IdScheme) -> Described<'_> {
    let view = View { graph, ids };
    Described(match graph.manifest.version {
        FormatVersion::V1 => Shape::V1(v1::describe(&view)),
        FormatVersion::V2 => Shape::V2(v2::describe(&view)),
    })
}

/// A graph with ids of one kind.
struct View<'a> {
    graph: &'a Graph,
    ids: IdScheme,
}

/// An id of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Osbuild(CompatId),
    Blake3(StageId),
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Id::Osbuild(id) => id.serialize(serializer),
            Id::Blake3(id) => id.serialize(serializer),
        }
    }
}

impl View<'_> {
    /// The id of a stage's node.
    fn id(&self, node: NodeIndex) -> Option<Id> {
        let stage = self.graph.stage_node(node)?;
        Some(match self.ids {
            IdScheme::Osbuild => Id::Osbuild(stage.compat),
            IdScheme::Blake3 => Id::Blake3(stage.id),
        })
    }

    /// The id of a pipeline's last stage.
    fn pipeline_id(&self, index: PipelineIndex) -> Option<Id> {
        self.graph.pipelines[index.0].last().and_then(|node| self.id(node))
    }
}

/// The entries of an object in order, names unique.
#[derive(Debug)]
struct Named<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<T: Serialize> Serialize for Named<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'a, T> Named<'a, T> {
    /// The entries, or none if there are none.
    fn unless_empty(entries: impl Iterator<Item = (Cow<'a, str>, T)>) -> Option<Self> {
        let entries: Vec<_> = entries.collect();
        (!entries.is_empty()).then_some(Self(entries))
    }
}

/// Options, if Python would take them for set.
fn set(options: &Value) -> Option<&Value> {
    Some(options).filter(|options| options.as_object().is_none_or(|options| !options.is_empty()))
}
