//! Runs a plan: schedules it, fetches, sandboxes and runs stages, stores results. Never sees a manifest's text.
//!
//! ```text
//! store.lease(graph, ids) → Lease → (the compiler plans) → run(plan, lease, parts) → Outcome → export(lease, …)
//! ```

mod build;
mod cutoff;
pub mod event;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fetch;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod log;
pub mod machine;
mod needs;
mod prepared;
pub mod record;
mod run;
mod scheduler;
mod segment;
mod step;
#[cfg(test)]
mod testing;
mod tokens;

pub use build::{Parts, Settings};
pub use cutoff::foreseen;
pub use run::{RunError, run};
