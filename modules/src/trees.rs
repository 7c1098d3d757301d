//! What a stage finds in its tree and its build root, and the programs that it runs there.

pub(crate) mod bind;
pub(crate) mod bound;
pub(crate) mod build_root;
pub(crate) mod chroot;
pub(crate) mod clock;
pub(crate) mod crypt;
pub(crate) mod kernel_devices;
pub(crate) mod lorax;
pub(crate) mod network_manager;
pub(crate) mod pacman_database;
pub(crate) mod room;
pub(crate) mod rooted;
pub mod runners;
pub(crate) mod selinux_labels;
