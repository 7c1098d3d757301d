//! Runs a plan: schedules it, fetches, sandboxes and runs stages, stores results. Never sees a manifest's text.

pub mod copy;
mod deep;
mod delete;
pub mod event;
pub mod helper;
pub mod interrupt;
pub mod overlay;
pub mod request;
pub mod runner;
mod sandbox;
pub mod store;
