//! The checkpoints that a build makes in osbuild's store, of results that it ran or found.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, Graph, StageId, Value};

use crate::error::StoreError;
use crate::objects::object::StepRecord;
use crate::objects::work::Work;
use crate::objects::{links, mtime_clamp};
use crate::osbuild::checkpoints::back;
use crate::transaction::Transaction;

impl Transaction {
    /// Makes the checkpoints that are still missing of results that were there already, and so were not built.
    ///
    /// # Errors
    /// A tree cannot be copied.
    pub fn complete_checkpoints(&self, graph: &Graph) -> Result<(), StoreError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        for node in checkpoints.wanted() {
            if let Some(stage) = graph.stage_node(node)
                && let Some(tree) = self.tree(stage.id)?
                && !checkpoints.has(stage.compat)
            {
                checkpoints.store(graph, node, now, &self.metadata_with(graph, node, &[]), &tree)?;
            }
        }
        Ok(())
    }

    /// Whether osbuild's store has a checkpoint of that id now; not if the build has nothing to do with one.
    pub fn has_checkpoint(&self, id: CompatId) -> bool {
        self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.has(id))
    }

    /// What the stages that led to a result said about it, the result's own stage included, as far as it is known.
    ///
    /// Of one that is neither there nor was made, nothing.
    pub fn metadata(&self, graph: &Graph, node: NodeIndex) -> Vec<(NodeIndex, Value)> {
        let Some(stage) = graph.stage_node(node) else { return Vec::new() };
        if self.object(stage.id).is_some() || self.store().reader().read(stage.id).is_some() {
            return self.metadata_with(graph, node, &[]);
        }
        // The build had no need of it; who asks may have.
        let records = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.records(graph, node));
        records.map(|records| self.metadata_with(graph, node, &records)).unwrap_or_default()
    }

    /// The same, where some of the stages have run and nothing of them is committed yet.
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
    /// Makes the checkpoint of the stage that ran last, if there is to be one. `records` are of the stages that ran on
    /// this work.
    ///
    /// # Errors
    /// The tree cannot be copied. That there was no room for it under the store's limit is no error.
    pub fn keep_checkpoint(&self, graph: &Graph, node: NodeIndex, records: &[StepRecord]) -> Result<(), StoreError> {
        let Some(checkpoints) = &self.transaction.checkpoints else { return Ok(()) };
        let (true, Some(stage)) = (checkpoints.wants(node), graph.stage_node(node)) else { return Ok(()) };
        let root = &self.upper().dir;
        links::complete(self).map_err(StoreError::io("complete the hard links of", root))?;
        if let Some(epoch) = graph.stage(stage).0.source_epoch {
            mtime_clamp::clamp(root, self.created, epoch).map_err(StoreError::io("set the times of", root))?;
        }
        let stack = self.stack()?;
        let metadata = self.transaction.metadata_with(graph, node, records);
        checkpoints.store(graph, node, self.created.tv_sec, &metadata, &stack)
    }
}
