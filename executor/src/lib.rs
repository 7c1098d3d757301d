//! Runs a plan: schedules it, fetches, sandboxes and runs stages, stores results. Never sees a manifest's text.

pub mod event;
pub mod interrupt;
pub mod overlay;
pub mod request;
