//! Fetching by an on-disk source: a service on the host that gets all the items wanted of it at once, and puts them
//! into the store itself.

use std::collections::BTreeMap;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Cause, ItemNode, NodeOutcome, Source, redact};
use osbc_module_api::{Map, OnDisk, Value};
use osbc_sandbox::service::event_loop::ServiceLoop;
use osbc_sandbox::service::{CallError, Home, Service};
use osbc_store::{Slot, StoreError};
use serde::Deserialize;
use serde_json::json;

use super::{FetchError, failed};
use crate::build::{Worker, WorkerEvent};

/// What a source replies.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    results: Vec<ItemReply>,
}

/// What a source says about one item.
#[derive(Deserialize)]
struct ItemReply {
    success: bool,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    error: String,
}

/// Fetches items of one source; says whether all of them are there now.
pub(super) fn run(worker: &Worker<'_>, module: &OnDisk, nodes: &[NodeIndex], number: usize) -> bool {
    let graph = &worker.context.plan.graph;
    let mut items: Vec<(NodeIndex, &ItemNode)> =
        nodes.iter().filter_map(|node| Some((*node, graph.item_node(*node)?))).collect();
    // Two builds that wait for each other's items must not have begun with different ones.
    items.sort_by_key(|(_, item)| &graph.item(item).1.key.checksum);
    for (node, _) in &items {
        worker.send(WorkerEvent::FetchStarted { node: *node, worker: number });
    }
    let outcomes = fetch(worker, module, &items);
    let mut success = true;
    for (position, (node, _)) in items.iter().enumerate() {
        let outcome = match &outcomes {
            Ok(outcomes) => outcomes[position].clone(),
            Err(error) => failed(worker, &error.to_string(), error.cause()),
        };
        success &= matches!(outcome, NodeOutcome::Fetched { .. });
        worker.send(WorkerEvent::Finished { node: *node, outcome: Box::new(outcome) });
    }
    success
}

/// What became of each of the items.
fn fetch(
    worker: &Worker<'_>,
    module: &OnDisk,
    items: &[(NodeIndex, &ItemNode)],
) -> Result<Vec<NodeOutcome>, FetchError> {
    let context = worker.context;
    let graph = &context.plan.graph;
    let interrupted = || context.interrupt.is_raised();
    let mut slots = Vec::new();
    let mut wanted = Map::new();
    for (_, item) in items {
        let item = graph.item(item).1;
        let slot = context.transaction.download(&item.key, &interrupted)?;
        if let Slot::Fetch(_) = slot {
            wanted.insert(item.key.checksum.clone(), item.description.clone());
        }
        slots.push(slot);
    }
    let said = match items.first() {
        Some((node, item)) if !wanted.is_empty() => call(worker, module, *node, graph.item(item).0, wanted)?,
        _ => Reply { results: Vec::new() },
    };
    let checksum = |said: &ItemReply| said.metadata.get("checksum").and_then(Value::as_str).map(str::to_owned);
    // What fails without the name of an item is about all of them.
    let general = said.results.iter().find(|result| !result.success && checksum(result).is_none());
    let general = general.map(|result| result.error.clone());
    let by_item: BTreeMap<String, &ItemReply> =
        said.results.iter().filter_map(|result| Some((checksum(result)?, result))).collect();
    let outcomes = slots.into_iter().zip(items).map(|(slot, (_, item))| {
        let checksum = &graph.item(item).1.key.checksum;
        match (slot, by_item.get(checksum)) {
            (Slot::There(path), _) => {
                let bytes = path.symlink_metadata().map_or(0, |metadata| metadata.len());
                Ok(NodeOutcome::Fetched { bytes })
            }
            (Slot::Fetch(_), Some(said)) if !said.success => Ok(failed(worker, &said.error, Cause::Module)),
            (Slot::Fetch(download), said) => {
                let there = download.adopt()?;
                Ok(match (there, said, &general) {
                    (Some(bytes), _, _) => NodeOutcome::Fetched { bytes },
                    // It keeps its items elsewhere: as objects of a repository, say.
                    (None, Some(_), _) => NodeOutcome::Fetched { bytes: 0 },
                    (None, None, Some(error)) => failed(worker, error, Cause::Module),
                    (None, None, None) => failed(worker, "the source says nothing about this item", Cause::Module),
                })
            }
        }
    });
    outcomes.collect()
}

/// Lets the source download.
fn call(
    worker: &Worker<'_>,
    module: &OnDisk,
    node: NodeIndex,
    source: &Source,
    items: Map<String, Value>,
) -> Result<Reply, FetchError> {
    let context = worker.context;
    let cache = context.transaction.store().sources_to_tell()?;
    std::fs::create_dir_all(&cache).map_err(StoreError::io("make", &cache))?;
    let say = |text: &str| worker.send(WorkerEvent::FetchOutput { node, text: redact::text(text).into_owned() });
    let mut service_loop = ServiceLoop::new(say).until(context.interrupt.descriptor());
    let uid = format!("source/{}", source.module.name);
    let failed = |reason: String| FetchError::Service { module: source.module.name.clone(), reason };
    let environment = &context.settings.host_environment;
    let mut service = Service::start(&uid, module, environment, None, Home::Host, &mut service_loop)
        .map_err(|error| failed(error.to_string()))?;
    let arguments = json!({
        "items": items,
        "options": source.options,
        "cache": cache,
        "output": null,
        "checksums": [],
    });
    let reply = match service.call("download", &arguments, &mut service_loop) {
        Ok(reply) => reply,
        Err(error) => {
            let reason = error.to_string();
            if let CallError::Exception { backtrace, .. } = error {
                service_loop.say(&format!("{uid}: Traceback (most recent call last):\n{backtrace}{reason}\n"));
                service.stop(&mut service_loop).map_err(failed)?;
            }
            return Err(failed(reason));
        }
    };
    service.stop(&mut service_loop).map_err(failed)?;
    Reply::deserialize(&reply).map_err(|error| failed(format!("its reply is not that of a source: {error}")))
}
