//! From a graph to a plan: small pure passes, in two lists: before and after the store is asked.
//!
//! A plan must say something about every node, so passes do not take nodes out of the graph; they say things *about*
//! its nodes, in lists indexed like the nodes. [`share()`] alone goes from graph to graph, because afterwards there
//! is only one node to talk about. No pass asks a store or a clock: what the store has ([`CachedSet`]) and how long things
//! took ([`Durations`]) are arguments.
//!
//! ```text
//! finalize → share → ask ──(the store answers)──► plan = reach, drop_cached, prune_fetches, segment, rank
//! ```

pub mod drop_cached;
pub mod exports;
pub mod prune_fetches;
pub mod rank;
pub mod reach;
pub mod segment;
pub mod share;
#[cfg(test)]
pub(crate) mod sketch;
pub mod written_plan;

use std::sync::Arc;
use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, CachedSet, Decision, Edge, Export, Graph, Node, NodeId, Plan, Reason};

pub use drop_cached::{CacheFate, drop_cached};
pub use exports::{ExportError, default_exports, resolve_exports};
pub use prune_fetches::prune_fetches;
pub use rank::rank;
pub use reach::{Need, reach};
pub use segment::{Retention, segment};
pub use share::share;
pub use written_plan::{WrittenAction, WrittenItem, WrittenPipeline, WrittenReason, WrittenStage, written_plan};

/// What a build makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// These results, and whatever they need.
    Exports(Vec<Export>),
    /// Every source item in the store, and no stage run: the drop-in's build without exports.
    Sources,
}

/// How long a stage took when it ran last, where known.
pub type Durations<'a> = dyn Fn(&Graph, NodeIndex) -> Option<Duration> + 'a;

/// Asks the store, by `has`, about the nodes that a request depends on.
///
/// Exports come first, then their dependencies, but nothing behind a result that the store has. A build with nothing
/// to do asks about its exports only.
pub fn ask(graph: &Graph, request: &Request, has: &mut dyn FnMut(NodeId) -> bool) {
    match request {
        Request::Exports(exports) => reach::walk_back(graph, exports, |node| !has(graph.id(node))),
        Request::Sources => {
            for id in graph.dag.node_indices().map(|node| graph.id(node)) {
                if matches!(id, NodeId::Item(_)) {
                    has(id);
                }
            }
        }
    }
}

/// Decides what to do with every node. If `graph` was not [shared](share()), equal stages run twice.
pub fn plan(
    graph: Arc<Graph>,
    request: Request,
    have: &CachedSet,
    retention: Retention,
    durations: &Durations<'_>,
) -> Plan {
    match request {
        Request::Exports(exports) => plan_exports(graph, exports, have, retention, durations),
        Request::Sources => plan_sources(graph, have),
    }
}

fn plan_exports(
    graph: Arc<Graph>,
    exports: Vec<Export>,
    have: &CachedSet,
    retention: Retention,
    durations: &Durations<'_>,
) -> Plan {
    let reached = reach(&graph, &exports);
    let fates = drop_cached(&graph, &exports, have);
    let readers = prune_fetches(&graph, &fates);

    let reason = |need: Need| match need {
        Need::Export(index) => Reason::Exported { name: exports[index].name.clone() },
        Need::By(user, edge) => needed_by(&graph, user, edge),
    };
    let decide = |node: NodeIndex| match (&graph.dag[node], fates[node.index()], readers[node.index()]) {
        (Node::Stage(_), CacheFate::Run(need), _) => Decision { action: Action::Run, reason: reason(need) },
        (Node::Stage(_), CacheFate::Cached(_), _) => Decision { action: Action::Cached, reason: Reason::InStore },
        (Node::Item(_), _, Some(_)) if have.contains(&graph.id(node)) => {
            Decision { action: Action::Cached, reason: Reason::InStore }
        }
        (Node::Item(_), _, Some(reader)) => {
            Decision { action: Action::Fetch, reason: needed_by(&graph, reader, Edge::Fetch) }
        }
        (Node::Stage(_), CacheFate::Idle, _) | (Node::Item(_), _, None) => {
            let reason = if reached[node.index()].is_some() { Reason::CoveredByCache } else { Reason::NotRequested };
            Decision { action: Action::Unneeded, reason }
        }
    };
    let decisions: Vec<Decision> = graph.dag.node_indices().map(decide).collect();

    let mut segments = segment(&graph, &exports, &decisions, retention);
    rank(&graph, &mut segments, durations);
    let fetches = rank::order_fetches(&segments);
    Plan { graph, exports, decisions, fetches, segments }
}

fn plan_sources(graph: Arc<Graph>, have: &CachedSet) -> Plan {
    let decide = |node: NodeIndex| match graph.id(node) {
        NodeId::Stage(_) => Decision { action: Action::Unneeded, reason: Reason::NotRequested },
        id if have.contains(&id) => Decision { action: Action::Cached, reason: Reason::InStore },
        NodeId::Item(_) => Decision { action: Action::Fetch, reason: Reason::AllSources },
    };
    let decisions: Vec<Decision> = graph.dag.node_indices().map(decide).collect();
    let fetches = graph.dag.node_indices().filter(|node| decisions[node.index()].action == Action::Fetch).collect();
    Plan { graph, exports: Vec::new(), decisions, fetches, segments: Vec::new() }
}

