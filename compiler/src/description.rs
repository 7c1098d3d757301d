//! A manifest in one shape for both formats: typed, with names that are not resolved yet.
//!
//! The readers of [`crate::format`] take over what has the right shape and leave out the rest, which the schemas
//! report.

use osbc_ir::{FormatVersion, InputOrigin, Kind, Map, Number, Value};

use crate::place::{Key, Place};

/// A manifest as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The format that it is written in.
    pub version: FormatVersion,
    /// The `metadata` object.
    pub metadata: Map<String, Value>,
    /// The sources, in order.
    pub sources: Vec<Source>,
    /// The pipelines, in order.
    pub pipelines: Vec<Pipeline>,
}

/// A source as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Where.
    pub place: Place,
    /// The module's name.
    pub module: String,
    /// Checksum → description.
    pub items: Map<String, Value>,
    /// The options; in version 1 the whole description.
    pub options: Value,
}

/// A pipeline as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Where.
    pub place: Place,
    /// Its name, if it has one that is a string.
    pub name: Option<String>,
    /// Whether the manifest gives it none, not even a wrong one.
    pub unnamed: bool,
    /// What its build pipeline is called, as version 2 writes it: with `name:` in front, or empty for the host.
    pub build: Option<String>,
    /// The runner that its tree is used with, and where it stands.
    pub runner: Option<(String, Place)>,
    /// `source-epoch`, an integer.
    pub source_epoch: Option<Number>,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
}

/// A stage or assembler as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Where.
    pub place: Place,
    /// [`Kind::Stage`] or [`Kind::Assembler`].
    pub kind: Kind,
    /// The module's name; empty where there is none.
    pub module: String,
    /// The options, if given.
    pub options: Option<Value>,
    /// The inputs, in order.
    pub inputs: Vec<Input>,
    /// The devices, in the order written.
    pub devices: Vec<Device>,
    /// The mounts, in order.
    pub mounts: Vec<Mount>,
}

/// An input as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Where its references stand.
    pub place: Place,
    /// Its name within the stage.
    pub name: String,
    /// The module's name.
    pub module: String,
    /// What its references lead to.
    pub origin: InputOrigin,
    /// Whether they came as a list.
    pub ordered: bool,
    /// The references, in order.
    pub references: Vec<Reference>,
    /// The options, if given.
    pub options: Option<Value>,
}

/// A reference as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The step from the input's place.
    pub key: Key,
    /// A checksum, or `name:` and a pipeline's name.
    pub id: String,
    /// The options, if given.
    pub options: Option<Value>,
}

/// A device as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its name within the stage.
    pub name: String,
    /// The module's name.
    pub module: String,
    /// The name of the device that it lies on.
    pub parent: Option<String>,
    /// The options, if given.
    pub options: Option<Value>,
}

/// A mount as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    /// Its position in the list of mounts.
    pub index: usize,
    /// Its name within the stage.
    pub name: String,
    /// The module's name.
    pub module: String,
    /// The name of the device that is mounted.
    pub source: Option<String>,
    /// The partition.
    pub partition: Option<Number>,
    /// Where it is mounted.
    pub target: Option<String>,
    /// The options, if given.
    pub options: Option<Value>,
}

/// Taking values apart, each only if it is of the right type.
pub(crate) trait Take: Sized {
    /// The text of a string.
    fn string(self) -> Option<String>;
    /// The entries of an object; none of anything else.
    fn entries(self) -> Map<String, Value>;
    /// The items of an array; none of anything else.
    fn items(self) -> Vec<Value>;
}

impl Take for Value {
    fn string(self) -> Option<String> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn entries(self) -> Map<String, Value> {
        match self {
            Value::Object(entries) => entries,
            _ => Map::new(),
        }
    }

    fn items(self) -> Vec<Value> {
        match self {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }
}
