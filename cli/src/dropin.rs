//! Drop-in mode: `osbc osbuild …`, or osbc called by the name `osbuild`. The order of checks, and what is printed
//! where, are as in osbuild.

pub(crate) mod arguments;
mod error;
mod monitor;
mod result;
mod serial_schedule;
mod sources;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use osbc_compiler::passes;
use osbc_compiler::{SourceText, describe};
use osbc_engine::{BuildOptions, Exported, OsbuildStore, Request, Session, StoreConfig, builtin, directory};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, Export, Graph, PipelineIndex};
use osbc_module_api::{Library, threads};
use osbc_pytext::fnmatch::Pattern;
use osbc_sandbox::client::shell::{ShellUi, When};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::vm::Programs;
use osbc_store::Transaction;
use osbc_store::fs::copy::Ownership;

use crate::exit::Failure;
use crate::monitor::{Screen, warn_of_lost, with_files};
use crate::output::{print, say};
use crate::signals::listen;
use crate::terminal::Terminal;
use crate::{env, exit, rootless, warnings, wiring};
use arguments::Arguments;
use error::DropInError;
use monitor::{Display, MonitoredBuild, Out, SerialReplay};
use result::Finished;
use serial_schedule::{IdView, SerialSchedule};

/// Does what osbuild would do with the arguments that follow its name.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    // Callers find the process by its name. A kernel that refuses is no reason not to build.
    rustix::thread::set_name(c"osbuild").ok();
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    rootless::become_root();
    run(&arguments)
}

/// Does what osbuild would do with these arguments.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    attempt(arguments).unwrap_or_else(|error| error.print(arguments))
}

/// A manifest and the request.
struct Asked {
    session: Session,
    /// As written, for osbuild's ids at every place.
    written: Arc<Graph>,
    /// With equal stages being one.
    graph: Arc<Graph>,
    exports: Vec<Export>,
    checkpoints: Vec<Checkpoint>,
}

/// A stage whose result is to be kept.
struct Checkpoint {
    id: CompatId,
    node: NodeIndex,
}

fn attempt(arguments: &Arguments) -> Result<ExitCode, DropInError> {
    threads::start_pool().map_err(DropInError::environment)?;
    let asked = understand(arguments)?;
    if arguments.inspect {
        let described = describe::describe(&asked.written, describe::IdScheme::Osbuild);
        return Ok(print((osbc_pytext::json::to_string(&described) + "\n").as_bytes())?);
    }
    if !asked.exports.is_empty() && arguments.output_directory.is_none() {
        return Err(DropInError::Request("Need --output-directory for --export".to_owned()));
    }
    build(arguments, &asked)
}

/// Reads the manifest and finds what is asked of it.
fn understand(arguments: &Arguments) -> Result<Asked, DropInError> {
    let session = wiring::session_with(libraries(&arguments.libdir, env::native_first())?)?;
    let written =
        session.compile_as_written(&SourceText::read(arguments.manifest())?).map_err(DropInError::Manifest)?;
    let graph = Arc::new(passes::share(written.clone()));
    let exports = passes::resolve_exports(&graph, &arguments.exports).map_err(|error| DropInError::exports(&error))?;
    let checkpoints = checkpoints(&written, &graph, &arguments.checkpoints);
    if checkpoints.is_empty() && !arguments.checkpoints.is_empty() {
        return Err(DropInError::Failed("No checkpoints matched provided patterns!".to_owned()));
    }
    Ok(Asked { session, written: Arc::new(written), graph, exports, checkpoints })
}

/// The modules of osbuild's module directory and, behind them, the built-in ones; or the other way round.
///
/// Without the directory there are the built-in ones.
fn libraries(libdir: &Path, native_first: bool) -> Result<Vec<Box<dyn Library>>, Failure> {
    let mut libraries = vec![builtin()];
    if libdir.is_dir() {
        libraries.insert(usize::from(native_first), directory(libdir, env::python_path())?);
    }
    Ok(libraries)
}

