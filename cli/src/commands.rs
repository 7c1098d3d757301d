//! The commands, one file each.

pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod compat;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod graph;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod manual;
pub(crate) mod modules;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod resolve;
pub(crate) mod shell;
pub(crate) mod store;
