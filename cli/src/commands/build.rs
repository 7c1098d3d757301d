//! `osbc build`: plans, runs, exports, and says what it did.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Component, Path};
use std::process::ExitCode;
use std::time::Duration;

use osbc_executor::event::{Monitor, Tee};
use osbc_executor::export::check_destination;
use osbc_executor::interrupt::Interrupt;
use osbc_executor::machine::Host;
use osbc_executor::record::{About, ManifestName};
use osbc_executor::runner::LocalRunner;
use osbc_executor::shell::{ShellRunner, When};
use osbc_executor::store::Lease;
use osbc_executor::{Parts, Settings, run as run_plan};
use osbc_ir::{Outcome, Plan, Value, printable};

use crate::args::{BuildArgs, SbomFormat};
use crate::commands::check;
use crate::commands::manual::print;
use crate::exit::{self, Failure, say, show};
use crate::exports::Exports;
use crate::signals::listen;
use crate::summary::{Exported, Summary};
use crate::terminal::Terminal;
use crate::{env, monitor, provenance, requirements, rootless, sbom, wiring};

/// Builds.
pub(crate) fn run(args: &BuildArgs) -> Result<ExitCode, Failure> {
    let prepared = wiring::prepare(&args.manifest, &args.target).map_err(|failure| failure.with_json(args.json))?;
    if let Some(output) = &args.output {
        check_names(&prepared.exports, output)?;
    }
    rootless::require_root()?;
    if let Some(output) = args.output.as_ref().filter(|_| !args.check) {
        check_destination(output, prepared.exports.iter().map(|export| export.name.as_str()))?;
    }
    if args.check {
        return check::run(args, &prepared);
    }
    let manifest = manifest_text(args)?;
    let (plan, lease) = wiring::plan_build(&prepared, &args.target, args.keep.settings(), args.output.is_some())?;
    requirements::check(&plan, &prepared.catalog, &BTreeSet::new())?;
    let plan = std::sync::Arc::new(plan);
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let settings = Settings {
        jobs: args.jobs.unwrap_or_else(processors),
        keep_going: args.keep_going,
        jobserver: env::jobserver(),
        stage_timeout: args.stage_timeout.map(Duration::from_secs),
        in_vm: BTreeSet::new(),
        always_run: None,
        host_runner: prepared.host.clone(),
        environment: env::sources(),
        host_environment: env::host(),
    };
    let name = ManifestName::new(&args.manifest.manifest, &prepared.graph);
    let about = About { manifest: name, arguments: env::arguments() };
    let (shown, screen) = monitor::for_stderr(&plan);
    let shown: Box<dyn Monitor> = if plan.is_empty() { Box::new(monitor::Silent) } else { shown };
    let (mut monitor, files) = monitor::with_files(shown, &plan, args.events.as_deref(), args.trace.as_deref())?;
    let runner = local_runner();
    let terminal = Terminal::new(screen);
    let with_shells = ShellRunner::new(&runner, When::OnFailure, &terminal);
    let build = |monitor: &mut dyn Monitor| -> Result<Outcome, Failure> {
        let parts = Parts {
            runner: if args.shell_on_failure { &with_shells } else { &runner },
            catalog: &prepared.catalog,
            monitor,
            machine: &Host { disk: lease.store().path().to_owned() },
            interrupt: &interrupt,
            settings: &settings,
            about: &about,
        };
        let outcome = run_plan(&plan, &lease, parts)?;
        monitor::warn_of_lost(&files);
        Ok(outcome)
    };
    let (outcome, exported, mut not_exported) = match &args.output {
        Some(output) => {
            let exports = Exports { plan: &plan, lease: &lease, output, interrupt: &interrupt };
            exports.beside(|watcher| build(&mut Tee(vec![Box::new(&mut monitor), Box::new(watcher)])))?
        }
        None => (build(&mut monitor)?, Vec::new(), Vec::new()),
    };
    if let Some(output) = &args.output {
        attest(args, output, &exported, &plan, &lease, manifest.as_deref())?;
    }
    let summary = Summary::new(&plan, &outcome, &exported);
    if args.json {
        print(summary.json().as_bytes())?;
    } else {
        show(&printable::text(&summary.failures()));
        print(summary.table(args.output.is_some()).as_bytes())?;
    }
    let code = exit::of_build(&outcome);
    let last = if code == 0 { not_exported.pop() } else { None };
    for error in &not_exported {
        say(&format!("osbc: {error}"));
    }
    last.map_or(Ok(ExitCode::from(code)), |error| Err(error.into()))
}

/// The manifest's text, where a document about it is wanted.
fn manifest_text(args: &BuildArgs) -> Result<Option<String>, Failure> {
    let path = &args.manifest.manifest;
    if !args.provenance {
        return Ok(None);
    }
    if path == Path::new("-") {
        return Err(Failure::arguments("--provenance names the manifest by its digest; give it as a file"));
    }
    let text = std::fs::read_to_string(path);
    text.map(Some).map_err(|error| Failure::arguments(format!("cannot read {}: {error}", path.display())))
}

/// Writes the documents that are wanted about exported results beside them.
fn attest(
    args: &BuildArgs,
    output: &Path,
    exported: &[Exported],
    plan: &Plan,
    lease: &Lease,
    manifest: Option<&str>,
) -> Result<(), Failure> {
    let write = |name: &str, kind: &str, document: &Value| {
        let path = output.join(format!("{name}.{kind}.json"));
        std::fs::write(&path, format!("{document:#}\n")).map_err(|source| Failure::Output { path, source })
    };
    for Exported { name, path } in exported {
        let Some(export) = plan.exports.iter().find(|export| export.name == *name) else { continue };
        match args.sbom {
            Some(SbomFormat::Spdx) => write(name, "spdx", &sbom::spdx(&plan.graph, lease, export, path)?)?,
            None => {}
        }
        if let Some(manifest) = manifest {
            write(name, "intoto", &provenance::slsa(&plan.graph, export, path, manifest)?)?;
        }
    }
    Ok(())
}

/// Runs stages on this machine.
pub(crate) fn local_runner() -> LocalRunner {
    LocalRunner::new("/proc/self/exe", [env::STAGE_PROCESS.into()], &env::terminal())
}

/// As many stages at a time as there are processors.
pub(crate) fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Every export becomes a folder below the output directory, so its name must be that of one.
fn check_names(exports: &[osbc_ir::Export], output: &Path) -> Result<(), Failure> {
    for export in exports {
        let mut components = Path::new(&export.name).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(Failure::arguments(format!(
                "the pipeline `{}` cannot be exported to {}: its name is not that of a folder; export it by its id",
                export.name,
                output.display()
            )));
        }
    }
    Ok(())
}
