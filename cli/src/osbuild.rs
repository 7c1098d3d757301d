//! osbc in osbuild's place: `osbc osbuild …`, or osbc called by the name `osbuild`. The order of what is checked and what
//! is printed where are osbuild's.

pub(crate) mod arguments;
mod course;
mod monitor;
mod refusal;
mod result;
pub(crate) mod size;
mod sources;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use osbc_compiler::describe;
use osbc_compiler::passes::{self, Request};
use osbc_executor::copy::Ownership;
use osbc_executor::export::{export, move_out};
use osbc_executor::interrupt::Interrupt;
use osbc_executor::machine::Host;
use osbc_executor::record::{About, ManifestName};
use osbc_executor::runner::StageRunner;
use osbc_executor::shell::{ShellRunner, When};
use osbc_executor::store::osbuild::Cache;
use osbc_executor::store::{Lease, Store};
use osbc_executor::vm::Programs;
use osbc_executor::{Parts, Settings, run as run_plan};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, Export, Graph, PipelineIndex, Runner};
use osbc_module_api::{Catalog, threads};
use osbc_pytext::fnmatch::Pattern;

use crate::commands::build::{local_runner, processors};
use crate::commands::manual::print;
use crate::monitor::{Screen, warn_of_lost, with_files};
use crate::signals::listen;
use crate::terminal::Terminal;
use crate::{env, exit, requirements, rootless, wiring};
use arguments::Arguments;
use course::{Course, Names};
use monitor::{Display, Narrator, Out, Script};
use refusal::Refusal;
use result::Finished;

/// The name of the program that this stands in for, which is also that of its process.
pub(crate) const NAME: &str = "osbuild";

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
    attempt(arguments).unwrap_or_else(|refusal| refusal.tell(arguments))
}

