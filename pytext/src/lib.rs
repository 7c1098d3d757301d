//! Text as Python writes and matches it, where files, ids and messages must equal osbuild's.
//!
//! A leaf: it knows JSON values and nothing of osbc.

pub mod fnmatch;
pub mod json;
pub mod repr;
pub mod text;
