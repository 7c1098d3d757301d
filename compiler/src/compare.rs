//! Compares two graphs: what differs, and why a stage has another id in the new one.
//!
//! Knows no store and no build; callers choose the graphs.
//!
//! Pipelines are matched by name, and the remaining ones by their stages; stages within them by their facts, then by
//! type, in order ([`align`]). A stage whose id the old graph has is unchanged, wherever it is written. Any other stage
//! has a *first cause* if its own facts differ or its base is another stage than before; otherwise the change follows
//! from a tree that it uses.

mod align;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Edge, Graph, NodeId, PipelineIndex, Value, content};
use serde::Serialize;

pub use align::StagePair;
pub use values::changes_of_values;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Change {
    /// Its place, as a JSON pointer into the facts of a stage: `/options/hostname`, `/source-epoch`, `/inputs/tree`.
    pub path: String,
    /// The old value; `None` if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// The new value; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Why a stage of the new graph has the id that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The old graph has it as well.
    Same,
    /// First: the old graph has no such stage.
    New,
    /// First: its own facts changed.
    Changed {
        /// The changes.
        changes: Vec<Change>,
    },
    /// First: a tree that it uses ends with another stage than before, for example because a stage was removed.
    Tree {
        /// How it uses that tree.
        edge: Edge,
        /// The pipeline that makes the tree: its own, for its base.
        pipeline: String,
        /// The module of the old last stage; `None` for an empty tree.
        old: Option<String>,
        /// The module of the last stage now.
        new: Option<String>,
    },
    /// A tree that it uses has another id.
    Follows {
        /// The first such tree.
        #[serde(skip)]
        from: NodeIndex,
        /// How it uses that tree.
        edge: Edge,
    },
}

impl Cause {
    /// Whether others may follow from it and it follows from nothing.
    pub fn is_first(&self) -> bool {
        matches!(self, Cause::New | Cause::Changed { .. } | Cause::Tree { .. })
    }
}

/// A pipeline in either graph or in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelinePair {
    /// In the old graph.
    pub old: Option<PipelineIndex>,
    /// In the new graph.
    pub new: Option<PipelineIndex>,
    /// Its stages, in the order of the new pipeline with those that are gone at their old places.
    pub stages: Vec<StagePair>,
}

/// Two graphs compared.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The graph of before.
    pub old: &'a Graph,
    /// The graph of now.
    pub new: &'a Graph,
    /// The pipelines of the new graph in its order, then those that are gone.
    pub pipelines: Vec<PipelinePair>,
    /// For every node of the new graph, by its index; items are the same or new.
    causes: Vec<Cause>,
}

/// A first cause that several stages of one pipeline share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstCause {
    /// The stages, in order.
    pub stages: Vec<NodeIndex>,
    /// How many others follow from them.
    pub follow: usize,
}

impl<'a> Comparison<'a> {
    /// Compares.
    pub fn new(old: &'a Graph, new: &'a Graph) -> Self {
        let pipelines = align::pipelines(old, new);
        let mut comparison = Self { old, new, pipelines, causes: vec![Cause::New; new.dag.node_count()] };
        let counterparts = comparison.counterparts();
        let names = comparison.old_names();
        // Needs have lower indices than what needs them.
        for node in new.dag.node_indices() {
            let id = new.id(node);
            let cause = match (old.by_id.contains_key(&id), id, counterparts.get(&node)) {
                (true, ..) => Cause::Same,
                (false, NodeId::Item(_), _) | (false, _, None) => Cause::New,
                (false, NodeId::Stage(_), Some(before)) => comparison.cause_of(node, *before, &names),
            };
            comparison.causes[node.index()] = cause;
        }
        comparison
    }

    /// Why a node of the new graph has its id.
    pub fn cause(&self, node: NodeIndex) -> &Cause {
        &self.causes[node.index()]
    }

