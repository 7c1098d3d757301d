//! Archives and compression: what stages pack and unpack.

pub(crate) mod archive;
pub(crate) mod compression;
pub(crate) mod cpio;
pub(crate) mod single_file;
pub(crate) mod tarball;
