//! What an osbc module declares and gets, and the catalog that finds modules by name.
//!
//! A built-in module is one file that declares a [`ModuleDef`]. The functions in it get a context
//! ([`StageContext`], [`InputContext`], [`DeviceContext`], [`MountContext`], [`SourceContext`]) that holds all that a
//! module may touch. The compiler sees modules as descriptions ([`Module`]), the executor calls their entries.

pub mod catalog;
pub mod container;
pub mod context;
pub mod data_extents;
pub mod def;
pub mod error;
pub mod host;
pub mod host_program;
pub mod location;
pub mod loopdev;
pub mod mount_change;
pub mod outside;
pub mod owners;
pub mod requirement;
pub mod rights;
pub mod runner;
pub mod schema;
pub mod snapshot;
pub mod system_calls;
#[cfg(feature = "testing")]
pub mod testing;
pub mod threads;
pub mod tool;
pub mod tree;

pub use catalog::{Catalog, Library, LibraryError, Module, OnDisk, Provider};
pub use context::{
    DeviceContext, InputContext, InputReference, MappedInput, MountContext, MountPoint, OpenDevice, SourceContext,
    StageContext, StageMeta,
};
pub use def::{Entry, ModuleDef, Registered, SourceEntry, parse};
pub use error::Error;
pub use location::Location;
pub use mount_change::MountChange;
pub use osbc_ir::{InputOrigin, Kind, Map, Revision, Value};
pub use requirement::Requirement;
pub use schema::{Schema, StageSchema, options_schema};
pub use tool::{DIRECTORIES as TOOL_DIRECTORIES, Tool, packages_of};
pub use tree::{STAGE_UMASK, Tree};

// So that a module file needs one import for its options.
pub use schemars::JsonSchema;
pub use serde::Deserialize;
pub use serde_json::json;
