//! The plan as a manifest's author reads it: every pipeline with its stages as written, and every source item.
//!
//! A shared stage appears wherever it is written.

use std::fmt;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, CompatId, Edge, Graph, ItemId, Node, NodeId, Plan, Reason, StageId};
use serde::Serialize;

/// A pipeline with its stages as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenPipeline {
    /// Its name.
    pub name: String,
    /// Its stages, first to last.
    pub stages: Vec<WrittenStage>,
}

/// A stage at one of the places where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenStage {
    /// Its node.
    #[serde(skip)]
    pub node: NodeIndex,
    /// Its id.
    pub id: StageId,
    /// osbuild's id of it.
    pub osbuild_id: CompatId,
    /// The full name of its module.
    pub module: String,
    /// What happens here.
    pub action: WrittenAction,
    /// Why.
    pub reason: WrittenReason,
}

/// What happens at a place where a stage is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WrittenAction {
    /// It runs.
    Run,
    /// Its result is in the store and used from there.
    Cached,
    /// It runs or is cached where it is written first, in another pipeline, and that result is used.
    Shared,
    /// Nothing.
    Unneeded,
}

/// Why a written stage or item has its action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WrittenReason {
    /// Run: it is what was asked for.
    Exported {
        /// As the user named it.
        name: String,
    },
    /// Run or fetch: a stage that runs needs it.
    NeededBy {
        /// The pipeline of the first stage that needs it.
        pipeline: String,
        /// That stage's module.
        module: String,
        /// That stage's id.
        id: StageId,
        /// As what.
        edge: Edge,
    },
    /// Fetch: all source items are requested.
    AllSources,
    /// Cached.
    InStore,
    /// Cached: the store has the result of the same stage on trees of equal content.
    EqualContent,
    /// Shared: the same stage stands in this pipeline.
    SameAs {
        /// The pipeline that it is written in first.
        pipeline: String,
    },
    /// Unneeded: only nodes before a cached result would need it.
    CoveredByCache,
    /// Unneeded: no export needs it.
    NotRequested,
}

impl fmt::Display for WrittenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrittenReason::Exported { name } => write!(f, "exported as {name}"),
            WrittenReason::NeededBy { pipeline, module, id: _, edge } => {
                let role = match edge {
                    Edge::Base => "base",
                    Edge::Build => "build tree",
                    Edge::Input => "input",
                    Edge::Fetch => "source item",
                };
                write!(f, "{role} of {module} in {pipeline}")
            }
            WrittenReason::AllSources => f.write_str("all source items are requested"),
            WrittenReason::InStore => f.write_str("in the store"),
            WrittenReason::EqualContent => f.write_str("equal content"),
            WrittenReason::SameAs { pipeline } => write!(f, "same as in {pipeline}"),
            WrittenReason::CoveredByCache => f.write_str("a later result is in the store"),
            WrittenReason::NotRequested => f.write_str("no export needs it"),
        }
    }
}

/// A source item and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenItem {
    /// Its node.
    #[serde(skip)]
    pub node: NodeIndex,
    /// Its id.
    pub id: ItemId,
    /// The full name of the module that fetches it.
    pub module: String,
    /// What it is checked against.
    pub checksum: String,
    /// Its size in bytes, if the manifest states it.
    pub size: Option<u64>,
    /// `Fetch`, `Cached` or `Unneeded`.
    pub action: Action,
    /// Why.
    pub reason: WrittenReason,
}

/// Returns every written stage of every pipeline, in the manifest's order, and every source item.
pub fn written_plan(plan: &Plan) -> (Vec<WrittenPipeline>, Vec<WrittenItem>) {
    let graph = &plan.graph;
    let pipelines = graph.manifest.pipelines.iter().zip(&graph.pipelines).enumerate();
    let pipelines = pipelines.map(|(index, (pipeline, nodes))| WrittenPipeline {
        name: pipeline.name.clone(),
        stages: nodes.stages.iter().filter_map(|node| written_stage(plan, index, *node)).collect(),
    });
    let fetches = graph.dag.node_indices().filter_map(|node| {
        let Node::Item(item) = &graph.dag[node] else { return None };
        let (source, written) = graph.item(item);
        Some(WrittenItem {
            node,
            id: item.id,
            module: source.module.name.clone(),
            checksum: written.key.checksum.clone(),
            size: written.size,
            action: plan.decision(node).action,
            reason: reason(graph, &plan.decision(node).reason),
        })
    });
    (pipelines.collect(), fetches.collect())
}

