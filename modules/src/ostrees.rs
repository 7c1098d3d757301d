//! OSTree: deployments, repositories, and the tools that work on them.

pub(crate) mod ostree;
pub(crate) mod ostree_layout;
pub(crate) mod ostree_repository;
pub(crate) mod ostree_tool;
pub(crate) mod treefile;
