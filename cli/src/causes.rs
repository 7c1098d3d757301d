//! Says why a stage runs, compared with the recorded last build of the same manifest.

use std::borrow::Cow;
use std::path::Path;

use osbc_compiler::compare::{Cause, Change, Comparison};
use osbc_engine::timeline::{BuildTimeline, State};
use osbc_executor::record::{BuildRecord, ManifestName};
use osbc_ir::graph::NodeIndex;
use osbc_ir::identity::ABSENT;
use osbc_ir::{Edge, Graph, NodeId, Plan, Value, redact};
use osbc_store::Store;
use serde::Serialize;

use crate::builds::unreadable;
use crate::output::say;
use crate::render;

/// How many characters of a value are shown in a line.
const SHOWN: usize = 60;

/// The last build of a manifest, as recorded.
pub(crate) struct LastBuild<'p> {
    pub(crate) record: BuildRecord,
    pub(crate) graph: Graph,
    /// The graph of the manifest now, in the form of its record.
    now: Cow<'p, Graph>,
    past: BuildTimeline,
}

impl<'p> LastBuild<'p> {
    /// Returns the last build of the manifest that was read from `path` and became `now`; `None` if none is recorded.
    ///
    /// A damaged record counts as none, and the user is warned.
    pub(crate) fn of(store: &Store, path: &Path, now: &'p Graph) -> Option<Self> {
        let record = BuildRecord::last_of(store, &ManifestName::new(path, now)).ok()??;
        match record.graph().and_then(|graph| Ok((graph, record.events()?))) {
            Ok((graph, events)) => {
                Some(Self { record, graph, now: redact::graph(now), past: BuildTimeline::new(&events) })
            }
            Err(error) => {
                say(&format!("osbc: {}; nothing is compared with that build", unreadable(&record.directory, &error)));
                None
            }
        }
    }

    /// Returns the outcome of a stage in that build; `None` if it was not part of it.
    fn state(&self, id: NodeId) -> Option<State> {
        let node = self.graph.by_id.get(&id)?;
        Some(self.past.nodes.get(&node.index())?.state)
    }
}

/// Why a stage that runs is not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RunCause {
    /// No build of this manifest is known.
    FirstBuild,
    /// Another id than then.
    Other {
        /// Why.
        cause: Cause,
    },
    /// Another id than then, only since what it works on has.
    Follows {
        /// The first causes.
        from: Vec<Stage>,
    },
    /// It was there after that build.
    Evicted,
    /// That build did not get to it, or had no need of it.
    NotBuilt,
    /// Only the result of a later stage is kept, which works on in place.
    InPlace,
}

/// A stage by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    pub(crate) pipeline: String,
    pub(crate) module: String,
    pub(crate) id: String,
}

impl Stage {
    pub(crate) fn new(graph: &Graph, node: NodeIndex) -> Self {
        let (pipeline, module) = render::node_name(graph, node);
        let id = graph.stage_node(node).map(|stage| stage.id.to_string()).unwrap_or_default();
        Self { pipeline: pipeline.to_owned(), module: module.to_owned(), id }
    }
}

/// The causes of all stages that run.
pub(crate) struct Causes<'a> {
    plan: &'a Plan,
    last: Option<(&'a LastBuild<'a>, Comparison<'a>)>,
    /// For every node, whether a step of its own segment goes on from it.
    goes_on: Vec<bool>,
}

impl<'a> Causes<'a> {
    /// Compares a plan with the last build.
    pub(crate) fn new(plan: &'a Plan, last: Option<&'a LastBuild<'a>>) -> Self {
        let last = last.map(|last| (last, Comparison::new(&last.graph, &last.now)));
        let mut goes_on = vec![false; plan.graph.dag.node_count()];
        for step in plan.segments.iter().filter_map(|segment| segment.steps.split_last()).flat_map(|(_, steps)| steps) {
            goes_on[step.index()] = true;
        }
        Self { plan, last, goes_on }
    }

    /// The comparison with the last build, if there is one.
    pub(crate) fn comparison(&self) -> Option<&Comparison<'a>> {
        self.last.as_ref().map(|(_, comparison)| comparison)
    }

    /// Why a stage that runs is not in the store.
    pub(crate) fn of(&self, node: NodeIndex) -> RunCause {
        let Some((last, comparison)) = &self.last else { return RunCause::FirstBuild };
        match comparison.cause(node) {
            Cause::Same => match last.state(self.plan.graph.id(node)) {
                Some(State::Done | State::Cached) if self.goes_on[node.index()] => RunCause::InPlace,
                Some(State::Done | State::Cached) => RunCause::Evicted,
                _ => RunCause::NotBuilt,
            },
            Cause::Follows { .. } => {
                let roots = comparison.roots(node);
                RunCause::Follows { from: roots.into_iter().map(|root| Stage::new(&self.plan.graph, root)).collect() }
            }
            cause => RunCause::Other { cause: cause.clone() },
        }
    }
}

impl RunCause {
    /// In a few words.
    pub(crate) fn words(&self) -> String {
        match self {
            RunCause::FirstBuild => "never built".to_owned(),
            RunCause::Other { cause } => cause_words(cause),
            RunCause::Follows { from } => match from.as_slice() {
                [] => "the trees that it uses changed".to_owned(),
                [Stage { pipeline, module, .. }] => format!("follows from {pipeline}: {module}"),
                [Stage { pipeline, module, .. }, rest @ ..] => {
                    format!("follows from {pipeline}: {module} and {} more", rest.len())
                }
            },
            RunCause::Evicted => "evicted from the store".to_owned(),
            RunCause::NotBuilt => "not built by the last build".to_owned(),
            RunCause::InPlace => "not kept: the next stage continues in place".to_owned(),
        }
    }
}

