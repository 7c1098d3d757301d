//! Monitors of a build: a live view on a terminal, plain lines elsewhere. Both write to standard error.

mod live;
mod plain;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use osbc_executor::event::{Event, Monitor};
use osbc_ir::Plan;

/// The monitor that fits where standard error goes to.
pub(crate) fn for_stderr(plan: &Arc<Plan>) -> Box<dyn Monitor> {
    if std::io::stderr().is_terminal() {
        Box::new(live::Live::new(Arc::clone(plan)))
    } else {
        Box::new(plain::Plain::new(Arc::clone(plan)))
    }
}

/// Shows nothing.
pub(crate) struct Silent;

impl Monitor for Silent {
    fn event(&mut self, _: Duration, _: &Event<'_>) {}
}
