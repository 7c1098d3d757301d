//! Results in a store: how one is made, described, committed and read.

pub(crate) mod abilities;
pub(crate) mod alias;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod deltas;
pub(crate) mod digests;
pub(crate) mod large;
pub(crate) mod layering;
pub(crate) mod layout;
pub(crate) mod links;
pub(crate) mod marks;
pub(crate) mod mtime_clamp;
pub(crate) mod object;
pub(crate) mod placeholders;
pub(crate) mod prepared;
pub(crate) mod shuffle;
pub(crate) mod sync;
pub(crate) mod work;
