//! Who builds: root, or a user who is root in a namespace of their own.

use std::sync::OnceLock;

use osbc_store::user_namespace::{Ids, Obstacle};

use crate::exit::Failure;

/// Who started this process.
#[derive(Debug)]
pub(crate) enum User {
    /// Root, of the machine or of a container.
    Root,
    /// Another user, who is root in a namespace by now.
    Mapped(Ids),
    /// Another user, and why they cannot be root in a namespace.
    Unmapped(Obstacle),
}

static USER: OnceLock<User> = OnceLock::new();

/// Makes an ordinary user root in a namespace of their own, for good, and says who they are. The first call must be
/// made before any thread is started.
pub(crate) fn become_root() -> &'static User {
    USER.get_or_init(|| {
        let is_root = rustix::process::geteuid().is_root();
        match osbc_engine::become_root() {
            Ok(()) if is_root => User::Root,
            Ok(()) => User::Mapped(Ids::current()),
            Err(obstacle) => User::Unmapped(obstacle),
        }
    })
}

/// Whether root started this process: of the machine, or of a container.
pub(crate) fn is_root() -> bool {
    USER.get().map_or_else(|| rustix::process::geteuid().is_root(), |user| matches!(user, User::Root))
}

/// Makes sure that this process may do what building takes.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(crate) fn require_root() -> Result<(), Failure> {
    match become_root() {
        User::Root | User::Mapped(_) => Ok(()),
        User::Unmapped(obstacle) => Err(Failure::environment(format!(
            "building needs root, or a user namespace with subordinate ids: {obstacle}; {}; or run osbc as root. `osbc plan` \
             needs neither",
            obstacle.remedy()
        ))),
    }
}
