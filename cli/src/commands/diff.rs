//! `osbc diff`: what differs between two manifests, and what of the second would be rebuilt.

use std::fmt::Write as _;
use std::process::ExitCode;

use osbc_compiler::SourceText;
use osbc_compiler::compare::{Change, Comparison, ItemChange, PipelinePair, StagePair, changes_of_values, items};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, Pipeline, PipelineIndex, Value, redact};
use osbc_store::Store;
use serde_json::json;

use crate::args::DiffArgs;
use crate::causes::change_lines;
use crate::exit::{self, Failure};
use crate::output::print;
use crate::{render, wiring};

/// The facts that are shown once for a pipeline and not for each of its stages.
const OF_PIPELINES: [&str; 3] = ["/build", "/runner", "/source-epoch"];

/// Compares.
pub(crate) fn run(args: &DiffArgs) -> Result<ExitCode, Failure> {
    let session = wiring::session(args.library.libdir.as_deref(), &args.library.modules)?;
    let graph = |path: &std::path::Path| -> Result<Graph, Failure> {
        Ok(redact::graph(&*session.compile(&SourceText::read(path)?)?).into_owned())
    };
    let failure = |failure: Failure| failure.with_json(args.json);
    let (old, new) = (graph(&args.old).map_err(failure)?, graph(&args.new).map_err(failure)?);
    let store = wiring::look(args.store.as_deref())?;
    let diff = Diff::new(&old, &new, store.as_ref());
    let text = if args.json { format!("{:#}\n", diff.json()) } else { diff.text() };
    print(text.as_bytes())?;
    Ok(if diff.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::DIFFERENT) })
}

/// All that is different.
struct Diff<'a> {
    metadata: Vec<Change>,
    pipelines: Vec<PipelineDiff<'a>>,
    items: Vec<ItemChange>,
    rebuilt: usize,
    /// How many of those a store has; `None` if there is no store.
    stored: Option<usize>,
    reused: usize,
}

struct PipelineDiff<'a> {
    old: Option<&'a str>,
    new: Option<&'a str>,
    changes: Vec<Change>,
    stages: Vec<StageDiff<'a>>,
    /// How many of its stages have ids that the other manifest does not have.
    rebuilt: usize,
}

struct StageDiff<'a> {
    module: &'a str,
    places: StagePair,
    changes: Vec<Change>,
}

impl<'a> Diff<'a> {
    fn new(old: &'a Graph, new: &'a Graph, store: Option<&Store>) -> Self {
        let comparison = Comparison::new(old, new);
        let pipelines: Vec<PipelineDiff<'a>> =
            comparison.pipelines.iter().map(|pair| PipelineDiff::new(&comparison, pair)).collect();
        let stages = || new.dag.node_indices().filter(|node| new.stage_node(*node).is_some());
        let is_other = |node: &NodeIndex| !old.by_id.contains_key(&new.id(*node));
        let rebuilt = stages().filter(is_other).count();
        let stored = store.map(|store| {
            let ids: Vec<_> = stages().filter(is_other).map(|node| new.id(node)).collect();
            let have = store.present(new, ids.iter().copied());
            ids.iter().filter(|id| have.contains(id)).count()
        });
        let value = |graph: &Graph| Value::Object(graph.manifest.metadata.clone());
        Self {
            metadata: changes_of_values(&value(old), &value(new)),
            pipelines: pipelines.into_iter().filter(PipelineDiff::is_different).collect(),
            items: items(old, new),
            rebuilt,
            stored,
            reused: stages().count() - rebuilt,
        }
    }

