//! Monitors of a build: a live view on a terminal or plain lines elsewhere, on standard error; and event files.

mod live;
mod plain;

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressDrawTarget};
use osbc_executor::event::line::JsonLines;
use osbc_executor::event::trace::Trace;
use osbc_executor::event::writer::{Form, WriteError, Writer};
use osbc_executor::event::{Monitor, Tee};
use osbc_ir::Plan;

use crate::exit::Failure;
use crate::output::say;

/// The monitor that fits where standard error goes to, and what it draws on.
pub(crate) fn for_stderr(plan: &Arc<Plan>) -> (Box<dyn Monitor>, Screen) {
    if std::io::stderr().is_terminal() {
        let bars = MultiProgress::new();
        let screen = Screen(Some(bars.clone()));
        (Box::new(live::Live::new(Arc::clone(plan), bars)), screen)
    } else {
        (Box::new(plain::Plain::new(Arc::clone(plan))), Screen::none())
    }
}

/// What the live view draws on; it can be hidden while something else has the terminal.
pub(crate) struct Screen(Option<MultiProgress>);

impl Screen {
    /// No view: there is nothing to hide.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Hides the view until the guard is dropped.
    pub(crate) fn hide(&self) -> Hidden<'_> {
        if let Some(bars) = &self.0 {
            // What cannot be cleared can be written over.
            bars.clear().ok();
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Hidden(self)
    }
}

/// Shows the view again when dropped.
pub(crate) struct Hidden<'a>(&'a Screen);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Some(bars) = &self.0.0 {
            bars.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

/// A file that events are written to, and whether all of them could be.
pub(crate) struct EventFile {
    path: PathBuf,
    error: WriteError,
}

/// Adds files that take the events as JSON lines and as a trace.
pub(crate) fn with_files(
    screen: Box<dyn Monitor>,
    plan: &Arc<Plan>,
    events: Option<&Path>,
    trace: Option<&Path>,
) -> Result<(Tee<'static>, Vec<EventFile>), Failure> {
    let (mut tee, mut files) = (Tee(vec![screen]), Vec::new());
    if let Some(path) = events {
        add(&mut tee, &mut files, plan, path, JsonLines)?;
    }
    if let Some(path) = trace {
        add(&mut tee, &mut files, plan, path, Trace::default())?;
    }
    Ok((tee, files))
}

fn add(
    tee: &mut Tee<'static>,
    files: &mut Vec<EventFile>,
    plan: &Arc<Plan>,
    path: &Path,
    form: impl Form + 'static,
) -> Result<(), Failure> {
    let file = File::create(path).map_err(|source| Failure::Output { path: path.to_owned(), source })?;
    let writer = Writer::new(Arc::clone(plan), file, form);
    files.push(EventFile { path: path.to_owned(), error: writer.error() });
    tee.0.push(Box::new(writer));
    Ok(())
}

/// Warns of files that did not take all events; that is no reason to fail a build that is done.
pub(crate) fn warn_of_lost(files: &[EventFile]) {
    for file in files {
        if let Some(error) = file.error.take() {
            say(&format!("osbc: warning: {} ends too early: {error}", file.path.display()));
        }
    }
}
