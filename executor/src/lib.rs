//! Runs a plan: schedules it, fetches, sandboxes and runs stages, stores results. Never sees a manifest's text.
//!
//! ```text
//! store.lease(graph, ids) → Lease → (the compiler plans) → run(plan, lease, parts) → Outcome → export(lease, …)
//! ```

mod cutoff;
pub mod event;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fetch;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod helper;
pub mod interrupt;
mod log;
pub mod machine;
mod prepared;
pub mod probe;
pub mod record;
pub mod request;
mod run;
pub mod runner;
mod sandbox;
mod scheduler;
mod segment;
mod service;
pub mod shell;
mod step;
#[cfg(test)]
mod testing;
mod tokens;
mod traceback;
pub mod vm;

pub use cutoff::foreseen;
pub use run::{Parts, RunError, Settings, run};
