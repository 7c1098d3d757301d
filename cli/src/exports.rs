//! Brings the results that are wanted to the output directory, each as soon as it is made, while others still are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use osbc_executor::copy::{Copied, Ownership};
use osbc_executor::event::{Event, Monitor};
use osbc_executor::export::{ExportError, export};
use osbc_executor::interrupt::Interrupt;
use osbc_executor::store::Lease;
use osbc_ir::{NodeOutcome, Outcome, Plan};

use crate::exit::Failure;
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
            for _ in 0..COPIES {
                scope.spawn(|| {
                    for index in &next {
                        if !self.interrupt.is_raised() {
                            let result = self.export(index);
                            results.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                        }
                    }
                });
            }
            let mut watcher = Watcher { plan: self.plan, ready, seen: BTreeSet::new() };
            let outcome = build(&mut watcher)?;
            for (index, wanted) in self.plan.exports.iter().enumerate() {
                if wanted.node.is_none_or(|node| outcome.nodes.get(&node).is_some_and(succeeded)) {
                    watcher.tell(index);
                }
            }
            Ok::<_, Failure>((outcome, watcher.seen.len()))
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

    fn place(&self, index: usize) -> PathBuf {
        self.output.join(&self.plan.exports[index].name)
    }

    fn export(&self, index: usize) -> Result<Copied, ExportError> {
        let stage = self.plan.exports[index].node.and_then(|node| self.plan.graph.stage_node(node));
        export(self.lease, stage.map(|stage| stage.id), &self.place(index), Ownership::Keep)
    }
}

/// Hands on each wanted result once, when it is there.
struct Watcher<'a> {
    plan: &'a Plan,
    ready: Sender<usize>,
    seen: BTreeSet<usize>,
}

impl Watcher<'_> {
    fn tell(&mut self, index: usize) {
        if self.seen.insert(index) {
            // Those who copy are there for as long as this is.
            self.ready.send(index).ok();
        }
    }
}

impl Monitor for Watcher<'_> {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        let node = match event {
            Event::Cached { node } => node,
            Event::Finished { node, outcome } if succeeded(outcome) => node,
            _ => return,
        };
        for (index, wanted) in self.plan.exports.iter().enumerate() {
            if wanted.node == Some(*node) {
                self.tell(index);
            }
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
        anstream::eprintln!(
            "osbc: warning: the file system of {} does not take the attribute {} of {}",
            to.display(),
            lost.attribute,
            lost.path.display()
        );
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
