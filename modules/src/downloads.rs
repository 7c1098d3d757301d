//! Downloads: URLs, mirrors, proxies, secrets, and the checksums that items are named by.

pub mod checksum;
pub(crate) mod client_secrets;
pub(crate) mod download;
pub(crate) mod mirrors;
pub mod probe;
pub(crate) mod proxy;
pub(crate) mod rhsm;
pub(crate) mod url;
