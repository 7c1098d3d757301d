//! The schedule that osbuild would follow for a plan.
//!
//! It runs the pipelines that are needed and not cached, one after the other, each from its last cached stage. osbc
//! runs them in parallel, and equal stages once, but reports them in this order.

use std::collections::HashMap;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CachedSet, CompatId, Graph, PipelineIndex, Plan};

/// The pipelines that osbuild would run, in its order.
#[derive(Debug)]
pub(crate) struct SerialSchedule {
    pub(crate) runs: Vec<PipelineRun>,
}

/// A pipeline that osbuild would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipelineRun {
    pub(crate) pipeline: PipelineIndex,
    /// Its id; `None` without stages.
    pub(crate) id: Option<CompatId>,
    /// The stages that are not cached.
    pub(crate) stages: Vec<StageRun>,
}

/// A stage at its place in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StageRun {
    /// Its position in the pipeline.
    pub(crate) position: usize,
    /// Its id at this place.
    pub(crate) id: CompatId,
    /// Its node, which may also be that of equal stages in other pipelines.
    pub(crate) node: NodeIndex,
}

/// A view of osbuild's ids: the manifest as written, which has an id at every place, and the plan for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdView<'a> {
    /// The graph before equal stages became one.
    pub(crate) written: &'a Graph,
    pub(crate) plan: &'a Plan,
}

impl IdView<'_> {
    /// The stages of a pipeline.
    pub(crate) fn stages(&self, pipeline: PipelineIndex) -> Vec<StageRun> {
        let written = &self.written.pipelines[pipeline.0].stages;
        let nodes = &self.plan.graph.pipelines[pipeline.0].stages;
        let ids = written.iter().filter_map(|node| self.written.stage_node(*node)).map(|stage| stage.compat);
        ids.zip(nodes).enumerate().map(|(position, (id, node))| StageRun { position, id, node: *node }).collect()
    }

    /// Returns osbuild's id of a pipeline; `None` without stages.
    pub(crate) fn id(&self, pipeline: PipelineIndex) -> Option<CompatId> {
        let last = self.written.pipelines[pipeline.0].last()?;
        Some(self.written.stage_node(last)?.compat)
    }
}

impl SerialSchedule {
    /// Searches back from the exports as osbuild does. `have` lists what was cached before.
    pub(crate) fn new(ids: &IdView<'_>, have: &CachedSet) -> Self {
        let graph = &ids.plan.graph;
        let there = |node: NodeIndex| have.contains(&graph.id(node));
        let mut check: Vec<PipelineIndex> = ids.plan.exports.iter().map(|export| export.pipeline).collect();
        // Of pipelines with one id, only the one that is reached last runs, at that place.
        let mut found: HashMap<Option<CompatId>, (usize, PipelineRun)> = HashMap::new();
        let mut met = 0;
        while let Some(pipeline) = check.pop() {
            let stages = ids.stages(pipeline);
            if stages.last().is_some_and(|stage| there(stage.node)) {
                continue;
            }
            let missing = stages.iter().rposition(|stage| there(stage.node)).map_or(0, |last| last + 1);
            let run = PipelineRun { pipeline, id: ids.id(pipeline), stages: stages[missing..].to_vec() };
            // One without stages is the host.
            check.extend(graph.manifest.pipeline(pipeline).build.filter(|build| ids.id(*build).is_some()));
            for stage in run.stages.iter().rev() {
                check.extend(inputs(graph, pipeline, stage.position));
            }
            met += 1;
            found.insert(run.id, (met, run));
        }
        let mut runs: Vec<(usize, PipelineRun)> = found.into_values().collect();
        runs.sort_by_key(|(met, _)| std::cmp::Reverse(*met));
        Self { runs: runs.into_iter().map(|(_, run)| run).collect() }
    }

    /// For every node that is run, the places that it is run for, the first one first: indices into [`Self::runs`] and
    /// their stages.
    pub(crate) fn places(&self) -> HashMap<NodeIndex, Vec<(usize, usize)>> {
        let mut places: HashMap<NodeIndex, Vec<(usize, usize)>> = HashMap::new();
        for (run, pipeline) in self.runs.iter().enumerate() {
            for (position, stage) in pipeline.stages.iter().enumerate() {
                places.entry(stage.node).or_default().push((run, position));
            }
        }
        places
    }
}

