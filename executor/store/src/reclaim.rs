//! What a store takes, and how it gets room: inventory, size, eviction and removal.

pub(crate) mod evict;
pub(crate) mod inventory;
pub(crate) mod last_used;
pub(crate) mod remove;
pub(crate) mod size;
pub(crate) mod sweep;
