//! Ids and sealing, seen from outside: what they cover, that they never change by accident, how nodes hang together.

mod blake3_ids;
mod compat_ids;
mod content_keys;
mod damaged;
mod properties;
mod sample;
mod sealing;
