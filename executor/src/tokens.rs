//! The tokens of `make -j`: under a jobserver, a stage runs with a token that make gave, or with the one that osbc has
//! by being run at all.
//!
//! Without a jobserver there is nothing to wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jobserver::{Acquired, Client, HelperThread};

use osbc_sandbox::interrupt::Interrupt;

/// How soon an interrupt is noticed while waiting.
const INTERRUPT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// All tokens of this process.
pub(crate) struct Tokens {
    shared: Arc<Shared>,
    helper: HelperThread,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Tokens that nobody uses; none stands for the one that needs not be given back.
    free: Vec<Option<Acquired>>,
    waiting: usize,
}

/// The right to run one stage.
pub(crate) struct Token<'t> {
    tokens: &'t Tokens,
    /// None only while it is being dropped.
    held: Option<Option<Acquired>>,
}

impl Tokens {
    /// The tokens of a jobserver's client.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn new(client: Client) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().free.push(None);
        let receiver = Arc::clone(&shared);
        let helper = client.into_helper_thread(move |acquired| {
            // Without an answer from make the own token has to do.
            if let Ok(acquired) = acquired {
                receiver.give(Some(acquired));
            }
        })?;
        Ok(Self { shared, helper })
    }

    /// Waits for a token; `None` if the build is to end first.
    pub(crate) fn take(&self, interrupt: &Interrupt) -> Option<Token<'_>> {
        let mut state = self.shared.lock();
        let mut asked = false;
        loop {
            if interrupt.is_raised() {
                state.waiting -= usize::from(asked);
                return None;
            }
            if let Some(held) = state.free.pop() {
                state.waiting -= usize::from(asked);
                return Some(Token { tokens: self, held: Some(held) });
            }
            if !asked {
                asked = true;
                state.waiting += 1;
                self.helper.request_token();
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, INTERRUPT_POLL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token in: for who waits for one, or back to make.
    fn give(&self, token: Option<Acquired>) {
        let mut state = self.lock();
        if token.is_none() || state.free.len() < state.waiting {
            state.free.push(token);
            self.changed.notify_one();
        }
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.held.take() {
            self.tokens.shared.give(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_run_than_there_are_tokens_and_all_are_given_back() {
        let make = Client::new(2).expect("a pipe");
        let tokens = Tokens::new(make.clone()).expect("a thread");
        let interrupt = Interrupt::new().expect("an eventfd");
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let token = tokens.take(&interrupt).expect("nobody interrupts");
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(token);
                    }
                });
            }
        });
        // Two of make's and our own.
        assert!((1..=3).contains(&most.into_inner()));
        drop(tokens);
        assert_eq!(make.available().expect("a pipe"), 2, "every token came back");
    }

    #[test]
    fn an_interrupt_ends_the_waiting() {
        let tokens = Tokens::new(Client::new(0).expect("a pipe")).expect("a thread");
        let interrupt = Interrupt::new().expect("an eventfd");
        let own = tokens.take(&interrupt).expect("our own");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| tokens.take(&interrupt).is_none());
            interrupt.raise();
            assert!(waiting.join().expect("ends"));
        });
        drop(own);
    }
}
