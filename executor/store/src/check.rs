//! Whether what a store holds is still what was put there.

pub(crate) mod quick_check;
pub(crate) mod stamps;
pub(crate) mod verify;
