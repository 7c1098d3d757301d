//! Build roots made ready: what a built-in runner makes in one is made once, and given to every stage that runs there.
//!
//! Knows when what was made may be used again; neither what a runner does nor where it is kept ([`osbc_store`]).
//!
//! A build tree is named by its id, so what was made in it stays right, in later builds too. Nothing says whether the
//! host's own tree changed meanwhile, so what was made there holds for one build.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use osbc_ir::{Kind, Resource, StageId};
use osbc_module_api::snapshot::Snapshot;
use osbc_module_api::{Catalog, Provider};
use osbc_sandbox::client::{StageIo, StageRunner};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::request::{ModuleRequest, StageFailure, StageRequest};
use osbc_store::TreeStack;
use osbc_store::{StoreError, Transaction, Work};
use serde_json::json;

/// How many lines of the output of a runner that failed are in its failure.
const LINES: usize = 3;

/// A file with a snapshot, or why there is none.
type Made = Arc<OnceLock<Result<PathBuf, StageFailure>>>;

/// What was made ready, or is being made, in this build.
pub(crate) struct Preparations<'a> {
    catalog: &'a Catalog,
    transaction: &'a Transaction,
    runner: &'a dyn StageRunner,
    interrupt: &'a Interrupt,
    timeout: Option<Duration>,
    known: Mutex<HashMap<(String, Option<StageId>), Made>>,
}

impl<'a> Preparations<'a> {
    pub(crate) fn new(
        catalog: &'a Catalog,
        transaction: &'a Transaction,
        runner: &'a dyn StageRunner,
        interrupt: &'a Interrupt,
        timeout: Option<Duration>,
    ) -> Self {
        Self { catalog, transaction, runner, interrupt, timeout, known: Mutex::default() }
    }

    /// The file with what this runner makes in a build tree, or in the host's where none is given; `None` if it is no
    /// built-in one.
    ///
    /// Who needs the same at the same time waits.
    ///
    /// # Errors
    /// Why it could not be made.
    pub(crate) fn of(
        &self,
        work: &Work<'_>,
        runner: &str,
        tree: Option<(StageId, &TreeStack)>,
    ) -> Result<Option<PathBuf>, StageFailure> {
        let module = self.catalog.module(Kind::Runner, runner).map_err(|error| error.to_string())?;
        let Some(Provider::BuiltIn(definition)) = module.as_ref().map(|module| &module.provider) else {
            return Ok(None);
        };
        let made = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry((runner.to_owned(), tree.map(|(id, _)| id))).or_default())
        };
        let name = tree.map(|(id, _)| format!("{id}-{runner}-{}", definition.revision));
        let make = || {
            let kept = name.as_deref().and_then(|name| self.transaction.prepared(name));
            // One that was cut off by a power cut is made anew.
            if let Some(kept) = kept.filter(|kept| Snapshot::read(kept).is_ok()) {
                return Ok(kept);
            }
            let snapshot = self.make(work, runner, tree)?;
            self.transaction.keep_prepared(name.as_deref(), &snapshot).map_err(|error| of_store(&error))
        };
        made.get_or_init(make).clone().map(Some).map_err(|failure| {
            failure.map_reason(|reason| format!("cannot prepare the build root as {runner} does: {reason}"))
        })
    }

    /// Runs a runner in a sandbox of its own, and returns what it made as text.
    fn make(&self, work: &Work<'_>, runner: &str, tree: Option<(StageId, &TreeStack)>) -> Result<String, StageFailure> {
        let request = StageRequest {
            id: String::new(),
            module: ModuleRequest { kind: Kind::Runner, name: runner.to_owned(), on_disk: None },
            options: json!({"runner": runner}),
            inputs: Vec::new(),
            devices: Vec::new(),
            mounts: Vec::new(),
            source_epoch: None,
            tree: TreeStack { lower: Vec::new(), upper: None },
            build_root: tree.map(|(_, stack)| stack.clone()),
            prepared: None,
            runner: runner.to_owned(),
            runner_file: None,
            host: None,
            scratch: work.scratch().map_err(|error| of_store(&error))?,
            capabilities: Vec::new(),
            timeout: self.timeout,
            in_vm: false,
            shell: None,
        };
        let output = RefCell::new(String::new());
        let take = |text: &str| output.borrow_mut().push_str(text);
        let reply =
            self.runner.run(&request, &StageIo { output: &take, service_output: &take, interrupt: self.interrupt });
        match reply.failure {
            None => Ok(reply.metadata.to_string()),
            Some(StageFailure::Module(reason)) => {
                let output = output.into_inner();
                let lines: Vec<&str> = output.lines().collect();
                let reason = [&[reason.as_str()], &lines[lines.len().saturating_sub(LINES)..]].concat().join("\n");
                Err(StageFailure::Environment(reason))
            }
            Some(failure @ (StageFailure::Exited(_) | StageFailure::Died(_))) => {
                Err(StageFailure::Environment(failure.to_string()))
            }
            Some(failure) => Err(failure),
        }
    }
}

/// The failure of a stage that the store got in the way of.
pub(crate) fn of_store(error: &StoreError) -> StageFailure {
    if error.is_full() {
        StageFailure::Exhausted(Resource::Disk, error.to_string())
    } else {
        StageFailure::Environment(error.to_string())
    }
}
