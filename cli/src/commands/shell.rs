//! `osbc shell`: a shell where a stage would run, after all stages before it have run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use osbc_engine::{BuildOptions, Request};
use osbc_executor::event::{Event, Monitor};
use osbc_ir::Export;
use osbc_ir::graph::NodeIndex;
use osbc_ir::printable;
use osbc_sandbox::client::shell::When;
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::StoreSettings;

use crate::args::ShellArgs;
use crate::exit::{self, Failure};
use crate::output::show;
use crate::signals::listen;
use crate::summary::Summary;
use crate::terminal::Terminal;
use crate::{builds, monitor, rootless, warnings, wiring};

/// Opens it; gives its exit code.
pub(crate) fn run(args: &ShellArgs) -> Result<ExitCode, Failure> {
    if args.manifest.manifest == Path::new("-") {
        return Err(Failure::arguments("standard input is the shell's; name the manifest by a file"));
    }
    let prepared = wiring::prepare(&args.manifest, &[])?;
    let (pipeline, node) = builds::stage_of(&prepared.graph, &args.stage)?;
    rootless::require_root()?;
    let export = Export { name: args.stage.clone(), pipeline, node: Some(node) };
    let store = wiring::store(args.store.as_deref(), StoreSettings::default())?;
    let planned = prepared.session.plan(&prepared.graph, &store, &Request::stage(export))?;
    warnings::of_plan(planned.warnings());
    planned.check_machine(&BTreeSet::new())?;
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let (shown, screen) = monitor::for_stderr(planned.plan());
    let terminal = Terminal::new(screen);
    let stage = prepared.graph.stage_node(node).expect("only stages have names");
    let options = BuildOptions {
        shell: Some((When::Instead(stage.compat), &terminal)),
        ..wiring::options(&args.manifest.manifest, args.jobs, None)
    };
    let built = planned.run(&options, &mut Before { node, shown }, &interrupt)?;
    if let Some(code) = terminal.exit_code() {
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
    }
    show(&printable::text(&Summary::new(built.plan(), &built.outcome, &[]).failures()));
    Ok(ExitCode::from(exit::of_build(&built.outcome)))
}

/// Shows the stages before the shell, and hides that the shell in place of a stage counts as a failure.
struct Before {
    node: NodeIndex,
    shown: Box<dyn Monitor>,
}

impl Monitor for Before {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        match event {
            Event::StageStarted { node, .. } | Event::Finished { node, .. } if *node == self.node => {}
            event => self.shown.event(at, event),
        }
    }
}
