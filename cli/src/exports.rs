//! Brings the results that are wanted to the output directory, each as soon as it is made, while others still are.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use osbc_executor::copy::{Copied, Ownership};
use osbc_executor::event::{Event, Monitor};
use osbc_executor::export::{ExportError, export};
use osbc_executor::interrupt::Interrupt;
use osbc_executor::store::Lease;
use osbc_ir::graph::NodeIndex;
use osbc_ir::{NodeOutcome, Outcome, Plan};
use osbc_module_api::threads;

use crate::exit::{Failure, say};
use crate::summary::Exported;

/// How many results are copied at the same time.
const COPIES: usize = 2;

/// What is exported, and where to.
pub(crate) struct Exports<'a> {
    /// Names what is wanted.
    pub(crate) plan: &'a Plan,
    /// Has the results.
    pub(crate) lease: &'a Lease,
    /// Gets a folder for each.
    pub(crate) output: &'a Path,
    /// Once it is raised no further copy begins.
    pub(crate) interrupt: &'a Interrupt,
}

impl Exports<'_> {
    /// Has `build` run with a monitor that looks for results, and exports them meanwhile. Returns what came of the build,
    /// and of the exports, in the plan's order: those that are there, and why others are not.
    ///
    /// # Errors
    /// That of `build`; what was exported before stays.
    pub(crate) fn beside(
        &self,
        build: impl FnOnce(&mut dyn Monitor) -> Result<Outcome, Failure>,
    ) -> Result<(Outcome, Vec<Exported>, Vec<ExportError>), Failure> {
        let (ready, next) = crossbeam_channel::unbounded::<usize>();
        let results = Mutex::new(BTreeMap::new());
        let outcome = std::thread::scope(|scope| {
            // With this the threads end, also where one is missing.
            let mut watcher = Watcher { ready, waiting: self.by_node(), told: 0 };
            for _ in 0..COPIES {
                threads::spawn_scoped(scope, || {
                    for index in &next {
                        if !self.interrupt.is_raised() {
                            let result = self.export(index);
                            results.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                        }
                    }
                })?;
            }
            let outcome = build(&mut watcher)?;
            watcher.tell(None);
            for (node, _) in outcome.nodes.iter().filter(|(_, outcome)| succeeded(outcome)) {
                watcher.tell(Some(*node));
            }
            Ok::<_, Failure>((outcome, watcher.told))
        });
        let (mut outcome, wanted) = outcome?;
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.interrupted |= results.len() < wanted;
        let (mut exported, mut errors) = (Vec::new(), Vec::new());
        for (index, result) in results {
            let path = self.place(index);
            match result {
                Ok(copied) => {
                    warn_of_lost(&copied, &path);
                    exported.push(Exported { name: self.plan.exports[index].name.clone(), path: artifact(&path) });
                }
                Err(error) => errors.push(error),
            }
        }
        Ok((outcome, exported, errors))
    }

    /// The indices of the exports of each node, and of those without one.
    fn by_node(&self) -> HashMap<Option<NodeIndex>, Vec<usize>> {
        let mut indices: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, wanted) in self.plan.exports.iter().enumerate() {
            indices.entry(wanted.node).or_default().push(index);
        }
        indices
    }

    fn place(&self, index: usize) -> PathBuf {
        self.output.join(&self.plan.exports[index].name)
    }

    fn export(&self, index: usize) -> Result<Copied, ExportError> {
        let stage = self.plan.exports[index].node.and_then(|node| self.plan.graph.stage_node(node));
        export(self.lease, stage.map(|stage| stage.id), &self.place(index), Ownership::Keep)
    }
}

/// Hands on each wanted result once, when it is there.
struct Watcher {
    ready: Sender<usize>,
    /// The exports of nodes that have no result yet, and of those without a node.
    waiting: HashMap<Option<NodeIndex>, Vec<usize>>,
    /// How many were handed on.
    told: usize,
}

impl Watcher {
    fn tell(&mut self, node: Option<NodeIndex>) {
        for index in self.waiting.remove(&node).unwrap_or_default() {
            // Those who copy are there for as long as this is.
            self.ready.send(index).ok();
            self.told += 1;
        }
    }
}

impl Monitor for Watcher {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        match event {
            Event::Cached { node } => self.tell(Some(*node)),
            Event::Finished { node, outcome } if succeeded(outcome) => self.tell(Some(*node)),
            _ => {}
        }
    }
}

/// Whether a node has a result.
fn succeeded(outcome: &NodeOutcome) -> bool {
    match outcome {
        NodeOutcome::Ran(result) => result.success,
        NodeOutcome::Cached { .. } | NodeOutcome::Equal { .. } => true,
        _ => false,
    }
}

/// Warns of what an export could not keep.
pub(crate) fn warn_of_lost(copied: &Copied, to: &Path) {
    for lost in &copied.lost {
        say(&format!(
            "osbc: warning: the file system of {} does not take the attribute {} of {}",
            to.display(),
            lost.attribute,
            lost.path.display()
        ));
    }
}

/// What people look for in an exported folder: the only file in it, or the folder.
fn artifact(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    match entries.as_slice() {
        [only] if only.file_type().is_ok_and(|kind| kind.is_file()) => only.path(),
        _ => folder.join(""),
    }
}
