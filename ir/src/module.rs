//! How the graph names a module: kind, name and revision.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of modules, in the order in which a build meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Fetches items from outside into the store.
    Source,
    /// Makes trees or source items visible to a stage.
    Input,
    /// Opens a block device for a stage.
    Device,
    /// Mounts a file system for a stage.
    Mount,
    /// Changes a tree.
    Stage,
    /// Version 1's last step: makes an artifact from a tree. Runs like a stage.
    Assembler,
    /// Prepares a build root and starts a module in it.
    Runner,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 7] =
        [Kind::Source, Kind::Input, Kind::Device, Kind::Mount, Kind::Stage, Kind::Assembler, Kind::Runner];

    /// The kind's directory in a module directory, e.g. `stages`.
    pub const fn directory(self) -> &'static str {
        match self {
            Kind::Source => "sources",
            Kind::Input => "inputs",
            Kind::Device => "devices",
            Kind::Mount => "mounts",
            Kind::Stage => "stages",
            Kind::Assembler => "assemblers",
            Kind::Runner => "runners",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Source => "source",
            Kind::Input => "input",
            Kind::Device => "device",
            Kind::Mount => "mount",
            Kind::Stage => "stage",
            Kind::Assembler => "assembler",
            Kind::Runner => "runner",
        })
    }
}

/// Which code of a module: part of every id, so that new code means new results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revision {
    /// A built-in module's own count, raised when its output changes for the same options.
    BuiltIn(u32),
    /// BLAKE3 of an on-disk module's file and of the library that it imports.
    Digest([u8; 32]),
}

/// A module as a node of the graph names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRef {
    /// The kind; together with the name it is unique in a catalog.
    pub kind: Kind,
    /// The full name, e.g. `org.osbuild.mkdir`.
    pub name: String,
    /// Which code.
    pub revision: Revision,
}
