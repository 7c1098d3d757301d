//! Writes to standard output and standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use osbc_ir::{printable, redact};

/// Standard output takes nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot write standard output: {0}")]
pub(crate) struct StdoutError(#[from] io::Error);

/// Writes a string to standard output, without what could control a terminal; a reader that has gone away is no failure.
///
/// # Errors
/// Standard output takes nothing, for example since its file system is full.
pub(crate) fn print(text: &[u8]) -> Result<ExitCode, StdoutError> {
    print_as_is(printable::text(&String::from_utf8_lossy(text)).as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_as_is(text: &[u8]) -> Result<ExitCode, StdoutError> {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a line for people to standard error, without secrets of URLs and without what could control a terminal.
pub(crate) fn say(line: &str) {
    show(&format!("{}\n", printable::text(&redact::text(line))));
}

/// Writes a string for people to standard error as it is. That may be full or gone: then nobody is left to read it.
pub(crate) fn show(text: &str) {
    write!(anstream::stderr().lock(), "{text}").ok();
}
