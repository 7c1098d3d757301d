//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

pub mod builtin;
mod archive;
mod compression;
mod partition_table;
mod single_file;
