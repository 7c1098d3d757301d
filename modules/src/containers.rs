//! Container images: where they come from, what they hold, how they are written.

pub(crate) mod container_image;
pub(crate) mod container_storage;
pub(crate) mod image_blobs;
pub(crate) mod image_input;
pub(crate) mod image_layers;
pub(crate) mod oci_image;
pub(crate) mod registry_image;
