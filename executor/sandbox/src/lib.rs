//! Runs one stage in a process of its own: what crosses the boundary to it, the fork server, the mounts, services and
//! the virtual machine.
//!
//! Knows one stage; no graph, no schedule, and of the store only what a tree is made of.
//!
//! ```text
//! StageRequest → client ══ socket ══► server ─ fork ─► stage: mounts, services → module → StageReply
//!                                                  └─► vm: the same, in a guest
//! ```

pub mod client;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod interrupt;
pub mod probe;
pub mod request;
pub mod server;
pub mod service;
mod stage;
pub mod vm;