    /// Returns the differences between the stages of a pair; nothing if one of them is missing.
    pub fn changes(&self, pair: &PipelinePair, stages: &StagePair) -> Vec<Change> {
        let node = |graph: &Graph, pipeline: Option<PipelineIndex>, position: Option<usize>| {
            Some(graph.pipelines[pipeline?.0].stages[position?])
        };
        let old = node(self.old, pair.old, stages.old);
        let new = node(self.new, pair.new, stages.new);
        let (Some(old), Some(new)) = (old, new) else { return Vec::new() };
        self.own_changes(new, old, &self.old_names())
    }

    /// The first causes that something follows from or that are themselves, in order, equal ones of one pipeline as
    /// one. `wanted` says which nodes count.
    pub fn first_causes(&self, wanted: impl Fn(NodeIndex) -> bool) -> Vec<FirstCause> {
        let mut groups: Vec<FirstCause> = Vec::new();
        let mut known: HashMap<(PipelineIndex, Vec<Change>), usize> = HashMap::new();
        let firsts = self.new.dag.node_indices().filter(|node| self.cause(*node).is_first() && wanted(*node));
        for node in firsts.filter(|node| self.new.stage_node(*node).is_some()) {
            let pipeline = self.new.stage_node(node).map(|stage| stage.pipeline);
            let group = match (self.cause(node), pipeline) {
                (Cause::Changed { changes }, Some(pipeline)) => {
                    *known.entry((pipeline, changes.clone())).or_insert(groups.len())
                }
                _ => groups.len(),
            };
            match groups.get_mut(group) {
                Some(group) => group.stages.push(node),
                None => groups.push(FirstCause { stages: vec![node], follow: 0 }),
            }
        }
        for group in &mut groups {
            group.follow = self.following(&group.stages).iter().filter(|node| wanted(**node)).count();
        }
        groups
    }

    /// The first causes that a node follows from, in order; itself if it is one.
    pub fn roots(&self, node: NodeIndex) -> Vec<NodeIndex> {
        let mut roots = BTreeSet::new();
        let mut met = BTreeSet::from([node]);
        let mut queue = VecDeque::from([node]);
        while let Some(node) = queue.pop_front() {
            match self.cause(node) {
                Cause::Same => {}
                Cause::Follows { .. } => {
                    queue.extend(self.new.needs(node).map(|(need, _)| need).filter(|need| met.insert(*need)))
                }
                _ => drop(roots.insert(node)),
            }
        }
        roots.into_iter().collect()
    }

    /// The stages that have another id because of these, without themselves.
    fn following(&self, causes: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        let mut met = BTreeSet::new();
        let mut queue: VecDeque<NodeIndex> = causes.iter().copied().collect();
        while let Some(node) = queue.pop_front() {
            let users = self.new.users(node).map(|(user, _)| user);
            queue.extend(users.filter(|user| matches!(self.cause(*user), Cause::Follows { .. }) && met.insert(*user)));
        }
        met
    }

    /// For the stages of the new graph, at the place where they were written first, the old one that each is paired
    /// with.
    fn counterparts(&self) -> HashMap<NodeIndex, NodeIndex> {
        let mut counterparts = HashMap::new();
        for pair in &self.pipelines {
            let (Some(old), Some(new)) = (pair.old, pair.new) else { continue };
            for stages in &pair.stages {
                if let (Some(before), Some(now)) = (stages.old, stages.new) {
                    let node = self.new.pipelines[new.0].stages[now];
                    counterparts.entry(node).or_insert(self.old.pipelines[old.0].stages[before]);
                }
            }
        }
        counterparts
    }

