//! What a build makes, and the store that it uses.

use std::path::{Path, PathBuf};

use osbc_compiler::passes::{self, ExportError};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Export, Graph, NodeId};
use osbc_store::osbuild::{Cache, Checkpoints, Limit};
use osbc_store::{Lease, Store, StoreError, StoreSettings};

/// Finds pipelines by name or id; without names, the default exports.
///
/// # Errors
/// A name is that of no pipeline; all such are listed.
pub fn exports(graph: &Graph, names: &[String]) -> Result<Vec<Export>, ExportError> {
    if names.is_empty() { passes::default_exports(graph) } else { passes::resolve_exports(graph, names) }
}

/// What a build makes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The results, or the sources alone.
    pub wanted: passes::Request,
    /// Whether the results leave the store after the build; cached ones are then checked too.
    pub is_exported: bool,
    /// A stage that runs even if the store has its result.
    pub always_run: Option<NodeIndex>,
}

impl Request {
    /// Requests results, to stay in the store.
    pub fn results(exports: Vec<Export>) -> Self {
        passes::Request::Exports(exports).into()
    }

    /// Requests that a stage runs, even if the store has its result.
    pub fn stage(stage: Export) -> Self {
        let always_run = stage.node;
        Self { always_run, ..Self::results(vec![stage]) }
    }

    /// Requests that the results leave the store after the build.
    #[must_use]
    pub fn exported(self) -> Self {
        Self { is_exported: true, ..self }
    }

    /// The id of the stage that always runs.
    pub(crate) fn always_run_id(&self, graph: &Graph) -> Option<NodeId> {
        self.always_run.map(|node| graph.id(node))
    }
}

impl From<passes::Request> for Request {
    fn from(wanted: passes::Request) -> Self {
        Self { wanted, is_exported: false, always_run: None }
    }
}

/// The store that a build works in.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A store of osbc's own, which keeps every result.
    Own {
        /// Its directory.
        path: PathBuf,
        /// How it keeps results, and how much it may take.
        settings: StoreSettings,
    },
    /// A store of osbuild's.
    Osbuild(OsbuildStore),
}

/// A store of osbuild's, and what a build keeps there.
#[derive(Debug, Clone)]
pub struct OsbuildStore {
    /// Its directory.
    pub path: PathBuf,
    /// How much all of its objects may take; `None` if that stays as it is.
    pub limit: Option<Limit>,
    /// Whether osbc keeps every result in its own part, and not checkpoints alone.
    pub keeps: bool,
    /// The stages whose results are kept as checkpoints.
    pub checkpoints: Vec<NodeIndex>,
}

impl StoreConfig {
    /// Returns a store of osbc's own with the usual settings.
    pub fn own(path: impl Into<PathBuf>) -> Self {
        StoreConfig::Own { path: path.into(), settings: StoreSettings::default() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        match self {
            StoreConfig::Own { path, .. } => path,
            StoreConfig::Osbuild(store) => &store.path,
        }
    }

    /// Opens the store and takes a lease on all of it that a request leads to.
    pub(crate) fn lease(&self, graph: &Graph, request: &Request) -> Result<(Lease, Option<Checkpoints>), StoreError> {
        let always_run = request.always_run_id(graph);
        let take = |store: Store| {
            store.lease_asked(graph, |has| {
                passes::ask(graph, &request.wanted, &mut |id| has(id) && Some(id) != always_run);
            })
        };
        match self {
            StoreConfig::Own { path, settings } => Ok((take(Store::open(path, *settings)?)?, None)),
            StoreConfig::Osbuild(OsbuildStore { path, limit, keeps, checkpoints }) => {
                let cache = Cache::open(path, *limit)?;
                let mut lease = take(Store::open_within(&cache, *keeps)?)?;
                let exports = match &request.wanted {
                    passes::Request::Exports(exports) => exports.as_slice(),
                    passes::Request::Sources => &[],
                };
                let exported = exports.iter().filter_map(|export| export.node);
                let mut checkpoints = Checkpoints::new(cache, checkpoints.iter().copied());
                checkpoints.start_from(&mut lease, graph, exported)?;
                Ok((lease, Some(checkpoints)))
            }
        }
    }
}
