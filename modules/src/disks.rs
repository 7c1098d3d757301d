//! Disks: partition tables, file systems, images and the devices that hold them.

pub(crate) mod device_mapper;
pub(crate) mod disk_image;
pub(crate) mod ext4;
pub(crate) mod fat;
pub(crate) mod filesystem;
pub(crate) mod filesystem_mount;
pub(crate) mod gpt;
pub(crate) mod image_conversion;
pub(crate) mod lvm2;
pub(crate) mod mounted_image;
pub(crate) mod partition_table;
pub(crate) mod qcow2;
