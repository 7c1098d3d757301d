//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archive;
mod bind;
mod bootloader;
pub mod builtin;
mod calendar;
mod checksum;
mod compression;
mod filesystem;
mod download;
mod filesystem_mount;
mod firstboot;
mod mounted_image;
pub mod foreign;
mod partition_table;
mod proxy;
mod rhsm;
pub mod runners;
mod single_file;
mod tarball;
mod url;
