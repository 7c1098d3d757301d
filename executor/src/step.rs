//! One stage: its request from the graph and the lease, its run, its result. The only place that makes a
//! [`StageRequest`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{
    Cause, Edge, Input, ItemKey, Kind, ModuleRef, PipelineIndex, Reference, Resource, Stage, StageResult, Target,
    redact,
};
use osbc_module_api::{Catalog, LibraryError, Provider};
use osbc_sandbox::client::traceback;
use osbc_sandbox::client::{StageIo, Transcript};
use osbc_sandbox::request::{
    DeviceRequest, HostRequest, InputRequest, ModuleRequest, MountRequest, ReferenceFrom, ReferenceRequest,
    StageFailure, StageReply, StageRequest,
};
use osbc_store::TreeStack;
use osbc_store::fs::delete::remove_tree;
use osbc_store::{StoreError, Work};

use crate::build::{Context, Worker, WorkerEvent};

/// What programs say of a disk that is full (`ENOSPC`).
const NO_SPACE: &str = "No space left on device";

/// Why a stage could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// The store got in the way.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A module cannot be described.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A module is not there any more.
    #[error("there is no {kind} module `{name}`")]
    NoModule {
        /// Its kind.
        kind: osbc_ir::Kind,
        /// Its name.
        name: String,
    },
    /// Something that the stage needs is not under the lease: the plan was not made with it.
    #[error("the store does not have {what}, which the plan counts on")]
    Missing {
        /// What.
        what: String,
    },
    /// A runner failed.
    #[error("{0}")]
    Preparation(StageFailure),
    /// A partition's number cannot be one.
    #[error("the mount `{mount}` names the partition {number}; partitions are counted from 1 to {}", u32::MAX)]
    Partition {
        /// The mount's name.
        mount: String,
        /// As the manifest says.
        number: String,
    },
}

/// Runs a stage on the tree of its segment. The caller adds its duration. `None` if the stage has to run again, on a tree
/// that is a plain directory.
pub(crate) fn run(worker: &Worker<'_>, node: NodeIndex, work: &Work<'_>) -> Option<StageResult> {
    let context = worker.context;
    let (pipeline, stage) = context.stage(node);
    let request = match request(context, node, work) {
        Ok(request) => request,
        Err(error) => {
            let failure = match error {
                PrepareError::Preparation(failure) => failure,
                PrepareError::Store(error) if error.is_full() => {
                    StageFailure::Exhausted(Resource::Disk, error.to_string())
                }
                error => StageFailure::Environment(error.to_string()),
            };
            return Some(result(StageReply::failed(classify(failure, "", node, work, context))));
        }
    };
    let log = RefCell::new(context.logs.stage(&pipeline.name, &stage.module.name));
    if let Some(reason) = work.why_plain() {
        log.borrow_mut().write(&format!("osbc: the tree is a plain directory, and not a layer: {reason}\n"));
    }
    let transcript = RefCell::new(Transcript::default());
    let service_output = |text: &str| {
        log.borrow_mut().write(text);
        worker.send(WorkerEvent::StageOutput { node, text: text.to_owned() });
    };
    let output = |text: &str| {
        transcript.borrow_mut().push(text);
        service_output(text);
    };
    let io = StageIo { output: &output, service_output: &service_output, interrupt: context.interrupt };
    let mut reply = context.runner.run(&request, &io);
    if reply.failure == Some(StageFailure::NeedsPlainTree) && !work.is_plain() {
        service_output("osbc: the stage makes a device that overlayfs refuses; it runs again on a plain directory\n");
        return None;
    }
    let exit_status = match reply.failure {
        Some(StageFailure::Exited(status)) => Some(status),
        _ => None,
    };
    let hint = reply.hint.take();
    if hint.is_none() {
        let said = transcript.borrow().text();
        reply.failure = reply.failure.map(|failure| classify(failure, &said, node, work, context));
    }
    // What cannot be removed now goes with the segment's work.
    remove_tree(&request.scratch).ok();
    let log = log.borrow().path().map(ToOwned::to_owned);
    let output = transcript.borrow().text();
    let mut result = StageResult { log, ..result(reply) };
    if exit_status.is_some() && result.cause == Some(Cause::Module) {
        result.exit_status = exit_status;
        result.error = traceback::last_line(&output).map(str::to_owned).or(result.error);
    }
    if let (Some(error), Some(hint)) = (&mut result.error, &hint) {
        error.push_str(hint);
    }
    Some(StageResult { output, ..result })
}

