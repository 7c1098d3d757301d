//! `osbc build`: plans, runs, exports, and prints a summary.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use osbc_engine::{BuildOptions, Built, Exported, Silent, check_output};
use osbc_executor::event::Monitor;
use osbc_ir::{Value, printable};
use osbc_sandbox::client::shell::{ShellUi, When};
use osbc_sandbox::interrupt::Interrupt;

use crate::args::{BuildArgs, SbomFormat};
use crate::commands::check;
use crate::exit::{self, Failure};
use crate::output::{print, say, show};
use crate::signals::listen;
use crate::summary::Summary;
use crate::terminal::Terminal;
use crate::{monitor, rootless, warnings, wiring};

/// Builds.
pub(crate) fn run(args: &BuildArgs) -> Result<ExitCode, Failure> {
    let prepared =
        wiring::prepare(&args.manifest, &args.target.exports).map_err(|failure| failure.with_json(args.json))?;
    rootless::require_root()?;
    if let Some(output) = args.output.as_ref().filter(|_| !args.check) {
        check_output(&prepared.exports, output)?;
    }
    if args.check {
        return check::run(args, &prepared);
    }
    let manifest = manifest_text(args)?;
    let request = prepared.request();
    let request = if args.output.is_some() { request.exported() } else { request };
    let store = wiring::store(args.target.store.as_deref(), args.keep.settings())?;
    let planned = prepared.session.plan(&prepared.graph, &store, &request)?;
    warnings::of_plan(planned.warnings());
    planned.check_machine(&BTreeSet::new())?;
    let plan = Arc::clone(planned.plan());
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let (shown, screen) = monitor::for_stderr(&plan);
    let shown: Box<dyn Monitor> = if plan.is_empty() { Box::new(Silent) } else { shown };
    let (mut monitor, files) = monitor::with_files(shown, &plan, args.events.as_deref(), args.trace.as_deref())?;
    let terminal = Terminal::new(screen);
    let options = BuildOptions {
        keep_going: args.keep_going,
        shell: args.shell_on_failure.then_some((When::OnFailure, &terminal as &dyn ShellUi)),
        output: args.output.as_deref(),
        ..wiring::options(&args.manifest.manifest, args.jobs, args.stage_timeout)
    };
    let mut built = planned.run(&options, &mut monitor, &interrupt)?;
    monitor::warn_of_lost(&files);
    for Exported { directory, lost, .. } in &built.exported {
        warnings::of_export("osbc", directory, lost);
    }
    if let Some(output) = &args.output {
        attest(args, output, &built, manifest.as_deref())?;
    }
    let summary = Summary::new(&plan, &built.outcome, &built.exported);
    if args.json {
        print(summary.json().as_bytes())?;
    } else {
        show(&printable::text(&summary.failures()));
        print(summary.table(args.output.is_some()).as_bytes())?;
    }
    let code = exit::of_build(&built.outcome);
    let last = if code == 0 { built.not_exported.pop() } else { None };
    for error in &built.not_exported {
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
fn attest(args: &BuildArgs, output: &Path, built: &Built, manifest: Option<&str>) -> Result<(), Failure> {
    let write = |name: &str, kind: &str, document: &Value| {
        let path = output.join(format!("{name}.{kind}.json"));
        std::fs::write(&path, format!("{document:#}\n")).map_err(|source| Failure::Output { path, source })
    };
    for exported in &built.exported {
        let name = &exported.export.name;
        match args.sbom {
            Some(SbomFormat::Spdx) => write(name, "spdx", &built.spdx(exported)?)?,
            None => {}
        }
        if let Some(manifest) = manifest {
            write(name, "intoto", &built.slsa(exported, manifest)?)?;
        }
    }
    Ok(())
}
