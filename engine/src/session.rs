//! A session: the modules, the host's runner and the environment for compiling and building manifests.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use osbc_compiler::passes::{self, Retention};
use osbc_compiler::{Host, Report, SourceText};
use osbc_executor::foreseen;
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, CachedSet, Graph, Plan, Reason, Runner};
use osbc_module_api::host::ThisHost;
use osbc_module_api::{Catalog, Library, LibraryError};
use osbc_modules::downloads::checksum;
use osbc_store::{Damage, Item, Store, StoreError};

use crate::catalog::host_runner;
use crate::requirements::{self, Needed};
use crate::{Error, Planned, Request, StoreConfig, Warning};

/// The content type of plain files.
const FILES: &str = "org.osbuild.files";

/// What a session is opened with.
#[derive(Debug)]
pub struct SessionConfig {
    /// Libraries of modules, most preferred first: [`builtin()`](crate::builtin) and [`directory()`](crate::directory).
    pub libraries: Vec<Box<dyn Library>>,
    /// What stages and sources may know of the environment.
    pub environment: Environment,
}

/// What stages and sources may know of the program's environment. By default, nothing.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The variables that source modules may ask for.
    pub sources: BTreeMap<String, String>,
    /// The environment of on-disk modules on the host's side.
    pub host: BTreeMap<String, String>,
    /// What stages see as `TERM`.
    pub terminal: String,
}

impl Default for Environment {
    fn default() -> Self {
        Self { sources: BTreeMap::new(), host: BTreeMap::new(), terminal: "dumb".to_owned() }
    }
}

/// The modules, the host's runner and the environment that manifests are compiled and built with.
///
/// The tools and files of the host that ids cover are read anew by each compilation.
#[derive(Debug)]
pub struct Session {
    pub(crate) catalog: Catalog,
    pub(crate) host: Runner,
    pub(crate) environment: Environment,
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// A library cannot be read.
    pub fn open(config: SessionConfig) -> Result<Self, LibraryError> {
        let SessionConfig { libraries, environment } = config;
        let catalog = Catalog::new(libraries);
        let host = host_runner(&catalog)?;
        Ok(Self { catalog, host, environment })
    }

    /// The modules.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The runner of pipelines that run in the host's tree.
    pub fn host_runner(&self) -> &Runner {
        &self.host
    }

    /// Compiles a manifest as far as the graph, in which equal stages are one.
    ///
    /// # Errors
    /// All problems of the manifest, with their places.
    pub fn compile(&self, text: &SourceText) -> Result<Arc<Graph>, Box<Report>> {
        Ok(Arc::new(passes::share(self.compile_as_written(text)?)))
    }

    /// Compiles a manifest as far as the graph, in which every stage is at each place where it is written.
    ///
    /// # Errors
    /// All problems of the manifest, with their places.
    pub fn compile_as_written(&self, text: &SourceText) -> Result<Graph, Box<Report>> {
        let host = Host { runner: &self.host, tree: &ThisHost::default() };
        Ok(osbc_compiler::compile(text, &self.catalog, host)?.finalize())
    }

    /// Returns what this machine lacks for a plan, with who needs it and how to get it; `None` if it has everything.
    ///
    /// # Errors
    /// A module cannot be described.
    pub fn missing(&self, plan: &Plan) -> Result<Option<String>, LibraryError> {
        requirements::missing(plan, &self.catalog, &BTreeSet::new())
    }

    /// Returns what a build of `request` into an empty store needs of this machine. Tools of a build root are not in
    /// it: only their stage finds out.
    ///
    /// # Errors
    /// A module cannot be described.
    pub fn needs(&self, graph: &Arc<Graph>, request: &Request) -> Result<Vec<Needed>, Error> {
        let plan = self.preview(graph, None, request)?;
        Ok(requirements::needed(&plan, &self.catalog, &BTreeSet::new())?)
    }

