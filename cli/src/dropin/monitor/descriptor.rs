//! A file descriptor by its number, as callers hand one over.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A descriptor of our own for what is open under a number.
///
/// # Errors
/// Nothing is.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    let is_open =
        number >= 0 && std::path::Path::new("/proc/self/fd").join(number.to_string()).symlink_metadata().is_ok();
    if !is_open {
        return Err(rustix::io::Errno::BADF.into());
    }
    #[expect(unsafe_code, reason = "a number is all that a caller can hand over")]
    // SAFETY: it is open, and the borrow ends with this call; nothing in this process closes descriptors that it did
    // not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::duplicate;

    #[test]
    fn only_what_is_open_can_be_had() {
        duplicate(2).expect("standard error is open");
        for number in [-1, 1_000_000] {
            let error = duplicate(number).expect_err("is not open");
            assert_eq!(error.raw_os_error(), Some(9), "{number}");
        }
    }
}
