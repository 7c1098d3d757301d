//! Boot loaders, their entries, and live systems.

pub(crate) mod bls;
pub(crate) mod bootloader;
pub(crate) mod firstboot;
pub(crate) mod grub;
pub(crate) mod grub_script;
pub(crate) mod iso_menu;
pub(crate) mod live_config;
pub(crate) mod live_efi;
pub(crate) mod live_initrd;
pub(crate) mod live_medium;
pub(crate) mod pe;
