//! What a store and a sandbox do with file systems: copies, removal, locks, overlay mounts. Knows files and directories; no
//! store.

pub mod copy;
pub mod delete;
pub(crate) mod directories;
pub(crate) mod extents;
pub mod lock;
pub(crate) mod long_path;
pub mod overlay;
pub mod paths;
pub mod regular;
pub mod rotating_file;
pub mod temporary;
pub(crate) mod times;
pub mod walk;