    /// Returns what a build would do by what the store has at the moment. The store is only looked at; `None` if there
    /// is none yet.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn preview(&self, graph: &Arc<Graph>, store: Option<&Store>, request: &Request) -> Result<Plan, StoreError> {
        let ask = |store: &Store| store.present_asked(graph, |has| passes::ask(graph, &request.wanted, has));
        let mut have = store.map_or_else(CachedSet::default, ask);
        let first = plan_by(graph, request, &have, store)?;
        let Some(store) = store.filter(|_| !first.segments.is_empty()) else { return Ok(first) };
        let mut steps: Vec<NodeIndex> = first.segments.iter().flat_map(|segment| segment.steps.clone()).collect();
        steps.sort_unstable();
        let equal = foreseen(store, graph, &steps);
        if equal.is_empty() {
            return Ok(first);
        }
        have.extend(equal.iter().map(|node| graph.id(*node)));
        let mut plan = plan_by(graph, request, &have, Some(store))?;
        for node in equal {
            let decision = &mut plan.decisions[node.index()];
            if decision.action == Action::Cached {
                decision.reason = Reason::EqualContent;
            }
        }
        Ok(plan)
    }

    /// Plans a build, with a lease on all that it uses.
    ///
    /// What is damaged of that is set aside first, and planned to be made anew. In a store of osbc's own, what the
    /// build is expected to write has room then, if it can be made; from one of osbuild's nothing is removed for it, as
    /// osbuild itself does not.
    ///
    /// `graph` is to be one with equal stages as one, as [`Session::compile`] returns it; else they run twice.
    ///
    /// # Errors
    /// The store cannot be opened, read or written to.
    pub fn plan(&self, graph: &Arc<Graph>, store: &StoreConfig, request: &Request) -> Result<Planned<'_>, StoreError> {
        let mut warnings = Vec::new();
        let always_run = request.always_run_id(graph);
        let (plan, lease, checkpoints) = loop {
            let (lease, checkpoints) = store.lease(graph, request)?;
            let have = match always_run {
                None => Cow::Borrowed(lease.present()),
                Some(stage) => {
                    let ids = graph.dag.node_indices().map(|node| graph.id(node));
                    Cow::Owned(ids.filter(|id| *id != stage && lease.present().contains(id)).collect())
                }
            };
            let plan = plan_by(graph, request, &have, Some(lease.store()))?;
            let damages: Vec<Damage> = lease.quick_check(&plan, request.is_exported, &check_item)?;
            if damages.is_empty() {
                break (plan, lease, checkpoints);
            }
            warnings.extend(damages.into_iter().map(Warning::Damaged));
        };
        if let StoreConfig::Own { .. } = store
            && !plan.is_empty()
            && let Some((need, have)) = lease.store().make_room_for(&plan)?
        {
            warnings.push(Warning::LittleRoom { store: lease.store().path().to_owned(), need, have });
        }
        Ok(Planned::new(self, plan, (lease, checkpoints), request.always_run, warnings))
    }
}

/// Returns the plan by what is there, in the order that the durations of earlier builds suggest.
fn plan_by(graph: &Arc<Graph>, request: &Request, have: &CachedSet, store: Option<&Store>) -> Result<Plan, StoreError> {
    let history = store.map(|store| Ok::<_, StoreError>((store, store.history()?))).transpose()?;
    let durations = |graph: &Graph, node: NodeIndex| {
        let (stage, (store, history)) = (graph.stage_node(node)?, history.as_ref()?);
        history.duration(stage.id, &graph.stage(stage).1.module.name, || store.input_bytes(graph, node))
    };
    let keeping = if store.is_none_or(Store::keeps) { Retention::Every } else { Retention::None };
    Ok(passes::plan(Arc::clone(graph), request.wanted.clone(), have, keeping, &durations))
}

/// Checks whether a fetched item is what its name says, as far as that can be known.
///
/// # Errors
/// What is wrong with it.
pub fn check_item(item: &Item) -> Result<(), String> {
    if item.key.content_type == FILES { checksum::check_file(&item.key.checksum, &item.path) } else { Ok(()) }
}
