//! The checkpoints of osbuild's store in a build: which of them it starts from, and which it makes.
//!
//! A checkpoint has osbuild's id, which leaves out a stage's devices and its code; as with osbuild, who names a
//! checkpoint accepts that. Everything else in osbc goes by its own ids, so a checkpoint that is used is made known to
//! the lease as the result of the stage that it is a checkpoint of.

use std::collections::{HashSet, VecDeque};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, Edge, Graph, NodeId, StageId, Value};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use crate::error::StoreError;
use crate::fs::copy::{Ownership, Sharing, copy_tree_sharing};
use crate::fs::overlay;
use crate::lease::Lease;
use crate::objects::object::{FORMAT, ObjectMeta, StepRecord};
use crate::osbuild::{Cache, Checkpoint};
use crate::tree_stack::TreeStack;

/// The checkpoints of one build.
#[derive(Debug)]
pub struct Checkpoints {
    cache: Cache,
    /// Those that it starts from, held until it is over.
    used: Vec<Checkpoint>,
    /// Those that it makes.
    wanted: HashSet<NodeIndex>,
}

impl Checkpoints {
    /// Takes the cache that checkpoints are in, and the stages of which a build makes one if it runs them.
    pub fn new(cache: Cache, wanted: impl IntoIterator<Item = NodeIndex>) -> Self {
        Self { cache, used: Vec::new(), wanted: wanted.into_iter().collect() }
    }

    /// Has the build start from the checkpoints that lie on the way back from `exports`: they become results under the
    /// lease.
    ///
    /// To be called before the build is planned.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start_from(
        &mut self,
        lease: &mut Lease,
        graph: &Graph,
        exports: impl IntoIterator<Item = NodeIndex>,
    ) -> Result<(), StoreError> {
        let mut queue: VecDeque<NodeIndex> = exports.into_iter().collect();
        let mut met: HashSet<NodeIndex> = queue.iter().copied().collect();
        while let Some(node) = queue.pop_front() {
            let Some(stage) = graph.stage_node(node) else { continue };
            if lease.present.contains(&graph.id(node)) {
                continue;
            }
            if let Some(checkpoint) = self.cache.load(stage.compat)? {
                lease.hold(stage.id, Arc::new(as_object(graph, node, stage.id, &checkpoint)));
                lease.lie_elsewhere(stage.id, checkpoint.data().to_owned());
                lease.present.extend([NodeId::Stage(stage.id)]);
                self.used.push(checkpoint);
                continue;
            }
            let needs = graph.needs(node).filter(|(_, edge)| *edge != Edge::Fetch);
            queue.extend(needs.map(|(node, _)| node).filter(|node| met.insert(*node)));
        }
        Ok(())
    }

    /// Whether a checkpoint of this stage is to be made.
    pub(crate) fn wants(&self, node: NodeIndex) -> bool {
        self.wanted.contains(&node)
    }

    /// Returns the stages of which a checkpoint is to be made.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = NodeIndex> {
        self.wanted.iter().copied()
    }

    /// Whether osbuild's store has a checkpoint of this id now.
    pub(crate) fn has(&self, id: CompatId) -> bool {
        self.cache.has(id)
    }

    /// Returns what the stages up to this one reported about themselves, by the checkpoint of it.
    pub(crate) fn records(&self, graph: &Graph, node: NodeIndex) -> Option<Vec<StepRecord>> {
        let stage = graph.stage_node(node)?;
        let checkpoint = self.cache.load(stage.compat).ok()??;
        Some(as_object(graph, node, stage.id, &checkpoint).steps)
    }

    /// Copies a tree as the checkpoint of a stage, with what it and the stages before it reported.
    pub(crate) fn store(
        &self,
        graph: &Graph,
        node: NodeIndex,
        created: i64,
        metadata: &[(NodeIndex, Value)],
        tree: &TreeStack,
    ) -> Result<(), StoreError> {
        let Some(stage) = graph.stage_node(node) else { return Ok(()) };
        self.cache.store(stage.compat, |data| {
            let meta = data.join("meta");
            std::fs::DirBuilder::new().mode(0o755).create(&meta).map_err(StoreError::io("make", &meta))?;
            write(&meta, "info", &json!({ "created": created }))?;
            for (node, metadata) in metadata {
                if let Some(stage) = graph.stage_node(*node) {
                    write(&meta, &stage.compat.to_string(), metadata)?;
                }
            }
            copy_to(tree, &data.join("tree"))
        })
    }
}

/// Copies a tree as it is now.
fn copy_to(tree: &TreeStack, path: &Path) -> Result<(), StoreError> {
    std::fs::create_dir(path).map_err(StoreError::io("make", path))?;
    let from = overlay::open(tree).map_err(StoreError::io("open the tree for", path))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(StoreError::io("open", path))?;
    let copied = copy_tree_sharing(from.as_fd(), to.as_fd(), Ownership::Keep, Sharing::IfPossible);
    let copied = copied.map_err(StoreError::copy(path))?;
    match copied.lost.into_iter().next() {
        None => Ok(()),
        Some(lost) => {
            Err(StoreError::Lossy { path: path.join(lost.path), attribute: lost.attribute, reason: lost.reason })
        }
    }
}

/// A stage and those before it, back to the first.
pub(crate) fn back(graph: &Graph, node: NodeIndex) -> impl Iterator<Item = NodeIndex> {
    std::iter::successors(Some(node), |node| graph.base(*node))
}

/// A checkpoint as the result of its stage, with what the stages before it said.
fn as_object(graph: &Graph, node: NodeIndex, id: StageId, checkpoint: &Checkpoint) -> ObjectMeta {
    let stages = back(graph, node).filter_map(|node| graph.stage_node(node));
    let mut steps: Vec<StepRecord> = stages
        .map(|stage| StepRecord {
            id: stage.id,
            module: graph.stage(stage).1.module.name.clone(),
            metadata: checkpoint.metadata(stage.compat),
            duration: Duration::ZERO,
        })
        .collect();
    steps.reverse();
    ObjectMeta {
        marks: None,
        deltas: Vec::new(),
        format: FORMAT,
        id,
        boot: None,
        base: None,
        instance: String::new(),
        lowers: Vec::new(),
        created: None,
        digest: None,
        stamp: None,
        bytes: 0,
        longest_path: None,
        has_placeholders: false,
        shared: None,
        source_epoch: None,
        steps,
    }
}

fn write(directory: &Path, name: &str, content: &Value) -> Result<(), StoreError> {
    use std::io::Write as _;
    let path = directory.join(format!("{name}.json"));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{content:#}").as_bytes()));
    written.map_err(StoreError::io("write", &path))
}

#[cfg(test)]
mod tests;
