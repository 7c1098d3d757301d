//! Debian packages, from `.deb` files to an unpacked tree with dpkg's database. Running their scripts is the stage's.

pub(crate) mod archive;
pub(crate) mod claims;
pub(crate) mod control;
pub(crate) mod database;
pub(crate) mod filter;
pub(crate) mod initramfs;
pub(crate) mod order;
pub(crate) mod owners;
pub(crate) mod package;
pub(crate) mod triggers;
pub(crate) mod unpack;
