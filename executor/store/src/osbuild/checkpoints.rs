//! The checkpoints of osbuild's store in a build: which of them it starts from, and which it makes.
//!
//! A checkpoint has osbuild's id, which leaves out a stage's devices and its code; as with osbuild, who names a
//! checkpoint accepts that. Everything else in osbc goes by its own ids, so a checkpoint that is used is made known to
//! the lease as the result of the stage that it is a checkpoint of.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, Edge, Graph, NodeId, StageId, Value};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use crate::error::StoreError;
use crate::fs::copy::{Ownership, Sharing, copy_tree_sharing};
use crate::fs::overlay;
use crate::lease::Lease;
use crate::objects::object::{FORMAT, ObjectMeta, StepRecord};
use crate::objects::work::Work;
use crate::objects::{links, mtime_clamp};
use crate::osbuild::{Cache, Checkpoint};
use crate::tree_stack::TreeStack;

/// The checkpoints of one build.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    cache: Cache,
    /// Those that it starts from, held until it is over.
    _used: Vec<Checkpoint>,
    /// Those that it makes.
    wanted: HashSet<NodeIndex>,
}

impl Lease {
    /// Has the build start from the checkpoints that lie on the way back from `exports`, and make one of each of the
    /// stages of `wanted` that it runs. To be said before the build is planned.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn use_checkpoints(
        &mut self,
        cache: Cache,
        graph: &Graph,
        exports: impl IntoIterator<Item = NodeIndex>,
        wanted: impl IntoIterator<Item = NodeIndex>,
    ) -> Result<(), StoreError> {
        let mut used = Vec::new();
        let mut queue: VecDeque<NodeIndex> = exports.into_iter().collect();
        let mut met: HashSet<NodeIndex> = queue.iter().copied().collect();
        while let Some(node) = queue.pop_front() {
            let Some(stage) = graph.stage_node(node) else { continue };
            if self.present.contains(&graph.id(node)) {
                continue;
            }
            if let Some(checkpoint) = cache.load(stage.compat)? {
                self.hold(stage.id, Arc::new(as_object(graph, node, stage.id, &checkpoint)));
                self.lie_elsewhere(stage.id, checkpoint.data().to_owned());
                self.present.extend([NodeId::Stage(stage.id)]);
                used.push(checkpoint);
                continue;
            }
            let needs = graph.needs(node).filter(|(_, edge)| *edge != Edge::Fetch);
            queue.extend(needs.map(|(node, _)| node).filter(|node| met.insert(*node)));
        }
        self.checkpoints = Some(Checkpoints { cache, _used: used, wanted: wanted.into_iter().collect() });
        Ok(())
    }

    /// Makes the checkpoints that are still missing of results that were there already, and so were not built.
    ///
    /// # Errors
    /// A tree cannot be copied.
    pub fn complete_checkpoints(&self, graph: &Graph) -> Result<(), StoreError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        for &node in &checkpoints.wanted {
            if let Some(stage) = graph.stage_node(node)
                && let Some(tree) = self.tree(stage.id)
                && !checkpoints.cache.has(stage.compat)
            {
                self.store_checkpoint(checkpoints, graph, node, now, &[], &tree)?;
            }
        }
        Ok(())
    }

    /// Copies a tree as the checkpoint of a stage.
    fn store_checkpoint(
        &self,
        checkpoints: &Checkpoints,
        graph: &Graph,
        node: NodeIndex,
        created: i64,
        records: &[StepRecord],
        tree: &TreeStack,
    ) -> Result<(), StoreError> {
        let Some(stage) = graph.stage_node(node) else { return Ok(()) };
        checkpoints.cache.store(stage.compat, |data| {
            let meta = data.join("meta");
            std::fs::DirBuilder::new().mode(0o755).create(&meta).map_err(StoreError::io("make", &meta))?;
            write(&meta, "info", &json!({ "created": created }))?;
            for (node, metadata) in self.metadata_with(graph, node, records) {
                if let Some(stage) = graph.stage_node(node) {
                    write(&meta, &stage.compat.to_string(), &metadata)?;
                }
            }
            copy_to(tree, &data.join("tree"))
        })
    }

    /// Whether osbuild's store has a checkpoint of that id now; not if the build has nothing to do with one.
    pub fn has_checkpoint(&self, id: CompatId) -> bool {
        self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.cache.has(id))
    }

    /// What the stages that led to a result said about it, the result's own stage included, as far as it is known.
    /// Of one that is neither there nor was made, nothing.
    pub fn metadata(&self, graph: &Graph, node: NodeIndex) -> Vec<(NodeIndex, Value)> {
        let Some(stage) = graph.stage_node(node) else { return Vec::new() };
        if self.object(stage.id).is_some() || self.store().reader().read(stage.id).is_some() {
            return self.metadata_with(graph, node, &[]);
        }
        // The build had no need of it; who asks may have.
        let checkpoint = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.cache.load(stage.compat).ok()?);
        let object = checkpoint.map(|checkpoint| as_object(graph, node, stage.id, &checkpoint));
        object.map(|object| self.metadata_with(graph, node, &object.steps)).unwrap_or_default()
    }

    /// The same, where some of the stages have run and nothing of them is sealed yet.
    fn metadata_with(&self, graph: &Graph, node: NodeIndex, records: &[StepRecord]) -> Vec<(NodeIndex, Value)> {
        let mut known: HashMap<StageId, Value> = HashMap::new();
        let mut reader = self.store().reader();
        known.extend(records.iter().map(|step| (step.id, step.metadata.clone())));
        let mut all = Vec::new();
        for node in back(graph, node) {
            let Some(stage) = graph.stage_node(node) else { continue };
            if let Some(object) = self.object(stage.id).or_else(|| reader.read(stage.id)) {
                known.extend(object.steps.iter().map(|step| (step.id, step.metadata.clone())));
            }
            if let Some(metadata) = known.get(&stage.id).filter(|metadata| !metadata.is_null()) {
                all.push((node, metadata.clone()));
            }
        }
        all
    }
}

impl Work<'_> {
    /// Makes the checkpoint of the stage that ran last, if there is to be one. `records` tell of the stages that ran on
    /// this work.
    ///
    /// # Errors
    /// The tree cannot be copied. That there was no room for it under the store's limit is no error.
    pub fn keep_checkpoint(&self, graph: &Graph, node: NodeIndex, records: &[StepRecord]) -> Result<(), StoreError> {
        let Some(checkpoints) = &self.lease.checkpoints else { return Ok(()) };
        let (true, Some(stage)) = (checkpoints.wanted.contains(&node), graph.stage_node(node)) else { return Ok(()) };
        let root = &self.upper().dir;
        links::complete(self).map_err(StoreError::io("complete the hard links of", root))?;
        if let Some(epoch) = graph.stage(stage).0.source_epoch {
            mtime_clamp::clamp(root, self.created, epoch).map_err(StoreError::io("set the times of", root))?;
        }
        let stack = self.stack()?;
        self.lease.store_checkpoint(checkpoints, graph, node, self.created.tv_sec, records, &stack)
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
fn back(graph: &Graph, node: NodeIndex) -> impl Iterator<Item = NodeIndex> {
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