fn needed_by(graph: &Graph, user: NodeIndex, edge: Edge) -> Reason {
    let stage = graph.stage_node(user).expect("edges lead to stages only: items need nothing");
    Reason::NeededBy { id: stage.id, edge }
}

#[cfg(test)]
mod tests {
    use super::sketch::Sketch;
    use super::*;

    const MANIFEST: &str = "
        build: packages<#b
        os(build): packages<#a,#b hostname
        disk(build): truncate sfdisk@ copy@<os
        tar(build): tar<os
        other: noop
    ";

    fn planned(sketch: &Sketch, exports: &[&str], have: &[&str]) -> Vec<String> {
        let plan = sketch.plan(exports, have);
        let decisions = sketch.graph.dag.node_indices().map(|node| {
            let Decision { action, reason } = plan.decision(node);
            let why = match reason {
                Reason::Exported { name } => format!("exported as {name}"),
                Reason::NeededBy { id, edge } => {
                    let user = sketch.label(sketch.graph.by_id[&NodeId::Stage(*id)]);
                    format!("{edge:?} of {user}")
                }
                reason => format!("{reason:?}"),
            };
            format!("{} {action:?}: {why}", sketch.label(node))
        });
        decisions.collect()
    }

    #[test]
    fn a_plan_has_a_word_on_every_node() {
        let sketch = Sketch::shared(MANIFEST);
        assert_eq!(
            planned(&sketch, &["disk", "other"], &["build/packages", "#a"]),
            [
                "#b Fetch: Fetch of os/packages",
                "#a Cached: InStore",
                "build/packages Cached: InStore",
                "os/packages Run: Base of os/hostname",
                "os/hostname Run: Input of disk/copy",
                "disk/truncate Run: Base of disk/sfdisk",
                "disk/sfdisk Run: Base of disk/copy",
                "disk/copy Run: exported as disk",
                "tar/tar Unneeded: NotRequested",
                "other/noop Run: exported as other",
            ]
        );
        assert_eq!(
            planned(&sketch, &["disk"], &["disk/copy", "os/hostname", "#a"]),
            [
                "#b Unneeded: CoveredByCache",
                "#a Unneeded: CoveredByCache",
                "build/packages Unneeded: CoveredByCache",
                "os/packages Unneeded: CoveredByCache",
                "os/hostname Unneeded: CoveredByCache",
                "disk/truncate Unneeded: CoveredByCache",
                "disk/sfdisk Unneeded: CoveredByCache",
                "disk/copy Cached: InStore",
                "tar/tar Unneeded: NotRequested",
                "other/noop Unneeded: NotRequested",
            ]
        );
    }

    /// The labels that the store is asked about, the first one first and the others sorted.
    fn asked(exports: &[&str], have: &[&str]) -> Vec<String> {
        let sketch = Sketch::shared(MANIFEST);
        let request = Request::Exports(sketch.exports(exports));
        let (have, mut asked) = (sketch.have(have), Vec::new());
        ask(&sketch.graph, &request, &mut |id| {
            asked.push(sketch.label(sketch.graph.by_id[&id]));
            have.contains(&id)
        });
        asked[1..].sort();
        asked
    }

    #[test]
    fn the_store_is_asked_about_what_is_reachable_only_and_about_exports_first() {
        assert_eq!(asked(&["tar"], &[]), ["tar/tar", "#a", "#b", "build/packages", "os/hostname", "os/packages"]);
    }

    #[test]
    fn the_store_is_not_asked_about_what_only_a_stored_result_needs() {
        assert_eq!(asked(&["tar"], &["tar/tar"]), ["tar/tar"]);
        assert_eq!(
            asked(&["tar"], &["os/packages"]),
            ["tar/tar", "#b", "build/packages", "os/hostname", "os/packages"]
        );
    }

    #[test]
    fn sources_alone_means_every_item_and_no_stage() {
        let sketch = Sketch::shared(MANIFEST);
        let mut asked = Vec::new();
        ask(&sketch.graph, &Request::Sources, &mut |id| {
            asked.push(id);
            false
        });
        assert_eq!(asked, [sketch.id("#b"), sketch.id("#a")]);
        let plan = plan(sketch.graph.clone(), Request::Sources, &sketch.have(&["#a"]), Retention::Every, &|_, _| None);
        assert_eq!(plan.fetches, [sketch.node("#b")]);
        assert!(plan.segments.is_empty());
        assert_eq!(plan.decision(sketch.node("#a")).action, Action::Cached);
        assert_eq!(plan.decision(sketch.node("#b")).reason, Reason::AllSources);
        assert_eq!(plan.decision(sketch.node("other/noop")).action, Action::Unneeded);
    }

    #[test]
    fn with_everything_in_the_store_there_is_nothing_to_do() {
        let sketch = Sketch::shared(MANIFEST);
        assert!(sketch.plan(&["disk", "tar", "other"], &["disk/copy", "tar/tar", "other/noop"]).is_empty());
    }
}
