//! Fetches source items into the store, by the module of their source: a built-in one fetches each by itself, an
//! on-disk one all that are wanted of it at once.

mod on_disk;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Cause, ItemNode, Kind, NodeOutcome, Plan, Resource, Source, SourceItem, Value, redact};
use osbc_module_api::{Catalog, Entry, Error as ModuleError, Module, OnDisk, Provider, SourceContext};
use osbc_sandbox::request::lacked_task;
use osbc_store::{Slot, StoreError};

use crate::build::{Worker, WorkerEvent};

/// How often the progress of an item is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why an item could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Library(#[from] osbc_module_api::LibraryError),
    #[error("there is no source module `{0}`")]
    NoModule(String),
    #[error("`{0}` is no source")]
    NoSource(String),
    #[error("{module}: {reason}")]
    Service { module: String, reason: String },
}

impl FetchError {
    fn cause(&self) -> Cause {
        match self {
            FetchError::Store(error) if error.is_full() => Cause::Exhausted(Resource::Disk),
            FetchError::Store(_) | FetchError::Library(_) => Cause::Environment,
            FetchError::Module(ModuleError::NoThread(_)) => Cause::Exhausted(Resource::Tasks),
            FetchError::Module(error) if lacked_task(error) => Cause::Exhausted(Resource::Tasks),
            FetchError::Module(_) | FetchError::NoModule(_) | FetchError::NoSource(_) | FetchError::Service { .. } => {
                Cause::Module
            }
        }
    }
}

/// The items of a plan in groups that are fetched at once.
pub(crate) fn groups(plan: &Plan, catalog: &Catalog) -> Vec<Vec<NodeIndex>> {
    let mut groups: Vec<Vec<NodeIndex>> = Vec::new();
    let mut of_source: HashMap<&str, usize> = HashMap::new();
    for &node in &plan.fetches {
        let source = plan.graph.item_node(node).map(|item| plan.graph.item(item).0);
        let name = source.map(|source| source.module.name.as_str()).filter(|name| on_disk(catalog, name).is_some());
        match name.map(|name| *of_source.entry(name).or_insert(groups.len())) {
            Some(index) if index < groups.len() => groups[index].push(node),
            _ => groups.push(vec![node]),
        }
    }
    groups
}

/// The on-disk source of that name.
fn on_disk(catalog: &Catalog, name: &str) -> Option<OnDisk> {
    match &catalog.module(Kind::Source, name).ok()??.provider {
        Provider::OnDisk(on_disk) => Some(on_disk.clone()),
        Provider::BuiltIn(_) => None,
    }
}

/// Fetches a group of items as the worker `number`; says whether all of them are there now.
pub(crate) fn run(worker: &Worker<'_>, nodes: &[NodeIndex], number: usize) -> bool {
    let graph = &worker.context.plan.graph;
    let Some((node, item)) = nodes.first().and_then(|node| Some((*node, graph.item_node(*node)?))) else {
        return false;
    };
    match on_disk(worker.context.catalog, &graph.item(item).0.module.name) {
        Some(module) => on_disk::run(worker, &module, nodes, number),
        None => run_one(worker, node, item, number),
    }
}

fn run_one(worker: &Worker<'_>, node: NodeIndex, item: &ItemNode, number: usize) -> bool {
    worker.send(WorkerEvent::FetchStarted { node, worker: number });
    let outcome = match fetch(worker, node, item) {
        Ok(bytes) => NodeOutcome::Fetched { bytes },
        Err(error) => failed(worker, &error.to_string(), error.cause()),
    };
    let success = matches!(outcome, NodeOutcome::Fetched { .. });
    worker.send(WorkerEvent::Finished { node, outcome: Box::new(outcome) });
    success
}

/// An item that could not be fetched. What the module says of it may hold URLs.
fn failed(worker: &Worker<'_>, reason: &str, cause: Cause) -> NodeOutcome {
    // What is ended may say anything.
    let cause = if worker.context.interrupt.is_raised() { Cause::Interrupted } else { cause };
    NodeOutcome::FetchFailed { error: redact::text(reason).into_owned(), cause }
}

fn fetch(worker: &Worker<'_>, node: NodeIndex, item: &ItemNode) -> Result<u64, FetchError> {
    let context = worker.context;
    let (source, item): (&Source, &SourceItem) = context.plan.graph.item(item);
    let name = &source.module.name;
    let module = context.catalog.module(Kind::Source, name)?;
    let module = module.ok_or_else(|| FetchError::NoModule(name.clone()))?;
    let function = entry(&module).ok_or_else(|| FetchError::NoSource(name.clone()))?;
    let interrupted = || context.interrupt.is_raised();
    let download = match context.transaction.download(&item.key, &interrupted)? {
        Slot::There(path) => return Ok(path.symlink_metadata().map_or(0, |metadata| metadata.len())),
        Slot::Fetch(download) => download,
    };
    let last = Mutex::new(None::<Instant>);
    let progress = |done: u64, total: Option<u64>| {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if Some(done) == total || last.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL) {
            *last = Some(Instant::now());
            worker.send(WorkerEvent::FetchProgress { node, done, total });
        }
    };
    let target = download.target();
    let source_context = SourceContext {
        options: &source.options,
        target: &target,
        shared: download.shared()?,
        progress: &progress,
        interrupted: &interrupted,
        environment: &context.settings.environment,
    };
    let fetch = || function(&source_context, &item.key.checksum, &item.description);
    let mut fetched = fetch();
    if fetched.as_ref().is_err_and(ModuleError::is_full) {
        download.clear()?;
        if context.transaction.store().make_some_room() {
            fetched = fetch();
        }
    }
    let error = match fetched {
        Ok(()) => return Ok(download.commit()?),
        Err(ModuleError::Io { act, path, source }) => {
            FetchError::Store(StoreError::io(act, path)(source).needing_about(item.size))
        }
        Err(error) => error.into(),
    };
    if matches!(&error, FetchError::Store(error) if error.is_full()) {
        // It cannot become the item, and others have use for the room.
        download.clear()?;
    }
    Err(error)
}

type Fetch = fn(&SourceContext, &str, &Value) -> Result<(), ModuleError>;

fn entry(module: &Module) -> Option<Fetch> {
    match &module.provider {
        Provider::BuiltIn(definition) => match definition.entry {
            Entry::Source(source) => Some(source.fetch),
            _ => None,
        },
        Provider::OnDisk(_) => None,
    }
}
