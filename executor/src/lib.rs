//! Runs a plan: schedules it, fetches, sandboxes and runs stages, stores results. Never sees a manifest's text.
//!
//! ```text
//! store.lease(graph, ids) → Lease → (the compiler plans) → run(plan, lease, parts) → Outcome → export(lease, …)
//! ```

mod appended;
pub mod copy;
mod cutoff;
mod deep;
mod delete;
pub mod differ;
mod digest;
pub mod event;
pub mod export;
mod extents;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fetch;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod helper;
pub mod history;
pub mod interrupt;
mod lock;
mod log;
pub mod machine;
pub mod overlay;
mod paths;
mod prepared;
pub mod probe;
pub mod record;
pub mod regular;
pub mod request;
pub mod rootless;
mod run;
pub mod runner;
mod sandbox;
mod scheduler;
mod segment;
mod service;
pub mod shell;
mod step;
pub mod store;
pub mod temporary;
#[cfg(test)]
mod testing;
mod tokens;
mod traceback;
pub mod vm;
mod walk;

pub use cutoff::foreseen;
pub use run::{Parts, RunError, Settings, run};
