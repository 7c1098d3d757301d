//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archive;
mod bind;
pub mod builtin;
mod checksum;
mod compression;
mod filesystem_mount;
mod partition_table;
mod single_file;
