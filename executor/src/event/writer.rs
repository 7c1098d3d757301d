//! Writing events down as they happen, in one form or another.

use std::io::{self, Write};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use osbc_ir::Plan;

use super::line::{EventLine, lines};
use super::{Event, Monitor};

/// How lines look where they are written to.
pub trait Form {
    /// Adds a line.
    ///
    /// # Errors
    /// It has no such form.
    fn put(&mut self, line: &EventLine, out: &mut Vec<u8>) -> io::Result<()>;
}

/// Why not all could be written, for whoever gave the writer away to a build.
#[derive(Debug, Clone, Default)]
pub struct WriteError(Arc<Mutex<Option<io::Error>>>);

impl WriteError {
    /// The error, if there was one; it is given once.
    pub fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes every event of a build. After an error it writes nothing more.
pub struct Writer<P, W, F> {
    plan: P,
    to: W,
    form: F,
    error: WriteError,
    failed: bool,
}

impl<P: Deref<Target = Plan>, W: Write, F: Form> Writer<P, W, F> {
    /// Writes the events of a build by this plan.
    pub fn new(plan: P, to: W, form: F) -> Self {
        Self { plan, to, form, error: WriteError::default(), failed: false }
    }

    /// Where an error will be.
    pub fn error(&self) -> WriteError {
        self.error.clone()
    }

    fn write(&mut self, at: Duration, event: &Event<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        for line in lines(&self.plan, at, event) {
            self.form.put(&line, &mut out)?;
        }
        // Each event by one write, so that who follows the file sees whole lines.
        self.to.write_all(&out)?;
        self.to.flush()
    }
}

impl<P: Deref<Target = Plan>, W: Write, F: Form> Monitor for Writer<P, W, F> {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        if self.failed {
            return;
        }
        if let Err(error) = self.write(at, event) {
            self.failed = true;
            *self.error.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}
