//! Every concrete choice, once: which modules there are, where the store is, who the host is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use osbc_compiler::passes::{self, Keeping, Request};
use osbc_compiler::{Host, SourceText, compile as compile_text};
use osbc_executor::foreseen;
use osbc_executor::store::{Damage, Item, Lease, Store, StoreError, StoreSettings};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Export, Graph, Have, Kind, Plan, Reason, Runner};
use osbc_module_api::host::ThisHost;
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::checksum;
use osbc_modules::foreign::Foreign;
use osbc_modules::runners;

use crate::args::{ManifestArgs, Modules, TargetArgs};
use crate::exit::{Failure, say};
use crate::{env, render, rootless};

/// Where a system says what it is, in order of preference (os-release(5)).
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The content type of plain files.
const FILES: &str = "org.osbuild.files";

/// A compiled manifest and what was asked of it.
pub(crate) struct Prepared {
    pub(crate) catalog: Catalog,
    pub(crate) graph: Arc<Graph>,
    pub(crate) exports: Vec<Export>,
    pub(crate) host: Runner,
}

/// The modules that osbc brings along.
pub(crate) fn builtin_catalog() -> Catalog {
    Catalog::new(vec![Box::new(BuiltIn)])
}

/// The order that most people want: osbc's own modules, and what those lack from the folder.
pub(crate) const BUILT_IN_FIRST: [Modules; 2] = [Modules::BuiltIn, Modules::Libdir];

/// The modules of everybody in `order`, most preferred first.
pub(crate) fn catalog(libdir: Option<&Path>, order: &[Modules]) -> Result<Catalog, Failure> {
    let mut libraries: Vec<Box<dyn Library>> = Vec::new();
    for modules in order {
        let folder = match modules {
            Modules::BuiltIn => {
                libraries.push(Box::new(BuiltIn));
                continue;
            }
            Modules::Libdir => libdir,
            Modules::Folder(folder) => Some(folder.as_path()),
        };
        let Some(folder) = folder else { continue };
        if !folder.is_dir() {
            return Err(Failure::arguments(format!("the module folder {} is not there", folder.display())));
        }
        let folder = std::path::absolute(folder).map_err(Failure::environment)?;
        libraries.push(Box::new(on_disk(folder)));
    }
    Ok(Catalog::new(libraries))
}

/// The modules of a folder.
fn on_disk(folder: PathBuf) -> Foreign {
    Foreign::new(folder).with_python_path(env::python_path())
}

/// The modules that a plan's manifest names, each once.
pub(crate) fn named_modules(plan: &Plan) -> BTreeSet<(Kind, &str)> {
    let manifest = &plan.graph.manifest;
    let stages = manifest.pipelines.iter().flat_map(|pipeline| &pipeline.stages).flat_map(|stage| {
        let inputs = stage.inputs.iter().map(|input| &input.module);
        let devices = stage.devices.iter().map(|device| &device.module);
        let mounts = stage.mounts.iter().map(|mount| &mount.module);
        std::iter::once(&stage.module).chain(inputs).chain(devices).chain(mounts)
    });
    let sources = manifest.sources.iter().map(|source| &source.module);
    stages.chain(sources).map(|module| (module.kind, module.name.as_str())).collect()
}

/// The runner of pipelines that run in the host's tree.
fn host_runner(catalog: &Catalog) -> Result<Runner, Failure> {
    let names = catalog.names(Kind::Runner)?;
    let os_release = OS_RELEASE.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    Ok(runners::for_host(&os_release, names.iter().map(String::as_str)))
}

/// In osbuild's place, the modules of its module folder and, behind them, the built-in ones; or the other way round.
/// Without the folder there are the built-in ones.
pub(crate) fn catalog_for_osbuild(libdir: &Path, native_first: bool) -> Result<Catalog, Failure> {
    let mut libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    if libdir.is_dir() {
        let libdir = std::path::absolute(libdir).map_err(Failure::environment)?;
        libraries.insert(usize::from(native_first), Box::new(on_disk(libdir)));
    }
    Ok(Catalog::new(libraries))
}

/// Compiles a manifest as far as the graph, as written.
pub(crate) fn compile(args: &ManifestArgs) -> Result<(Catalog, Graph, Runner), Failure> {
    compile_with(&args.manifest, catalog(args.libdir.as_deref(), &args.modules)?)
}

/// The same, with these modules.
pub(crate) fn compile_with(manifest: &Path, catalog: Catalog) -> Result<(Catalog, Graph, Runner), Failure> {
    let text = SourceText::read(manifest)?;
    let host = host_runner(&catalog)?;
    let manifest = compile_text(&text, &catalog, Host { runner: &host, tree: &ThisHost::default() })
        .map_err(|report| Failure::Manifest(Box::new(report)))?;
    Ok((catalog, manifest.seal(), host))
}

/// Compiles a manifest, and finds what is asked of it.
pub(crate) fn prepare(manifest: &ManifestArgs, target: &TargetArgs) -> Result<Prepared, Failure> {
    let (catalog, graph, host) = compile(manifest)?;
    let graph = Arc::new(passes::share(graph));
    let exports = if target.exports.is_empty() {
        passes::default_exports(&graph)
    } else {
        passes::resolve_exports(&graph, &target.exports)
    };
    let exports = exports.map_err(Failure::arguments)?;
    Ok(Prepared { catalog, graph, exports, host })
}

