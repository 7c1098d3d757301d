//! The built-in modules of osbc, one file each below the folder of their kind, and the descriptions of on-disk
//! modules in the same terms.

mod archive;
mod bind;
mod bootloader;
mod bound;
pub mod builtin;
mod calendar;
mod checksum;
mod compression;
mod container_image;
mod download;
mod filesystem;
mod filesystem_mount;
mod firstboot;
pub mod foreign;
mod ini;
mod mounted_image;
mod options;
mod ostree;
mod ostree_layout;
mod ostree_tool;
mod partition_table;
mod pe;
mod proxy;
mod python_json;
mod rhsm;
pub mod runners;
mod settings;
mod single_file;
mod systemd_unit;
mod tarball;
mod text;
mod treefile;
mod url;
