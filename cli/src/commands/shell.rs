//! `osbc shell`: a shell where a stage would run, with all that comes before it done.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use osbc_executor::event::{Event, Monitor};
use osbc_executor::interrupt::Interrupt;
use osbc_executor::machine::Host;
use osbc_executor::record::{About, ManifestName};
use osbc_executor::shell::{ShellRunner, When};
use osbc_executor::{Parts, Settings, run as run_plan};
use osbc_ir::Export;
use osbc_ir::graph::NodeIndex;
use osbc_ir::printable;

use crate::args::{ShellArgs, TargetArgs};
use crate::commands::build::{local_runner, processors};
use crate::exit::{self, Failure, show};
use crate::signals::listen;
use crate::summary::Summary;
use crate::terminal::Terminal;
use crate::{builds, env, monitor, requirements, rootless, wiring};

/// Opens it; gives its exit code.
pub(crate) fn run(args: &ShellArgs) -> Result<ExitCode, Failure> {
    if args.manifest.manifest == Path::new("-") {
        return Err(Failure::arguments("standard input is the shell's; name the manifest by a file"));
    }
    let target = TargetArgs { exports: Vec::new(), store: args.store.clone() };
    let prepared = wiring::prepare(&args.manifest, &target)?;
    let (pipeline, node) = builds::stage_of(&prepared.graph, &args.stage)?;
    rootless::require_root()?;
    let export = Export { name: args.stage.clone(), pipeline, node: Some(node) };
    let (plan, lease) = wiring::plan_stage(&prepared, export, args.store.as_deref())?;
    requirements::check(&plan, &prepared.catalog, &BTreeSet::new())?;
    let plan = Arc::new(plan);
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let settings = Settings {
        jobs: args.jobs.unwrap_or_else(processors),
        keep_going: false,
        jobserver: env::jobserver(),
        stage_timeout: None,
        in_vm: BTreeSet::new(),
        always_run: Some(node),
        host_runner: prepared.host.clone(),
        environment: env::sources(),
        host_environment: env::host(),
    };
    let manifest = ManifestName::new(&args.manifest.manifest, &prepared.graph);
    let (shown, screen) = monitor::for_stderr(&plan);
    let terminal = Terminal::new(screen);
    let runner = local_runner();
    let stage = plan.graph.stage_node(node).expect("only stages have names");
    let with_shell = ShellRunner::new(&runner, When::Instead(stage.compat), &terminal);
    let outcome = run_plan(
        &plan,
        &lease,
        Parts {
            runner: &with_shell,
            catalog: &prepared.catalog,
            monitor: &mut Before { node, shown },
            machine: &Host { disk: lease.store().path().to_owned() },
            interrupt: &interrupt,
            settings: &settings,
            about: &About { manifest, arguments: env::arguments() },
        },
    )?;
    if let Some(code) = terminal.exit_code() {
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
    }
    show(&printable::text(&Summary::new(&plan, &outcome, &[]).failures()));
    Ok(ExitCode::from(exit::of_build(&outcome)))
}

/// Shows what comes before a stage, and not that a shell in its place counts as a failure.
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