    fn is_empty(&self) -> bool {
        self.metadata.is_empty()
            && self.pipelines.iter().all(|pipeline| !pipeline.says_something())
            && self.items.is_empty()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.metadata.is_empty() {
            line(&mut text, 0, "metadata");
            change_lines(&self.metadata).iter().for_each(|change| line(&mut text, 1, change));
        }
        self.pipelines.iter().for_each(|pipeline| pipeline.text(&mut text));
        if !self.items.is_empty() {
            line(&mut text, 0, "sources");
        }
        for item in &self.items {
            line(&mut text, 1, &format!("{} {} {}", sign(item.was, item.is), item.source, item.checksum));
            change_lines(&item.changes).iter().for_each(|change| line(&mut text, 3, change));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let mut end = format!("{} to rebuild, {} unchanged", render::count(self.rebuilt, "stage"), self.reused);
        if let Some(stored) = self.stored.filter(|_| self.rebuilt > 0) {
            end += &format!("; the store has {stored} of those to rebuild");
        }
        line(&mut text, 0, &end);
        text
    }

    fn json(&self) -> Value {
        let pipelines: Vec<Value> = self.pipelines.iter().map(PipelineDiff::json).collect();
        let items: Vec<Value> = self
            .items
            .iter()
            .map(|item| {
                json!({
                    "source": item.source,
                    "checksum": item.checksum,
                    "change": word(item.was, item.is),
                    "changes": item.changes,
                })
            })
            .collect();
        json!({
            "equal": self.is_empty(),
            "metadata": self.metadata,
            "pipelines": pipelines,
            "sources": items,
            "totals": {"rebuilt": self.rebuilt, "reused": self.reused, "stored": self.stored},
        })
    }
}

impl<'a> PipelineDiff<'a> {
    fn new(comparison: &Comparison<'a>, pair: &PipelinePair) -> Self {
        let (old, new) = (comparison.old, comparison.new);
        let pipeline =
            |graph: &'a Graph, index: Option<PipelineIndex>| index.map(|index| graph.manifest.pipeline(index));
        let (was, is) = (pipeline(old, pair.old), pipeline(new, pair.new));
        let changes = match (was, is) {
            (Some(was), Some(is)) => changes_of_values(&said(old, was), &said(new, is)),
            _ => Vec::new(),
        };
        let stage = |places: &StagePair| {
            let at = |pipeline: Option<&'a Pipeline>, at: Option<usize>| Some(&pipeline?.stages[at?]);
            let stage = at(is, places.new).or_else(|| at(was, places.old))?;
            let mut changes = comparison.changes(pair, places);
            changes.retain(|change| !OF_PIPELINES.contains(&change.path.as_str()));
            let differs = places.old.is_none() || places.new.is_none() || places.moved || !changes.is_empty();
            differs.then(|| StageDiff { module: &stage.module.name, places: *places, changes })
        };
        let nodes = pair.new.map_or(&[][..], |index| &new.pipelines[index.0].stages);
        Self {
            old: was.map(|pipeline| pipeline.name.as_str()),
            new: is.map(|pipeline| pipeline.name.as_str()),
            changes,
            stages: pair.stages.iter().filter_map(stage).collect(),
            rebuilt: nodes.iter().filter(|node| !old.by_id.contains_key(&new.id(**node))).count(),
        }
    }

    /// Whether it is written differently.
    fn says_something(&self) -> bool {
        self.old != self.new || !self.changes.is_empty() || !self.stages.is_empty()
    }

    /// Whether it is written differently or would be built anew.
    fn is_different(&self) -> bool {
        self.says_something() || self.rebuilt > 0
    }

    fn text(&self, text: &mut String) {
        let name = match (self.old, self.new) {
            (Some(old), Some(new)) if old == new => format!("  {new}"),
            (Some(old), Some(new)) => format!("~ {new} (was {old})"),
            (old, new) => {
                format!("{} {}", sign(old.is_some(), new.is_some()), new.or(old).unwrap_or_default())
            }
        };
        let rebuilt = if self.rebuilt > 0 {
            format!("  ({} to rebuild)", render::count(self.rebuilt, "stage"))
        } else {
            String::new()
        };
        line(text, 0, &format!("{name}{rebuilt}"));
        change_lines(&self.changes).iter().for_each(|change| line(text, 3, change));
        for stage in &self.stages {
            let StageDiff { module, places, changes } = stage;
            let moved = match (places.moved, places.old, places.new) {
                (true, Some(old), Some(new)) => format!(" (moved from {old} to {new})"),
                _ => String::new(),
            };
            line(text, 1, &format!("{} {module}{moved}", sign(places.old.is_some(), places.new.is_some())));
            change_lines(changes).iter().for_each(|change| line(text, 3, change));
        }
    }

    fn json(&self) -> Value {
        let stages: Vec<Value> = self
            .stages
            .iter()
            .map(|stage| {
                json!({
                    "module": stage.module,
                    "change": if stage.places.moved { "moved" } else { word(stage.places.old.is_some(), stage.places.new.is_some()) },
                    "old_position": stage.places.old,
                    "new_position": stage.places.new,
                    "changes": stage.changes,
                })
            })
            .collect();
        json!({
            "name": self.new.or(self.old),
            "old_name": self.old,
            "change": if self.says_something() { word(self.old.is_some(), self.new.is_some()) } else { "follows" },
            "changes": self.changes,
            "stages": stages,
            "rebuilt": self.rebuilt,
        })
    }
}

/// What a pipeline says besides its stages.
fn said(graph: &Graph, pipeline: &Pipeline) -> Value {
    let mut said = json!({"runner": pipeline.runner.name});
    if let Some(build) = pipeline.build {
        said["build"] = json!(graph.manifest.pipeline(build).name);
    }
    if let Some(epoch) = pipeline.source_epoch {
        said["source-epoch"] = json!(epoch);
    }
    said
}

fn sign(was: bool, is: bool) -> char {
    match (was, is) {
        (false, _) => '+',
        (_, false) => '-',
        _ => '~',
    }
}

fn word(was: bool, is: bool) -> &'static str {
    match (was, is) {
        (false, _) => "added",
        (_, false) => "removed",
        _ => "changed",
    }
}

fn line(text: &mut String, depth: usize, line: &str) {
    writeln!(text, "{:indent$}{line}", "", indent = 2 * depth).expect("a string grows");
}