/// Returns whether the module of a stage needs a tree that is a plain directory.
pub(crate) fn needs_plain_tree(context: &Context<'_>, node: NodeIndex) -> bool {
    let (_, stage) = context.stage(node);
    let found = context.catalog.module(stage.module.kind, &stage.module.name);
    // Without one the stage fails anyway.
    matches!(found, Ok(Some(module)) if module.plain_tree(&stage.options))
}

/// Returns the failure of a stage as that of an exhausted machine if what the machine has left says so: what a stage
/// says itself is mostly that it was killed, or an input/output error. `said` is its output.
fn classify(
    failure: StageFailure,
    said: &str,
    node: NodeIndex,
    work: &Work<'_>,
    context: &Context<'_>,
) -> StageFailure {
    match failure.cause() {
        Cause::Module | Cause::Environment | Cause::Exhausted(Resource::Disk) => {}
        Cause::Exhausted(_) | Cause::TimedOut | Cause::Interrupted => return failure,
    }
    let exhausted = |resource, fact: &str| StageFailure::Exhausted(resource, format!("{failure}{fact}"));
    if let Some(fact) = context.transaction.store().full(|| work.written(), context.known_bytes(node)) {
        exhausted(Resource::Disk, &fact)
    } else if failure.cause() == Cause::Exhausted(Resource::Disk) {
        failure
    } else if said.contains(NO_SPACE)
        && let Some(fact) = context.transaction.store().perhaps_full()
    {
        exhausted(Resource::Disk, &fact)
    } else if context.memory_ran_out() {
        exhausted(Resource::Memory, "; the kernel ran out of memory meanwhile")
    } else if !context.settings.in_vm.contains(&node)
        && loop_devices(context.catalog, context.stage(node).1) > 0
        && context.machine.loop_devices() == Some(0)
    {
        exhausted(Resource::LoopDevices, "; every loop device is in use")
    } else {
        failure
    }
}

/// Returns how many loop devices a stage and its devices open.
pub(crate) fn loop_devices(catalog: &Catalog, stage: &Stage) -> u64 {
    let count = |module: &ModuleRef, options| match catalog.module(module.kind, &module.name) {
        Ok(Some(found)) => found.loop_devices(options),
        // The stage fails for that anyway.
        _ => 0,
    };
    let devices = stage.devices.iter().map(|device| count(&device.module, &device.options));
    devices.sum::<u64>() + count(&stage.module, &stage.options)
}

fn result(reply: StageReply) -> StageResult {
    let cause = reply.failure.as_ref().map(StageFailure::cause);
    // A module may have named a URL of its options.
    let error = reply.failure.map(|failure| redact::text(&failure.to_string()).into_owned());
    StageResult {
        success: error.is_none(),
        output: String::new(),
        log: None,
        error,
        exit_status: None,
        exception: reply.exception.map(Box::new),
        metadata: reply.metadata,
        duration: Default::default(),
        written: reply.written,
        memory: reply.memory,
        cause,
    }
}