fn written_stage(plan: &Plan, pipeline: usize, node: NodeIndex) -> Option<WrittenStage> {
    let stage = plan.graph.stage_node(node)?;
    let (first, written) = plan.graph.stage(stage);
    let decision = plan.decision(node);
    let (action, reason) = match decision.action {
        Action::Unneeded => (WrittenAction::Unneeded, reason(&plan.graph, &decision.reason)),
        Action::Run | Action::Cached | Action::Fetch if stage.pipeline.0 != pipeline => {
            (WrittenAction::Shared, WrittenReason::SameAs { pipeline: first.name.clone() })
        }
        Action::Cached => (WrittenAction::Cached, reason(&plan.graph, &decision.reason)),
        Action::Run | Action::Fetch => (WrittenAction::Run, reason(&plan.graph, &decision.reason)),
    };
    let module = written.module.name.clone();
    Some(WrittenStage { node, id: stage.id, osbuild_id: stage.compat, module, action, reason })
}

/// A reason in the manifest's terms: the stage that an id stands for by pipeline and module.
pub(crate) fn reason(graph: &Graph, reason: &Reason) -> WrittenReason {
    match reason {
        Reason::Exported { name } => WrittenReason::Exported { name: name.clone() },
        Reason::NeededBy { id, edge } => {
            let user = graph.by_id[&NodeId::Stage(*id)];
            let user = graph.stage_node(user).expect("the id of a stage is a stage's");
            let (pipeline, stage) = graph.stage(user);
            WrittenReason::NeededBy {
                pipeline: pipeline.name.clone(),
                module: stage.module.name.clone(),
                id: *id,
                edge: *edge,
            }
        }
        Reason::AllSources => WrittenReason::AllSources,
        Reason::InStore => WrittenReason::InStore,
        Reason::EqualContent => WrittenReason::EqualContent,
        Reason::CoveredByCache => WrittenReason::CoveredByCache,
        Reason::NotRequested => WrittenReason::NotRequested,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::sketch::Sketch;

    fn reason_text(reason: &WrittenReason) -> String {
        match reason {
            WrittenReason::NeededBy { pipeline, module, edge, .. } => format!("{edge:?} of {pipeline}/{module}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_written_stage_has_its_action_and_reason() {
        let sketch = Sketch::shared(
            "one: packages<#a hostname
             two: packages<#a users tar
             old: gone<#b",
        );
        let plan = sketch.plan(&["one", "two"], &["two/users"]);
        let (pipelines, fetches) = written_plan(&plan);
        let lines: Vec<_> = pipelines
            .iter()
            .flat_map(|pipeline| pipeline.stages.iter().map(move |stage| (pipeline, stage)))
            .map(|(pipeline, stage)| {
                format!("{} {} {:?}: {}", pipeline.name, stage.module, stage.action, reason_text(&stage.reason))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "one org.osbuild.packages Run: Base of one/org.osbuild.hostname",
                r#"one org.osbuild.hostname Run: Exported { name: "one" }"#,
                r#"two org.osbuild.packages Shared: SameAs { pipeline: "one" }"#,
                "two org.osbuild.users Cached: InStore",
                r#"two org.osbuild.tar Run: Exported { name: "two" }"#,
                "old org.osbuild.gone Unneeded: NotRequested",
            ]
        );
        let fetches: Vec<_> = fetches
            .iter()
            .map(|item| (item.checksum.as_str(), item.size, item.action, reason_text(&item.reason)))
            .collect();
        assert_eq!(
            fetches,
            [
                ("#a", Some(10), Action::Fetch, "Fetch of one/org.osbuild.packages".to_owned()),
                ("#b", Some(10), Action::Unneeded, "NotRequested".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_not_needed_is_unneeded_at_every_place() {
        let sketch = Sketch::shared("one: packages\ntwo: packages\nother: noop");
        let (pipelines, _) = written_plan(&sketch.plan(&["other"], &[]));
        let actions: Vec<_> = pipelines.iter().map(|pipeline| pipeline.stages[0].action).collect();
        assert_eq!(actions, [WrittenAction::Unneeded, WrittenAction::Unneeded, WrittenAction::Run]);
    }
}
