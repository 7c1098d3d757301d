//! Turns arguments and the environment into the engine's types, for all commands.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use osbc_compiler::SourceText;
use osbc_engine::{BuildOptions, Request, Session, SessionConfig, StoreConfig, builtin, directory, exports};
use osbc_ir::{Export, Graph, Plan};
use osbc_module_api::Library;
use osbc_store::{Store, StoreSettings};

use crate::args::{ManifestArgs, Modules};
use crate::exit::Failure;
use crate::{env, rootless};

/// A compiled manifest, its requested exports, and the session.
pub(crate) struct Prepared {
    pub(crate) session: Session,
    pub(crate) graph: Arc<Graph>,
    pub(crate) exports: Vec<Export>,
}

/// The default order: built-in modules first, then the directory's.
pub(crate) const BUILT_IN_FIRST: [Modules; 2] = [Modules::BuiltIn, Modules::Libdir];

/// Opens a session with the modules of everybody in `order`, most preferred first.
pub(crate) fn session(libdir: Option<&Path>, order: &[Modules]) -> Result<Session, Failure> {
    let mut libraries = Vec::new();
    for modules in order {
        match (modules, libdir) {
            (Modules::BuiltIn, _) => libraries.push(builtin()),
            (Modules::Directory(path), _) => libraries.push(directory(path, env::python_path())?),
            (Modules::Libdir, Some(path)) => libraries.push(directory(path, env::python_path())?),
            (Modules::Libdir, None) => {}
        }
    }
    session_with(libraries)
}

/// Opens a session with these libraries and what the environment says.
pub(crate) fn session_with(libraries: Vec<Box<dyn Library>>) -> Result<Session, Failure> {
    Ok(Session::open(SessionConfig { libraries, environment: env::environment() })?)
}

/// Compiles a manifest as far as the graph, with every stage where it is written.
pub(crate) fn compile_as_written(args: &ManifestArgs) -> Result<Graph, Failure> {
    let text = SourceText::read(&args.manifest)?;
    Ok(session(args.library.libdir.as_deref(), &args.library.modules)?.compile_as_written(&text)?)
}

/// Compiles a manifest, and finds what is asked of it.
pub(crate) fn prepare(args: &ManifestArgs, names: &[String]) -> Result<Prepared, Failure> {
    let session = session(args.library.libdir.as_deref(), &args.library.modules)?;
    let graph = session.compile(&SourceText::read(&args.manifest)?)?;
    let exports = exports(&graph, names).map_err(Failure::arguments)?;
    Ok(Prepared { session, graph, exports })
}

impl Prepared {
    /// Returns what a build would do by what the store has at the moment; the store is only looked at.
    pub(crate) fn preview(&self, store: Option<&Store>) -> Result<Plan, Failure> {
        Ok(self.session.preview(&self.graph, store, &self.request())?)
    }

    /// What is asked for.
    pub(crate) fn request(&self) -> Request {
        Request::results(self.exports.clone())
    }
}

/// How builds are done by the environment and by the arguments that all of them have; `stage_timeout` is in seconds.
pub(crate) fn options(manifest: &Path, jobs: Option<NonZeroUsize>, stage_timeout: Option<u64>) -> BuildOptions<'_> {
    let usual = BuildOptions::default();
    BuildOptions {
        jobs: jobs.unwrap_or(usual.jobs),
        jobserver: env::jobserver(),
        stage_timeout: stage_timeout.map(Duration::from_secs),
        manifest,
        arguments: env::arguments(),
        ..usual
    }
}

/// The store as it is, if there is one.
pub(crate) fn look(named: Option<&Path>) -> Result<Option<Store>, Failure> {
    Ok(Store::open_existing(&store_path(named)?)?)
}

/// The store that is named, or the usual one, to be built in.
pub(crate) fn store(named: Option<&Path>, settings: StoreSettings) -> Result<StoreConfig, Failure> {
    Ok(StoreConfig::Own { path: store_path(named)?, settings })
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
        .ok_or_else(|| Failure::environment("there is no home directory for the store; name one with --store"))
}
