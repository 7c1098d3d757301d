//! The typed build graph of osbc.
//!
//! This crate holds what a manifest *means*: [`Manifest`] (lowered, every name resolved), [`Graph`] (every node with
//! its content id), [`Plan`] (what to do with every node, and why) and [`Outcome`] (what happened). It is data and pure functions: no I/O, no JSON Schema, no Linux.

pub mod compat;
pub mod content;
mod finalize;
pub mod graph;
mod hex;
pub mod id;
pub mod identity;
mod item;
pub mod manifest;
pub mod module;
pub mod outcome;
pub mod plan;
pub mod printable;
pub mod redact;
pub mod sink;
mod size;
pub mod stage;
pub mod value;

pub use graph::{Edge, Graph, ItemNode, Node, NodeId, PipelineNodes, StageNode};
pub use hex::hex;
pub use id::{CompatId, ContentKey, FileDigest, ItemId, StageId, StageKey, TreeDigest};
pub use item::{ItemKey, is_file_name};
pub use manifest::{FormatVersion, Manifest, Pipeline, PipelineIndex, Runner, Source, SourceItem};
pub use module::{Kind, ModuleRef, Revision};
pub use outcome::{Cause, NodeOutcome, Outcome, Resource, StageResult};
pub use plan::{Action, CachedSet, Decision, Export, Plan, Reason, Segment};
pub use size::size;
pub use stage::{Device, HostFile, Input, InputOrigin, Mount, Reference, References, Stage, Target};
pub use value::{Map, Number, Value};
