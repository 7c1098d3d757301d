//! The built-in modules of osbc, one file each below the directory of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archives;
mod boot;
pub mod builtin;
mod containers;
mod debian;
mod disks;
pub mod downloads;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod on_disk;
mod ostrees;
mod texts;
pub mod trees;