/// The stages that the patterns of `--checkpoint` name: by the name of their pipeline, of which they are the last, by
/// their module, or by their id.
fn checkpoints(written: &Graph, graph: &Graph, patterns: &[String]) -> Vec<Checkpoint> {
    let patterns: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
    let named = |name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    for (index, pipeline) in written.manifest.pipelines.iter().enumerate() {
        for (position, node) in written.pipelines[index].stages.iter().enumerate() {
            let Some(stage) = written.stage_node(*node) else { continue };
            let is_last = position + 1 == pipeline.stages.len();
            let wanted = (is_last && named(&pipeline.name))
                || named(&stage.compat.to_string())
                || named(&pipeline.stages[position].module.name);
            if wanted && ids.insert(stage.compat) {
                found.push(Checkpoint { id: stage.compat, node: graph.pipelines[index].stages[position] });
            }
        }
    }
    found
}

fn build(arguments: &Arguments, asked: &Asked) -> Result<ExitCode, DropInError> {
    let name = monitor_name(arguments);
    let store = StoreConfig::Osbuild(OsbuildStore {
        path: arguments.store.clone(),
        limit: arguments.cache_max_size,
        keeps: env::auto_cache(),
        checkpoints: asked.checkpoints.iter().map(|checkpoint| checkpoint.node).collect(),
    });
    let wanted = match asked.exports.as_slice() {
        [] => passes::Request::Sources,
        exports => passes::Request::Exports(exports.to_vec()),
    };
    let planned = asked.session.plan(&asked.graph, &store, &Request::from(wanted).exported())?;
    warnings::of_plan(planned.warnings());
    let plan = Arc::clone(planned.plan());
    let in_vm = in_vm(arguments, &asked.written)?;
    let nodes_in_vm: BTreeSet<_> =
        in_vm.iter().flat_map(|pipeline| &plan.graph.pipelines[pipeline.0].stages).copied().collect();
    if !plan.segments.is_empty() {
        rootless::require_root()
            .and_then(|()| Ok(planned.check_machine(&nodes_in_vm)?))
            .map_err(DropInError::environment)?;
    }
    let ids = IdView { written: &asked.written, plan: &plan };
    let have = planned.lease().present();
    let schedule = SerialSchedule::new(&ids, have);
    let monitored = Arc::new(MonitoredBuild {
        manifest: arguments.manifest().display().to_string(),
        have: have.clone(),
        written: Arc::clone(&asked.written),
        plan: Arc::clone(&plan),
        host: asked.session.host_runner().clone(),
        in_vm: in_vm.clone(),
        schedule,
    });
    if !in_vm.is_empty() && !plan.segments.is_empty() {
        let cannot = |reason| DropInError::Request(format!("--in-vm cannot be done: {reason}"));
        if !rootless::is_root() {
            return Err(cannot("only root can mount the trees of virtual machines; run osbc as root".to_owned()));
        }
        Programs::find().map_err(cannot)?;
    }
    let replay = SerialReplay::new(Arc::clone(&monitored), display(name, arguments.monitor_fd)?);
    let interrupt = Interrupt::new().map_err(DropInError::environment)?;
    listen(&interrupt)?;
    let trace = env::trace();
    let (mut monitor, files) = with_files(Box::new(replay), &plan, None, trace.as_deref())?;
    let terminal = Terminal::new(Screen::none());
    let breaking = arguments.break_at.clone().map(When::Before);
    let usual = wiring::options(arguments.manifest(), jobs(arguments)?, None);
    let options = BuildOptions {
        stage_timeout: arguments.stage_timeout(),
        in_vm: nodes_in_vm,
        shell: breaking.map(|when| (when, &terminal as &dyn ShellUi)),
        ..usual
    };
    let built = planned.run(&options, &mut monitor, &interrupt)?;
    let outcome = &built.outcome;
    warn_of_lost(&files);
    if outcome.interrupted {
        return Err(DropInError::Aborted);
    }
    if let (true, Some(output)) = (outcome.success(), &arguments.output_directory) {
        let ownership = if env::drops_owners() { Ownership::Drop } else { Ownership::Keep };
        for Exported { directory, lost, .. } in built.export_as(output, ownership)? {
            warnings::of_export("osbuild", &directory, &lost);
        }
    }
    let finished = Finished { monitored: &monitored, outcome, transaction: built.transaction() };
    if arguments.json {
        print((osbc_pytext::json::to_string(&finished.document()) + "\n").as_bytes())?;
    } else if !arguments.quiet {
        print(closing(&monitored, built.transaction(), &asked.checkpoints, outcome.success()).as_bytes())?;
    }
    Ok(if outcome.success() { ExitCode::SUCCESS } else { ExitCode::from(exit::BUILD_FAILED) })
}