/// A manifest and what is asked of it.
struct Asked {
    catalog: Catalog,
    host: Runner,
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

fn attempt(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    threads::start_pool().map_err(Refusal::environment)?;
    let asked = understand(arguments)?;
    if arguments.inspect {
        let described = describe::describe(&asked.written, describe::IdScheme::Osbuild);
        return Ok(print((osbc_pytext::json::to_string(&described) + "\n").as_bytes())?);
    }
    if !asked.exports.is_empty() && arguments.output_directory.is_none() {
        return Err(Refusal::Request("Need --output-directory for --export".to_owned()));
    }
    build(arguments, asked)
}

/// Reads the manifest and finds what is asked of it.
fn understand(arguments: &Arguments) -> Result<Asked, Refusal> {
    let catalog = wiring::catalog_for_osbuild(&arguments.libdir, env::native_first())?;
    let (catalog, written, host) = wiring::compile_with(arguments.manifest(), catalog)?;
    let graph = Arc::new(passes::share(written.clone()));
    let exports = passes::resolve_exports(&graph, &arguments.exports).map_err(|error| Refusal::exports(&error))?;
    let checkpoints = checkpoints(&written, &graph, &arguments.checkpoints);
    if checkpoints.is_empty() && !arguments.checkpoints.is_empty() {
        return Err(Refusal::Failed("No checkpoints matched provided patterns!".to_owned()));
    }
    Ok(Asked { catalog, host, written: Arc::new(written), graph, exports, checkpoints })
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

fn build(arguments: &Arguments, asked: Asked) -> Result<ExitCode, Refusal> {
    let name = monitor_name(arguments);
    let cache = Cache::open(&arguments.store, arguments.cache_max_size)?;
    let store = Store::open_within(&cache, env::auto_cache())?;
    let request = if asked.exports.is_empty() { Request::Sources } else { Request::Exports(asked.exports.clone()) };
    let mut lease = store.lease_asked(&asked.graph, |has| passes::ask(&asked.graph, &request, has))?;
    let exported = asked.exports.iter().filter_map(|export| export.node);
    let kept = asked.checkpoints.iter().map(|checkpoint| checkpoint.node);
    lease.use_checkpoints(cache, &asked.graph, exported, kept)?;
    let plan = Arc::new(wiring::plan_with(&asked.graph, request, lease.present(), Some(&store))?);
    if wiring::tell_damages(&lease.look_over(&plan, true, &wiring::check_item)?) {
        drop(lease);
        return build(arguments, asked);
    }
    let in_vm = in_vm(arguments, &asked.written)?;
    let nodes_in_vm: BTreeSet<_> =
        in_vm.iter().flat_map(|pipeline| &plan.graph.pipelines[pipeline.0].stages).copied().collect();
    if !plan.segments.is_empty() {
        rootless::require_root()
            .and_then(|()| requirements::check(&plan, &asked.catalog, &nodes_in_vm))
            .map_err(Refusal::environment)?;
    }
    let names = Names { written: &asked.written, plan: &plan };
    let course = Course::new(&names, lease.present());
    let script = Arc::new(Script {
        manifest: arguments.manifest().display().to_string(),
        have: lease.present().clone(),
        written: Arc::clone(&asked.written),
        plan: Arc::clone(&plan),
        host: asked.host.clone(),
        in_vm: in_vm.clone(),
        course,
    });
    if !in_vm.is_empty() && !plan.segments.is_empty() {
        let cannot = |reason| Refusal::Request(format!("--in-vm cannot be done: {reason}"));
        if !rootless::is_root() {
            return Err(cannot("the trees of virtual machines are mounted by root alone; run osbc as root".to_owned()));
        }
        Programs::find().map_err(cannot)?;
    }
    let narrator = Narrator::new(Arc::clone(&script), display(name, arguments.monitor_fd)?);
    let interrupt = Interrupt::new().map_err(Refusal::environment)?;
    listen(&interrupt)?;
    let trace = env::trace();
    let (mut monitor, files) = with_files(Box::new(narrator), &plan, None, trace.as_deref())?;
    let about = About { manifest: ManifestName::new(arguments.manifest(), &asked.graph), arguments: env::arguments() };
    let settings = Settings {
        jobs: jobs(arguments)?,
        keep_going: false,
        jobserver: env::jobserver(),
        stage_timeout: arguments.stage_timeout(),
        in_vm: nodes_in_vm,
        always_run: None,
        host_runner: asked.host.clone(),
        environment: env::sources(),
        host_environment: env::host(),
    };
    let runner = local_runner();
    let terminal = Terminal::new(Screen::none());
    let breaking = arguments.break_at.clone().map(|stage| ShellRunner::new(&runner, When::Before(stage), &terminal));
    let parts = Parts {
        runner: breaking.as_ref().map_or(&runner as &dyn StageRunner, |breaking| breaking),
        catalog: &asked.catalog,
        monitor: &mut monitor,
        machine: &Host { disk: store.path().to_owned() },
        interrupt: &interrupt,
        settings: &settings,
        about: &about,
    };
    let outcome = run_plan(&plan, &lease, parts)?;
    warn_of_lost(&files);
    if outcome.interrupted {
        return Err(Refusal::Aborted);
    }
    if outcome.success() {
        lease.complete_checkpoints(&plan.graph)?;
    }
    if let (true, Some(output)) = (outcome.success(), &arguments.output_directory) {
        export_all(&asked.exports, &script, &lease, output)?;
    }
    let finished = Finished { script: &script, outcome: &outcome, lease: &lease };
    if arguments.json {
        print((osbc_pytext::json::to_string(&finished.document()) + "\n").as_bytes())?;
    } else if !arguments.quiet {
        print(closing(&script, &lease, &asked.checkpoints, outcome.success()).as_bytes())?;
    }
    Ok(if outcome.success() { ExitCode::SUCCESS } else { ExitCode::from(exit::BUILD_FAILED) })
}

/// The pipelines whose stages run in a virtual machine. As in osbuild they are named by their names, and a name that none has
/// is no reason not to build.
fn in_vm(arguments: &Arguments, written: &Graph) -> Result<BTreeSet<PipelineIndex>, Refusal> {
    if !arguments.in_vm.is_empty() && arguments.break_at.is_some() {
        return Err(Refusal::Request(
            "--break opens no shell in a virtual machine; leave out --in-vm or it".to_owned(),
        ));
    }
    let pipelines = &written.manifest.pipelines;
    let mut found = BTreeSet::new();
    for wanted in &arguments.in_vm {
        match pipelines.iter().position(|pipeline| pipeline.name == *wanted) {
            Some(index) => drop(found.insert(PipelineIndex(index))),
            None => {
                let known: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
                exit::say(&format!(
                    "osbuild: warning: --in-vm names `{wanted}`, which is no pipeline; there are {}",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(found)
}

/// How many stages run at the same time: one where shells are asked for, so that nothing else is written meanwhile.
fn jobs(arguments: &Arguments) -> Result<NonZeroUsize, Refusal> {
    if arguments.break_at.is_some() {
        return Ok(NonZeroUsize::MIN);
    }
    Ok(env::jobs().map_err(Refusal::Request)?.unwrap_or_else(processors))
}

/// The monitor that is asked for, or osbuild's choice.
fn monitor_name(arguments: &Arguments) -> &str {
    match arguments.monitor.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ if arguments.json || arguments.quiet => "NullMonitor",
        _ => "LogMonitor",
    }
}

fn display(name: &str, descriptor: i32) -> Result<Box<dyn Display>, Refusal> {
    let out = Out::new(descriptor).map_err(|error| {
        Refusal::Request(format!("cannot write to the descriptor {descriptor} of --monitor-fd: {error}"))
    })?;
    monitor::display(name, out).ok_or_else(|| {
        Refusal::Request(format!("Unknown monitor: {name}; there are NullMonitor, LogMonitor and JSONSeqMonitor"))
    })
}

/// Brings every result that was asked for to `<output>/<as it was named>/`: moved there if it would end with the build
/// anyhow.
fn export_all(exports: &[Export], script: &Script, lease: &Lease, output: &Path) -> Result<(), Refusal> {
    let ownership = if env::drops_owners() { Ownership::Drop } else { Ownership::Keep };
    for (index, wanted) in exports.iter().enumerate() {
        let id = wanted.node.and_then(|node| script.plan.graph.stage_node(node)).map(|stage| stage.id);
        let to = output.join(&wanted.name);
        let is_last = exports[index + 1..].iter().all(|other| other.node != wanted.node);
        if let (Some(id), Ownership::Keep, true) = (id, ownership, is_last)
            && move_out(lease, id, &to)?
        {
            continue;
        }
        for lost in &export(lease, id, &to, ownership)?.lost {
            exit::say(&format!(
                "osbuild: warning: the file system of {} does not take the attribute {} of {}",
                to.display(),
                lost.attribute,
                lost.path.display()
            ));
        }
    }
    Ok(())
}

/// What is printed for people when a build is over.
fn closing(script: &Script, lease: &Lease, checkpoints: &[Checkpoint], success: bool) -> String {
    if !success {
        return "Failed\n".to_owned();
    }
    let mut text = "\nPipelines\n".to_owned();
    for (index, pipeline) in script.written.manifest.pipelines.iter().enumerate() {
        let id = script.names().id(PipelineIndex(index)).map_or_else(|| "None".to_owned(), |id| id.to_string());
        writeln!(text, "  {:<10}\t{id}", format!("{}:", pipeline.name)).expect("a string grows");
    }
    text.push_str("\nCheckpoints\n");
    for checkpoint in checkpoints {
        let is_there = if lease.has_checkpoint(checkpoint.id) { "cached" } else { "not cached" };
        writeln!(text, "  {}: {is_there}", checkpoint.id).expect("a string grows");
    }
    text
}
