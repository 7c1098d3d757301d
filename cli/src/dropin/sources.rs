//! Reports on the sources, item by item, as osbuild writes them.

use std::collections::BTreeMap;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CachedSet, Node, NodeOutcome, Plan};
use serde_json::{Value, json};

/// What came of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceReport {
    /// The module that fetches.
    pub(crate) module: String,
    /// Those that were there first, then those that were fetched. What nothing needed and nobody had is not among them.
    items: Vec<ItemReport>,
}

/// What came of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ItemReport {
    checksum: String,
    result: ItemResult,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ItemResult {
    Cached,
    Fetched,
    Failed(String),
}

impl SourceReport {
    /// The report on a source of the plan's manifest, by what was there before and what came of the fetches.
    pub(crate) fn new(
        plan: &Plan,
        have: &CachedSet,
        fetches: &BTreeMap<NodeIndex, NodeOutcome>,
        source: usize,
    ) -> Self {
        let graph = &plan.graph;
        let mut items = Vec::new();
        for node in graph.dag.node_indices() {
            let Node::Item(item) = &graph.dag[node] else { continue };
            if item.source != source {
                continue;
            }
            let result = match fetches.get(&node) {
                Some(NodeOutcome::Fetched { .. }) => ItemResult::Fetched,
                Some(NodeOutcome::FetchFailed { error, .. }) => ItemResult::Failed(error.clone()),
                _ if have.contains(&graph.id(node)) => ItemResult::Cached,
                _ => continue,
            };
            items.push(ItemReport { checksum: graph.item(item).1.key.checksum.clone(), result });
        }
        items.sort_by_key(|item| item.result != ItemResult::Cached);
        Self { module: graph.manifest.sources[source].module.name.clone(), items }
    }

    /// The reports on all sources, in the manifest's order.
    pub(crate) fn all(plan: &Plan, have: &CachedSet, fetches: &BTreeMap<NodeIndex, NodeOutcome>) -> Vec<Self> {
        (0..plan.graph.manifest.sources.len()).map(|source| Self::new(plan, have, fetches, source)).collect()
    }

    /// Returns the error of the first failed item; `None` if none failed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.items.iter().find_map(|item| match &item.result {
            ItemResult::Failed(error) => Some(error.as_str()),
            ItemResult::Cached | ItemResult::Fetched => None,
        })
    }

    /// Whether a failed item is reported as absent: not by the modules that download files.
    fn reports_absence(&self) -> bool {
        !matches!(self.module.as_str(), "org.osbuild.curl" | "org.osbuild.librepo")
    }

    /// As the result of a module, in a monitor.
    pub(crate) fn result(&self) -> Value {
        let name = format!("source {}", self.module);
        let output = match self.error() {
            None => format!("{name} finished successfully"),
            Some(error) => format!("{name} finished unsuccessfully: {error}"),
        };
        let results: Vec<Value> = self
            .items
            .iter()
            .map(|item| match &item.result {
                ItemResult::Failed(error) => {
                    let mut metadata = json!({"checksum": item.checksum});
                    if self.reports_absence() {
                        metadata["cached"] = json!(false);
                    }
                    json!({"success": false, "metadata": metadata, "error": error})
                }
                result => {
                    let cached = *result == ItemResult::Cached;
                    json!({"success": true, "metadata": {"checksum": item.checksum, "cached": cached}, "error": ""})
                }
            })
            .collect();
        json!({
            "name": name,
            "source_type": self.module,
            "success": self.error().is_none(),
            "output": output,
            "results": results,
        })
    }

    /// As an entry of the result document.
    pub(crate) fn document(&self) -> Value {
        let item = |item: &ItemReport| match &item.result {
            ItemResult::Failed(error) => {
                let mut entry = json!({});
                if self.reports_absence() {
                    entry["cached"] = json!(false);
                }
                entry["checksum"] = json!(item.checksum);
                entry["error"] = json!(error);
                entry
            }
            result => json!({"cached": *result == ItemResult::Cached, "checksum": item.checksum}),
        };
        self.items.iter().map(item).collect()
    }
}
