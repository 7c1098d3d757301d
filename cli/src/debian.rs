//! From a short description of a Debian system to a manifest: which packages it takes, where they are, what is made of
//! them.

pub(crate) mod apt;
#[cfg(test)]
mod fuzz;
pub(crate) mod graph;
pub(crate) mod lock;
pub(crate) mod reach;
pub(crate) mod spec;