/// A first cause in a few words.
pub(crate) fn cause_words(cause: &Cause) -> String {
    match cause {
        Cause::Same => "the same".to_owned(),
        Cause::New => "a new stage".to_owned(),
        Cause::Changed { changes } => changed_words(changes),
        Cause::Tree { edge: Edge::Base, old, new, .. } => {
            let name = |module: &Option<String>| module.as_deref().unwrap_or("nothing").to_owned();
            format!("the stage before it: {} → {}", name(old), name(new))
        }
        Cause::Tree { edge, pipeline, old, new } => {
            let name = |module: &Option<String>| module.as_deref().unwrap_or("nothing").to_owned();
            let role = if *edge == Edge::Build { "build tree" } else { "input" };
            format!("{role} {pipeline} ends with another stage: {} → {}", name(old), name(new))
        }
        Cause::Follows { .. } => "the trees that it uses changed".to_owned(),
    }
}

/// What changed, by the parts of a stage.
fn changed_words(changes: &[Change]) -> String {
    let mut options: Vec<&str> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for change in changes {
        let mut parts = change.path.split('/').skip(1);
        let word = match (parts.next().unwrap_or_default(), parts.next()) {
            ("options", Some(option)) => {
                if !options.contains(&option) {
                    options.push(option);
                }
                continue;
            }
            ("options", None) => "options changed".to_owned(),
            ("revision" | "provider", _) => format!("module revision changed{}", from_to(change)),
            ("source-epoch", _) => format!("source epoch changed{}", from_to(change)),
            ("build", _) => format!("build tree changed{}", from_to(change)),
            ("runner", _) => format!("runner of the build tree changed{}", from_to(change)),
            ("host", Some(name)) => host_words(name, parts.next(), change),
            (part, name) => {
                let part = part.strip_suffix('s').unwrap_or(part);
                let what = match (&change.old, &change.new) {
                    (None, Some(_)) if name.is_some() && parts.next().is_none() => "added",
                    (Some(_), None) if name.is_some() => "removed",
                    _ => "changed",
                };
                [part, name.unwrap_or_default(), what]
                    .iter()
                    .filter(|word| !word.is_empty())
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        };
        if !others.contains(&word) {
            others.push(word);
        }
    }
    if !options.is_empty() {
        others.insert(0, format!("options changed: {}", unescaped(&options.join(", "))));
    }
    others.join("; ")
}

/// What changed about a tool or file of the host: its part `content`, or that the stage needs it at all.
fn host_words(name: &str, part: Option<&str>, change: &Change) -> String {
    let name = unescaped(name);
    let what = if name.starts_with('/') { "file" } else { "tool" };
    let is_absent = |value: &Option<Value>| value.as_ref().is_some_and(|value| value == ABSENT);
    match (part, &change.old) {
        (None, None) => format!("the {what} {name} of this machine is used now"),
        (None, Some(_)) => format!("the {what} {name} of this machine is not used any more"),
        _ if is_absent(&change.old) => format!("the {what} {name} of this machine was installed"),
        _ if is_absent(&change.new) => format!("the {what} {name} of this machine was removed"),
        _ => format!("the {what} {name} of this machine changed"),
    }
}

/// A part of a JSON pointer (RFC 6901) as it is meant.
fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn from_to(change: &Change) -> String {
    let text = |value: &Option<Value>| match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => short(text),
        Some(other) => short(&other.to_string()),
    };
    format!(" {} → {}", text(&change.old), text(&change.new))
}

/// A line for each change: `/options/hostname: "a" → "b"`.
pub(crate) fn change_lines(changes: &[Change]) -> Vec<String> {
    let text = |value: &Value| short(&value.to_string());
    let line = |change: &Change| match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{}: {} → {}", change.path, text(old), text(new)),
        (None, Some(new)) => format!("{}: added {}", change.path, text(new)),
        (Some(old), None) => format!("{}: removed {}", change.path, text(old)),
        (None, None) => change.path.clone(),
    };
    changes.iter().map(line).collect()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_on_the_machine_is_named() {
        let change = |path: &str, old: &str, new: &str| {
            let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
            Change { path: path.to_owned(), old: value(old), new: value(new) }
        };
        for (change, words) in [
            (change("/host/mkfs.ext4/content", "absent", "01"), "the tool mkfs.ext4 of this machine was installed"),
            (change("/host/mkfs.ext4/content", "01", "absent"), "the tool mkfs.ext4 of this machine was removed"),
            (change("/host/mkfs.ext4/content", "01", "02"), "the tool mkfs.ext4 of this machine changed"),
            (change("/host/~1usr~1lib~1a~0b/content", "01", "02"), "the file /usr/lib/a~b of this machine changed"),
            (change("/host/cp", "", "cp"), "the tool cp of this machine is used now"),
            (change("/host/cp", "cp", ""), "the tool cp of this machine is not used any more"),
        ] {
            assert_eq!(changed_words(&[change]), words);
        }
    }
}