/// The plan by what the store has at the moment; the store is only looked at.
pub(crate) fn plan_only(prepared: &Prepared, target: &TargetArgs) -> Result<Plan, Failure> {
    let store = look(target)?;
    let request = Request::Exports(prepared.exports.clone());
    let graph = &prepared.graph;
    let ask = |store: &Store| store.present_asked(graph, |has| passes::ask(graph, &request, has));
    let mut have = store.as_ref().map_or_else(Have::default, ask);
    let first = plan(prepared, request.clone(), &have, store.as_ref())?;
    let Some(store) = store.filter(|_| !first.segments.is_empty()) else { return Ok(first) };
    let mut steps: Vec<NodeIndex> = first.segments.iter().flat_map(|segment| segment.steps.clone()).collect();
    steps.sort_unstable();
    let equal = foreseen(&store, graph, &steps);
    if equal.is_empty() {
        return Ok(first);
    }
    have.extend(equal.iter().map(|node| graph.id(*node)));
    let mut plan = plan(prepared, request, &have, Some(&store))?;
    for node in equal {
        let decision = &mut plan.decisions[node.index()];
        if decision.action == Action::Cached {
            decision.reason = Reason::EqualContent;
        }
    }
    Ok(plan)
}

/// The store as it is, if there is one.
pub(crate) fn look(target: &TargetArgs) -> Result<Option<Store>, Failure> {
    Ok(Store::look(&store_path(target.store.as_deref())?)?)
}

/// The plan of a build, which with `exports` brings results out, and a lease on all that it uses. What it is expected to write has room then, if it can be made.
pub(crate) fn plan_build(
    prepared: &Prepared,
    target: &TargetArgs,
    settings: StoreSettings,
    exports: bool,
) -> Result<(Plan, Lease), Failure> {
    plan_in(prepared, &Store::open(&store_path(target.store.as_deref())?, settings)?, exports)
}

/// The same in an open store.
pub(crate) fn plan_in(prepared: &Prepared, store: &Store, exports: bool) -> Result<(Plan, Lease), Failure> {
    let request = Request::Exports(prepared.exports.clone());
    let graph = &prepared.graph;
    let (plan, lease) = loop {
        let lease = store.lease_asked(graph, |has| passes::ask(graph, &request, has))?;
        let plan = plan(prepared, request.clone(), lease.present(), Some(store))?;
        if !tell_damages(&lease.look_over(&plan, exports, &check_item)?) {
            break (plan, lease);
        }
    };
    if !plan.is_empty()
        && let Some((need, have)) = store.make_room_for(&plan)?
    {
        let (need, have) = (render::bytes(need), render::bytes(have));
        say(&format!(
            "osbc: warning: this build is expected to need {need}, and the store {} has {have}; `--store` names another",
            store.path().display()
        ));
    }
    Ok((plan, lease))
}

/// Warns of what was damaged and is made anew; says whether there is any.
pub(crate) fn tell_damages(damages: &[Damage]) -> bool {
    for Damage { path, reason, .. } in damages {
        say(&format!("osbc: warning: {} was damaged: {reason}; it is set aside and made anew", path.display()));
    }
    !damages.is_empty()
}

/// Whether a fetched item is what its name says, as far as that tells.
pub(crate) fn check_item(item: &Item) -> Result<(), String> {
    if item.content_type == FILES { checksum::check_file(&item.checksum, &item.path) } else { Ok(()) }
}

/// The plan of all that comes before a stage, and of the stage itself whether or not its result is there.
pub(crate) fn plan_stage(prepared: &Prepared, export: Export, store: Option<&Path>) -> Result<(Plan, Lease), Failure> {
    let store = Store::open(&store_path(store)?, StoreSettings::default())?;
    let graph = &prepared.graph;
    let stage = export.node.map(|node| graph.id(node));
    let request = Request::Exports(vec![export]);
    loop {
        let mut have = Vec::new();
        let lease = store.lease_asked(graph, |has| {
            passes::ask(graph, &request, &mut |id| {
                let there = has(id) && Some(id) != stage;
                have.extend(there.then_some(id));
                there
            });
        })?;
        let plan = plan(prepared, request.clone(), &have.into_iter().collect(), Some(&store))?;
        if !tell_damages(&lease.look_over(&plan, false, &check_item)?) {
            return Ok((plan, lease));
        }
    }
}

fn plan(prepared: &Prepared, request: Request, have: &Have, store: Option<&Store>) -> Result<Plan, Failure> {
    plan_with(&prepared.graph, request, have, store)
}

/// A plan by what is there, in the order that the durations of earlier builds suggest.
pub(crate) fn plan_with(
    graph: &Arc<Graph>,
    request: Request,
    have: &Have,
    store: Option<&Store>,
) -> Result<Plan, Failure> {
    let history = store.map(|store| Ok::<_, StoreError>((store, store.history()?))).transpose()?;
    let durations = |graph: &Graph, node: NodeIndex| {
        let (stage, (store, history)) = (graph.stage_node(node)?, history.as_ref()?);
        history.duration(stage.id, &graph.stage(stage).1.module.name, || store.input_bytes(graph, node))
    };
    let keeping = if store.is_none_or(Store::keeps) { Keeping::Every } else { Keeping::None };
    Ok(passes::plan(Arc::clone(graph), request, have, keeping, &durations))
}

/// The store that is named, or the usual one.
pub(crate) fn store_path(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if rootless::is_root() {
        return Ok(PathBuf::from("/var/cache/osbc"));
    }
    let home = env::cache_home();
    home.map(|home| home.join("osbc"))
        .ok_or_else(|| Failure::environment("there is no home folder for the store; name one with --store"))
}
