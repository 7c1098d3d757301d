//! A tree by directory handle: every path is resolved inside it, so no symlink in it leads out.

use std::os::fd::OwnedFd;

/// A handle on the root folder of a tree.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}
