//! Ids and graphs, seen from outside: what ids cover, that they never change by accident, how nodes are connected.

mod blake3_ids;
mod compat_ids;
mod content_keys;
mod damaged;
mod finalizing;
mod properties;
mod sample;
