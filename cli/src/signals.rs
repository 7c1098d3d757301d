//! Signals that end a command.

use std::time::Duration;

use osbc_module_api::threads;
use osbc_sandbox::interrupt::Interrupt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Failure};
use crate::output::say;

/// How long a command may take to shut down: services unmount and write back meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Raises the interrupt at the first SIGINT or SIGTERM.
///
/// At the second one this process ends at once. It also does so if it cannot shut down in time, for example because a
/// file system of a server hangs. All processes that it started end with it.
///
/// # Errors
/// The handlers or their threads cannot be set up.
pub(crate) fn listen(interrupt: &Interrupt) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::environment)?;
    // Started before it is needed: then there may be none to be had.
    let (first, late) = crossbeam_channel::bounded::<()>(1);
    threads::spawn(move || {
        if late.recv().is_ok() {
            std::thread::sleep(TIMEOUT);
            say(&format!(
                "osbc: something still hangs {} s after the interrupt and was left behind",
                TIMEOUT.as_secs()
            ));
            end();
        }
    })?;
    let interrupt = interrupt.clone();
    threads::spawn(move || {
        for _ in signals.forever() {
            if interrupt.is_raised() {
                end();
            }
            interrupt.raise();
            // The other end waits for this one alone.
            first.send(()).ok();
        }
    })?;
    Ok(())
}

fn end() -> ! {
    std::process::exit(i32::from(exit::INTERRUPTED))
}