    /// What the old pipelines are called now, by their index.
    fn old_names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.old.manifest.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        for pair in &self.pipelines {
            if let (Some(old), Some(new)) = (pair.old, pair.new) {
                names[old.0] = &self.new.manifest.pipeline(new).name;
            }
        }
        names
    }

    fn own_changes(&self, node: NodeIndex, before: NodeIndex, old_names: &[&str]) -> Vec<Change> {
        let old = content::own_facts(self.old, before, |pipeline| old_names[pipeline.0]);
        let new = content::own_facts(self.new, node, |pipeline| &self.new.manifest.pipeline(pipeline).name);
        values::changes_of_facts(old, new)
    }

    fn cause_of(&self, node: NodeIndex, before: NodeIndex, old_names: &[&str]) -> Cause {
        let changes = self.own_changes(node, before, old_names);
        if !changes.is_empty() {
            return Cause::Changed { changes };
        }
        let mut needs: Vec<(Edge, NodeIndex)> = self.new.needs(node).map(|(need, edge)| (edge, need)).collect();
        needs.sort_unstable();
        let other = needs.into_iter().find(|(edge, need)| *edge != Edge::Fetch && *self.cause(*need) != Cause::Same);
        match other {
            Some((edge, from)) => Cause::Follows { from, edge },
            // All that it works on was there before, but somewhere else.
            None => self.other_tree(node, before),
        }
    }

    /// The first tree that a stage works on which ends with another stage than that of its counterpart.
    fn other_tree(&self, node: NodeIndex, before: NodeIndex) -> Cause {
        let pipeline = self.new.stage_node(node).map(|stage| self.new.stage(stage));
        let (pipeline, stage) = pipeline.expect("only stages have a cause");
        let base = (Edge::Base, pipeline.name.as_str(), self.old.base(before), self.new.base(node));
        let build = pipeline.build.into_iter().map(|build| (Edge::Build, build));
        let read = build.chain(stage.pipelines().map(|read| (Edge::Input, read)));
        let trees = read.map(|(edge, index)| {
            let partner = self.pipelines.iter().find(|pair| pair.new == Some(index)).and_then(|pair| pair.old);
            let old = partner.and_then(|partner| self.old.pipelines[partner.0].last());
            (edge, self.new.manifest.pipeline(index).name.as_str(), old, self.new.pipelines[index.0].last())
        });
        let id = |graph: &Graph, node: Option<NodeIndex>| node.map(|node| graph.id(node));
        let other =
            std::iter::once(base).chain(trees).find(|(_, _, old, new)| id(self.old, *old) != id(self.new, *new));
        let (edge, pipeline, old, new) = other.unwrap_or(base);
        Cause::Tree { edge, pipeline: pipeline.to_owned(), old: module(self.old, old), new: module(self.new, new) }
    }
}

fn module(graph: &Graph, node: Option<NodeIndex>) -> Option<String> {
    Some(graph.stage(graph.stage_node(node?)?).1.module.name.clone())
}

/// A source item that is only in one of two manifests, or fetched in another way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemChange {
    /// The module that fetches it.
    pub source: String,
    /// What it is checked against.
    pub checksum: String,
    /// How it is fetched differently; nothing for an item that is new or gone.
    pub changes: Vec<Change>,
    /// Whether the old manifest has it.
    #[serde(skip)]
    pub was: bool,
    /// Whether the new manifest has it.
    #[serde(skip)]
    pub is: bool,
}

/// What is different among the source items of two manifests, by source and checksum.
pub fn items(old: &Graph, new: &Graph) -> Vec<ItemChange> {
    type Items<'g> = BTreeMap<(&'g str, &'g str), &'g Value>;
    fn all(graph: &Graph) -> Items<'_> {
        let sources = graph.manifest.sources.iter();
        let items = sources.flat_map(|source| source.items.iter().map(move |item| (source, item)));
        items
            .map(|(source, item)| ((source.module.name.as_str(), item.key.checksum.as_str()), &item.description))
            .collect()
    }
    let (old, new) = (all(old), all(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |key: &(&str, &str)| {
        let (was, is) = (old.get(key), new.get(key));
        let changes = match (was, is) {
            (Some(was), Some(is)) if was == is => return None,
            (Some(was), Some(is)) => changes_of_values(was, is),
            _ => Vec::new(),
        };
        let (source, checksum) = (key.0.to_owned(), key.1.to_owned());
        Some(ItemChange { source, checksum, changes, was: was.is_some(), is: is.is_some() })
    };
    keys.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests;