/// Puts together all that a stage needs. Ids are osbuild's: what a module makes of them is then the same under both.
fn request(context: &Context<'_>, node: NodeIndex, work: &Work<'_>) -> Result<StageRequest, PrepareError> {
    let (pipeline, stage) = context.stage(node);
    let manifest = &context.plan.graph.manifest;
    let items = items(context, node);
    let runner = &manifest.runner_of(pipeline, &context.settings.host_runner).exec;
    // A build pipeline without stages means the host, as it does for ids.
    let build = pipeline.build.filter(|build| !manifest.pipeline(*build).stages.is_empty());
    let build_root = build.map(|build| tree(context, build)).transpose()?;
    let own = module(context, &stage.module)?;
    // A built-in module in the host's own root has all that it needs there.
    let prepared = if own.on_disk.is_some() || build_root.is_some() {
        let last = build.and_then(|build| context.plan.graph.pipelines[build.0].last());
        let id = last.and_then(|node| context.plan.graph.stage_node(node)).map(|stage| stage.id);
        let tree = id.zip(build_root.as_ref());
        context.preparations.of(work, runner, tree).map_err(PrepareError::Preparation)?
    } else {
        None
    };
    Ok(StageRequest {
        id: context.stage_node(node).compat.to_string(),
        capabilities: capabilities(context, stage)?,
        module: own,
        options: stage.options.clone(),
        inputs: stage.inputs.iter().map(|input| self::input(context, input, &items)).collect::<Result<_, _>>()?,
        devices: stage
            .devices
            .iter()
            .map(|device| {
                Ok(DeviceRequest {
                    name: device.name.clone(),
                    module: module(context, &device.module)?,
                    parent: device.parent,
                    options: device.options.clone(),
                })
            })
            .collect::<Result<_, PrepareError>>()?,
        mounts: stage.mounts.iter().map(|mount| self::mount(context, mount)).collect::<Result<_, _>>()?,
        source_epoch: pipeline.source_epoch,
        tree: work.stack()?,
        build_root,
        prepared,
        runner_file: runner_file(context, &stage.module, runner)?,
        runner: runner.to_owned(),
        host: host(context, stage)?,
        scratch: work.scratch()?,
        timeout: context.settings.stage_timeout,
        in_vm: context.settings.in_vm.contains(&node),
        shell: None,
    })
}

fn module(context: &Context<'_>, module: &ModuleRef) -> Result<ModuleRequest, PrepareError> {
    let found = context.catalog.module(module.kind, &module.name)?;
    let found = found.ok_or_else(|| PrepareError::NoModule { kind: module.kind, name: module.name.clone() })?;
    let on_disk = match &found.provider {
        Provider::BuiltIn(_) => None,
        Provider::OnDisk(on_disk) => Some(on_disk.clone()),
    };
    Ok(ModuleRequest { kind: module.kind, name: module.name.clone(), on_disk })
}

/// The executable that starts an on-disk stage; `None` if nothing but the module has to be started.
fn runner_file(context: &Context<'_>, stage: &ModuleRef, runner: &str) -> Result<Option<PathBuf>, PrepareError> {
    if module(context, stage)?.on_disk.is_none() {
        return Ok(None);
    }
    let found = context.catalog.module(Kind::Runner, runner)?;
    Ok(found.and_then(|found| match &found.provider {
        Provider::BuiltIn(_) => None,
        Provider::OnDisk(on_disk) => Some(on_disk.file.clone()),
    }))
}

/// What a stage's modules on the host's side work with; `None` if all of them are built in.
fn host(context: &Context<'_>, stage: &Stage) -> Result<Option<HostRequest>, PrepareError> {
    let inputs = stage.inputs.iter().map(|input| &input.module);
    let devices = stage.devices.iter().map(|device| &device.module);
    let mounts = stage.mounts.iter().map(|mount| &mount.module);
    for used in inputs.chain(devices).chain(mounts) {
        if module(context, used)?.on_disk.is_some() {
            let sources = context.transaction.store().sources_to_tell()?;
            return Ok(Some(HostRequest { sources, environment: context.settings.host_environment.clone() }));
        }
    }
    Ok(None)
}

fn capabilities(context: &Context<'_>, stage: &Stage) -> Result<Vec<String>, PrepareError> {
    let found = context.catalog.module(stage.module.kind, &stage.module.name)?;
    Ok(found.map_or_else(Vec::new, |module| module.capabilities.clone()))
}

/// Returns the keys of the source items that a stage reads, by checksum.
fn items<'a>(context: &Context<'a>, node: NodeIndex) -> HashMap<&'a str, &'a ItemKey> {
    let graph = &context.plan.graph;
    let fetched = graph.needs(node).filter(|(_, edge)| *edge == Edge::Fetch);
    fetched
        .filter_map(|(item, _)| graph.item_node(item))
        .map(|item| {
            let key = &graph.item(item).1.key;
            (key.checksum.as_str(), key)
        })
        .collect()
}

