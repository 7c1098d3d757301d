//! The `osbc` command as a user types it, in real sandboxes, on real loop devices, with real tools.

mod bad_input;
mod containers;
mod cutoff;
mod debian;
mod doctor;
mod documents;
mod dropin;
mod encryption;
mod explain;
mod harness;
mod hostile;
mod jobserver;
mod kills;
mod layering;
mod live;
mod log;
mod offline;
mod ostree;
mod packages;
mod quickstart;
mod recovery;
mod report;
mod resolve;
mod rootless;
mod shell;
mod store;
