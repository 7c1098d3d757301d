//! A tree as the directories that it is made of: what crosses the boundary to a stage's process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A tree as directories: layers for overlayfs, or one plain directory.
///
/// Opened and mounted by [`crate::fs::overlay`] only, on either side of the boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeStack {
    /// Read-only layers, lowest first. May be empty when there is an `upper`.
    #[serde(with = "crate::fs::paths")]
    pub lower: Vec<PathBuf>,
    /// Where changes go; none for a tree that is only read. With an empty `lower` this is the whole tree.
    pub upper: Option<Upper>,
}

/// The writable end of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// The directory that takes the changes.
    #[serde(with = "crate::fs::paths")]
    pub dir: PathBuf,
    /// A directory on the same file system for overlayfs's own use: one for all stages that change the same `dir`, one
    /// after the other.
    #[serde(with = "crate::fs::paths")]
    pub work: PathBuf,
    /// Whether a file of a lower layer keeps its data there when only its attributes or its name change. Layers that
    /// have such files can only be mounted with it.
    pub metacopy: bool,
}
