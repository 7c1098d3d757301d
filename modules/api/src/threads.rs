//! Threads, on machines and in containers that may have none to give: every start can fail, and says what is in the way.

use std::error::Error as _;
use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread: {0}; a limit on tasks or on memory is too low")]
pub struct NoThread(String);

impl NoThread {
    fn new(error: &io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Starts a thread.
///
/// # Errors
/// The system has none to give.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, NoThread> {
    Builder::new().spawn(work).map_err(|error| NoThread::new(&error))
}

/// Starts a thread that ends within `scope`.
///
/// # Errors
/// The system has none to give.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NoThread> {
    Builder::new().spawn_scoped(scope, work).map_err(|error| NoThread::new(&error))
}

/// Starts the threads that all parallel iterators of this process share, which would panic without them; does nothing
/// if they run.
///
/// To be called before the first of those.
///
/// # Errors
/// The system has too few to give.
pub fn start_pool() -> Result<(), NoThread> {
    static STARTED: OnceLock<Option<String>> = OnceLock::new();
    let problem = STARTED.get_or_init(|| {
        let started = rayon::ThreadPoolBuilder::new().build_global();
        // Without a source it says that they run already.
        started.err().and_then(|error| error.source().map(ToString::to_string))
    });
    problem.as_ref().map_or(Ok(()), |problem| Err(NoThread(problem.clone())))
}
