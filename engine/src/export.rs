//! Copies results to the output directory: each as soon as it is made, or all of them after the build.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use osbc_executor::RunError;
use osbc_executor::event::{Event, Monitor};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Export, NodeOutcome, Outcome, Plan};
use osbc_module_api::threads;
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::Lease;
use osbc_store::export::{ExportError, check_destination, export, move_out};
use osbc_store::fs::copy::{Copied, Lost, Ownership};

use crate::Error;

/// How many results are copied at the same time.
const COPIES: usize = 2;

/// An exported result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The export: its pipeline, and how the user named it.
    pub export: Export,
    /// The directory that has its tree.
    pub directory: PathBuf,
    /// The artifact: the only file of the directory, or the directory.
    pub artifact: PathBuf,
    /// The extended attributes that the file system of the directory does not take.
    pub lost: Vec<Lost>,
}

impl Exported {
    fn new(export: &Export, directory: PathBuf, copied: Copied) -> Self {
        let artifact = artifact(&directory);
        Self { export: export.clone(), directory, artifact, lost: copied.lost }
    }
}

/// Checks that results can be exported to `output`, as far as is possible without writing anything.
///
/// # Errors
/// [`Error::ExportName`] if a name is not that of a directory, [`Error::Export`] if something is in the way or `output`
/// cannot be written to.
pub fn check_output(exports: &[Export], output: &Path) -> Result<(), Error> {
    for Export { name, .. } in exports {
        let mut components = Path::new(name).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(Error::ExportName { name: name.clone(), output: output.to_owned() });
        }
    }
    Ok(check_destination(output, exports.iter().map(|export| export.name.as_str()))?)
}

/// Exports every result of a plan to `<output>/<name>/`.
///
/// With [`Ownership::Keep`], a result that would end with the lease, and that nothing else reads, is moved there.
///
/// # Errors
/// A result is not there, or the destination cannot be written to.
pub(crate) fn export_all(
    plan: &Plan,
    lease: &Lease,
    output: &Path,
    ownership: Ownership,
) -> Result<Vec<Exported>, ExportError> {
    let bring = |(index, wanted): (usize, &Export)| {
        let id = wanted.node.and_then(|node| plan.graph.stage_node(node)).map(|stage| stage.id);
        let to = output.join(&wanted.name);
        let is_last = plan.exports[index + 1..].iter().all(|other| other.node != wanted.node);
        let is_moved = match id {
            Some(id) if ownership == Ownership::Keep && is_last => move_out(lease, id, &to)?,
            _ => false,
        };
        let copied = if is_moved { Copied::default() } else { export(lease, id, &to, ownership)? };
        Ok(Exported::new(wanted, to, copied))
    };
    plan.exports.iter().enumerate().map(bring).collect()
}

/// The export of results during a build.
pub(crate) struct Concurrent<'a> {
    /// Names what is wanted.
    pub(crate) plan: &'a Plan,
    /// Has the results.
    pub(crate) lease: &'a Lease,
    /// Gets a directory for each.
    pub(crate) output: &'a Path,
    /// If it is raised, no further copy begins.
    pub(crate) interrupt: &'a Interrupt,
}

impl Concurrent<'_> {
    /// Runs `build` with a monitor that watches for results, and exports them meanwhile.
    ///
    /// Returns the result of the build and, in the plan's order, the finished exports and why the others failed.
    ///
    /// # Errors
    /// That of `build`; what was exported before stays.
    pub(crate) fn beside(
        &self,
        build: impl FnOnce(&mut dyn Monitor) -> Result<Outcome, RunError>,
    ) -> Result<(Outcome, Vec<Exported>, Vec<ExportError>), RunError> {
        let (ready, next) = crossbeam_channel::unbounded::<usize>();
        let results = Mutex::new(BTreeMap::new());
        let outcome = std::thread::scope(|scope| {
            // With this the threads end, also where one is missing.
            let mut watcher = Watcher { ready, waiting: self.by_node(), sent: 0 };
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
            watcher.send(None);
            for (node, _) in outcome.nodes.iter().filter(|(_, outcome)| succeeded(outcome)) {
                watcher.send(Some(*node));
            }
            Ok::<_, RunError>((outcome, watcher.sent))
        });
        let (mut outcome, wanted) = outcome?;
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.interrupted |= results.len() < wanted;
        let (mut exported, mut errors) = (Vec::new(), Vec::new());
        for (index, result) in results {
            match result {
                Ok(copied) => exported.push(Exported::new(&self.plan.exports[index], self.place(index), copied)),
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
    sent: usize,
}

impl Watcher {
    fn send(&mut self, node: Option<NodeIndex>) {
        for index in self.waiting.remove(&node).unwrap_or_default() {
            // Those who copy are there for as long as this is.
            self.ready.send(index).ok();
            self.sent += 1;
        }
    }
}

impl Monitor for Watcher {
    fn event(&mut self, _: Duration, event: &Event<'_>) {
        match event {
            Event::Cached { node } => self.send(Some(*node)),
            Event::Finished { node, outcome } if succeeded(outcome) => self.send(Some(*node)),
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

/// Returns the artifact of an exported directory: the only file in it, or the directory.
fn artifact(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    match entries.as_slice() {
        [only] if only.file_type().is_ok_and(|kind| kind.is_file()) => only.path(),
        _ => directory.join(""),
    }
}