fn input(context: &Context<'_>, input: &Input, items: &HashMap<&str, &ItemKey>) -> Result<InputRequest, PrepareError> {
    let references = input.references.entries.iter().map(|entry| reference(context, entry, items));
    let mut references = references.collect::<Result<Vec<_>, _>>()?;
    if !input.references.ordered {
        // Their order is no part of the id, so it must not reach the module either.
        references.sort_by(|one, other| one.id.cmp(&other.id));
    }
    Ok(InputRequest {
        name: input.name.clone(),
        module: module(context, &input.module)?,
        origin: input.origin,
        references,
        options: input.options.clone(),
    })
}

fn reference(
    context: &Context<'_>,
    reference: &Reference,
    items: &HashMap<&str, &ItemKey>,
) -> Result<ReferenceRequest, PrepareError> {
    let (id, from) = match &reference.target {
        Target::Pipeline(index) => {
            let graph = &context.plan.graph;
            let last = graph.pipelines[index.0].last().and_then(|node| graph.stage_node(node));
            // A pipeline without stages has no id.
            let id = last.map(|stage| stage.compat.to_string()).unwrap_or_default();
            (id, ReferenceFrom::Tree(tree(context, *index)?))
        }
        Target::Item(checksum) => {
            let key = items.get(checksum.as_str());
            let key = key.ok_or_else(|| PrepareError::Missing { what: checksum.clone() })?;
            (checksum.clone(), ReferenceFrom::Item(context.transaction.item(key)?))
        }
    };
    Ok(ReferenceRequest { id, options: reference.options.clone(), from })
}

fn mount(context: &Context<'_>, mount: &osbc_ir::Mount) -> Result<MountRequest, PrepareError> {
    let partition = mount.partition.as_ref().map(|number| {
        let partition = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        partition.ok_or_else(|| PrepareError::Partition { mount: mount.name.clone(), number: number.to_string() })
    });
    Ok(MountRequest {
        name: mount.name.clone(),
        module: module(context, &mount.module)?,
        source: mount.source,
        partition: partition.transpose()?,
        target: mount.target.clone(),
        options: mount.options.clone(),
    })
}

/// The finished tree of a pipeline; an empty one without stages.
fn tree(context: &Context<'_>, pipeline: PipelineIndex) -> Result<TreeStack, PrepareError> {
    let graph = &context.plan.graph;
    let Some(last) = graph.pipelines[pipeline.0].last().and_then(|node| graph.stage_node(node)) else {
        return Ok(TreeStack { lower: Vec::new(), upper: None });
    };
    let name = || format!("the tree of the pipeline `{}`", graph.manifest.pipeline(pipeline).name);
    context.transaction.tree_for_stages(last.id)?.ok_or_else(|| PrepareError::Missing { what: name() })
}

#[cfg(test)]
mod tests {
    use osbc_ir::{Device, Revision};
    use serde_json::json;

    use super::*;
    use crate::testing;

    #[test]
    fn what_modules_declare_counts_whether_they_are_devices_or_not() {
        let module = |kind, name: &str| ModuleRef { kind, name: name.to_owned(), revision: Revision::BuiltIn(1) };
        let device = |name: &str, parent| Device {
            name: name.to_owned(),
            module: module(Kind::Device, name),
            parent,
            options: json!({}),
        };
        let stage = |name: &str, options, devices| Stage {
            module: module(Kind::Stage, name),
            options,
            inputs: Vec::new(),
            devices,
            mounts: Vec::new(),
            host: Vec::new(),
            writes_id: false,
        };
        let catalog = testing::catalog();
        let count = |stage: &Stage| loop_devices(&catalog, stage);
        assert_eq!(count(&stage("test.stage", json!({}), vec![device("test.other", None)])), 0);
        let devices = vec![device("test.loop", None), device("test.crypt", Some(0)), device("test.loop", None)];
        assert_eq!(count(&stage("test.stage", json!({}), devices.clone())), 2);
        assert_eq!(count(&stage("test.loop", json!({"count": 3}), devices)), 5);
    }
}