/// The pipelines whose stages run in a virtual machine. As in osbuild they are named by their names, and a name that
/// none has is no reason not to build.
fn in_vm(arguments: &Arguments, written: &Graph) -> Result<BTreeSet<PipelineIndex>, DropInError> {
    if !arguments.in_vm.is_empty() && arguments.break_at.is_some() {
        return Err(DropInError::Request(
            "--break cannot open a shell in a virtual machine; use only one of --in-vm and --break".to_owned(),
        ));
    }
    let pipelines = &written.manifest.pipelines;
    let mut found = BTreeSet::new();
    for wanted in &arguments.in_vm {
        match pipelines.iter().position(|pipeline| pipeline.name == *wanted) {
            Some(index) => drop(found.insert(PipelineIndex(index))),
            None => {
                let known: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
                say(&format!(
                    "osbuild: warning: --in-vm names `{wanted}`, which is no pipeline; there are {}",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(found)
}

/// How many stages run at the same time: one where shells are asked for, so that nothing else is written meanwhile.
/// `None` if nothing says.
fn jobs(arguments: &Arguments) -> Result<Option<NonZeroUsize>, DropInError> {
    if arguments.break_at.is_some() {
        return Ok(Some(NonZeroUsize::MIN));
    }
    env::jobs().map_err(DropInError::Request)
}

/// The monitor that is asked for, or osbuild's choice.
fn monitor_name(arguments: &Arguments) -> &str {
    match arguments.monitor.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ if arguments.json || arguments.quiet => "NullMonitor",
        _ => "LogMonitor",
    }
}

fn display(name: &str, descriptor: i32) -> Result<Box<dyn Display>, DropInError> {
    let out = Out::new(descriptor).map_err(|error| {
        DropInError::Request(format!("cannot write to the descriptor {descriptor} of --monitor-fd: {error}"))
    })?;
    monitor::display(name, out).ok_or_else(|| {
        DropInError::Request(format!("Unknown monitor: {name}; there are NullMonitor, LogMonitor and JSONSeqMonitor"))
    })
}

/// What is printed for people when a build is over.
fn closing(monitored: &MonitoredBuild, transaction: &Transaction, checkpoints: &[Checkpoint], success: bool) -> String {
    if !success {
        return "Failed\n".to_owned();
    }
    let mut text = "\nPipelines\n".to_owned();
    for (index, pipeline) in monitored.written.manifest.pipelines.iter().enumerate() {
        let id = monitored.ids().id(PipelineIndex(index)).map_or_else(|| "None".to_owned(), |id| id.to_string());
        writeln!(text, "  {:<10}\t{id}", format!("{}:", pipeline.name)).expect("a string grows");
    }
    text.push_str("\nCheckpoints\n");
    for checkpoint in checkpoints {
        let is_there = if transaction.has_checkpoint(checkpoint.id) { "cached" } else { "not cached" };
        writeln!(text, "  {}: {is_there}", checkpoint.id).expect("a string grows");
    }
    text
}
