//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archive;
mod bind;
mod bootloader;
pub mod builtin;
mod calendar;
mod checksum;
mod compression;
mod download;
mod filesystem;
mod filesystem_mount;
mod firstboot;
pub mod foreign;
mod mounted_image;
mod ostree;
mod partition_table;
mod proxy;
mod rhsm;
pub mod runners;
mod single_file;
mod tarball;
mod url;