/// The pipelines that a stage reads, in the order of its references.
fn inputs(graph: &Graph, pipeline: PipelineIndex, position: usize) -> impl Iterator<Item = PipelineIndex> {
    let stage = &graph.manifest.pipeline(pipeline).stages[position];
    let entries = stage.inputs.iter().flat_map(|input| &input.references.entries);
    entries.filter_map(|entry| match &entry.target {
        osbc_ir::Target::Pipeline(index) => Some(*index),
        osbc_ir::Target::Item(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use osbc_compiler::passes::{self, Request, Retention};
    use osbc_compiler::{Host, SourceText, compile};
    use osbc_ir::Runner;
    use osbc_module_api::Catalog;
    use serde_json::{Value, json};

    use super::*;

    fn stage(path: &str) -> Value {
        json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}})
    }

    fn reading(pipeline: &str) -> Value {
        let tree = json!({
            "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [format!("name:{pipeline}")]
        });
        let paths = json!([{"from": "input://tree/", "to": "tree:///"}]);
        json!({"type": "org.osbuild.copy", "inputs": {"tree": tree}, "options": {"paths": paths}})
    }

    /// What would be run for exports, a pipeline with the count of its stages each, when the results of some stages (by
    /// pipeline and position) are there.
    fn runs(pipelines: &Value, exports: &[&str], there: &[(usize, usize)]) -> Vec<(String, usize)> {
        let text = json!({"version": "2", "pipelines": pipelines}).to_string();
        let text = SourceText::from_bytes("m.json", text.into()).expect("text");
        let catalog = Catalog::new(vec![osbc_engine::builtin()]);
        let host = Runner { name: "org.osbuild.linux".to_owned(), exec: "org.osbuild.linux".to_owned() };
        let written = compile(&text, &catalog, Host::bare(&host)).expect("a manifest").finalize();
        let graph = Arc::new(passes::share(written.clone()));
        let exports: Vec<String> = exports.iter().map(|name| (*name).to_owned()).collect();
        let exports = passes::resolve_exports(&graph, &exports).expect("known");
        let node = |(pipeline, position): &(usize, usize)| graph.id(graph.pipelines[*pipeline].stages[*position]);
        let have: CachedSet = there.iter().map(node).collect();
        let plan = passes::plan(Arc::clone(&graph), Request::Exports(exports), &have, Retention::Every, &|_, _| None);
        let schedule = SerialSchedule::new(&IdView { written: &written, plan: &plan }, &have);
        let name = |run: &PipelineRun| graph.manifest.pipeline(run.pipeline).name.clone();
        schedule.runs.iter().map(|run| (name(run), run.stages.len())).collect()
    }

    fn run(name: &str, stages: usize) -> (String, usize) {
        (name.to_owned(), stages)
    }

    #[test]
    fn pipelines_come_in_osbuilds_order_from_what_is_there() {
        let pipelines = json!([
            {"name": "build", "stages": [stage("/b")]},
            {"name": "tree", "build": "name:build", "stages": [stage("/t"), stage("/u"), stage("/v")]},
            {"name": "other", "stages": [stage("/o")]},
            {"name": "image", "build": "name:build", "stages": [reading("other"), reading("tree")]},
        ]);
        assert_eq!(
            runs(&pipelines, &["image"], &[]),
            [run("build", 1), run("tree", 3), run("other", 1), run("image", 2)]
        );
        assert_eq!(
            runs(&pipelines, &["image"], &[(1, 1)]),
            [run("build", 1), run("tree", 1), run("other", 1), run("image", 2)]
        );
        assert_eq!(runs(&pipelines, &["image"], &[(1, 2), (2, 0), (0, 0)]), [run("image", 2)]);
        assert_eq!(runs(&pipelines, &["image"], &[(3, 0), (0, 0)]), [run("tree", 3), run("image", 1)]);
        assert_eq!(runs(&pipelines, &["image"], &[(3, 1)]), []);
        assert_eq!(runs(&pipelines, &[], &[]), []);
    }

    #[test]
    fn of_pipelines_with_one_id_only_one_is_run() {
        let pipelines = json!([
            {"name": "one", "stages": [stage("/x"), stage("/y")]},
            {"name": "two", "stages": [stage("/x"), stage("/y")]},
            {"name": "longer", "stages": [stage("/x"), stage("/y"), stage("/z")]},
        ]);
        let runs = runs(&pipelines, &["one", "two", "longer"], &[]);
        assert_eq!(runs, [run("one", 2), run("longer", 3)]);
    }
}
