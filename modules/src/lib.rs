//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archive;
mod bind;
pub mod builtin;
mod calendar;
mod checksum;
mod compression;
mod filesystem_mount;
mod firstboot;
mod partition_table;
pub mod runners;
mod single_file;
mod tarball;
