//! The user's wish to end a build: a flag to ask and a descriptor to wait on. Knows no signals; whoever handles them
//! calls [`Interrupt::raise`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::EventfdFlags;

/// A handle on one wish; clones share it. Once raised it stays raised.
#[derive(Debug, Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    raised: AtomicBool,
    /// Never read from, so that it stays readable for everybody who polls it.
    event: OwnedFd,
}

impl Interrupt {
    /// A wish that nobody has raised.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new(Shared { raised: AtomicBool::new(false), event }) })
    }

    /// Ends the build: nothing more is started, what runs is ended. May be called from a signal's thread, any number
    /// of times.
    pub fn raise(&self) {
        self.shared.raised.store(true, Ordering::SeqCst);
        // The only failure is a counter at its limit, and then it is readable already.
        rustix::io::write(&self.shared.event, &1u64.to_ne_bytes()).ok();
    }

    /// Whether the build is to end.
    pub fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::SeqCst)
    }

    /// A descriptor that becomes and stays readable when the build is to end; for polling only.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::*;

    #[test]
    fn a_raised_interrupt_stays_raised_for_every_clone() {
        let interrupt = Interrupt::new().expect("an eventfd");
        let other = interrupt.clone();
        assert!(!other.is_raised());
        interrupt.raise();
        interrupt.raise();
        for _ in 0..2 {
            assert!(other.is_raised());
            let mut polled = [PollFd::new(&other.shared.event, PollFlags::IN)];
            let ready = rustix::event::poll(&mut polled, None).expect("polls");
            assert_eq!(ready, 1);
        }
    }
}
