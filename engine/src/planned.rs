//! A plan with the lease that it was made with, and its run.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use osbc_executor::event::{Event, Monitor, Tee};
use osbc_executor::machine::Host;
use osbc_executor::record::{About, ManifestName};
use osbc_executor::{Parts, RunError, Settings, run};
use osbc_ir::Plan;
use osbc_ir::graph::NodeIndex;
use osbc_sandbox::client::StageRunner;
use osbc_sandbox::client::shell::{ShellRunner, ShellUi, When};
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::osbuild::Checkpoints;
use osbc_store::{Damage, Lease, Transaction};

use crate::export::Concurrent;
use crate::process::local_runner;
use crate::{Built, Error, Session, requirements};

/// A problem that a user should know of before a build, but that does not prevent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Something in the store was damaged; it is moved out of the way and made again.
    Damaged(Damage),
    /// The store has less room than the build is expected to need.
    LittleRoom {
        /// The store's directory.
        store: PathBuf,
        /// How many bytes the build is expected to write.
        need: u64,
        /// How many bytes are free.
        have: u64,
    },
}

/// A plan that can be run, and the lease that keeps what it uses in the store.
#[derive(Debug)]
pub struct Planned<'s> {
    session: &'s Session,
    plan: Arc<Plan>,
    lease: Lease,
    checkpoints: Option<Checkpoints>,
    always_run: Option<NodeIndex>,
    warnings: Vec<Warning>,
}

/// How a build is done.
pub struct BuildOptions<'a> {
    /// How many stages run at the same time. By default as many as there are processors.
    pub jobs: NonZeroUsize,
    /// Whether nodes that do not depend on a failure still run after it.
    pub keep_going: bool,
    /// The jobserver of the `make` that the program runs under; stages then run with its tokens.
    pub jobserver: Option<jobserver::Client>,
    /// How long a stage may take.
    pub stage_timeout: Option<Duration>,
    /// The stages that run in a virtual machine.
    pub in_vm: BTreeSet<NodeIndex>,
    /// When shells are opened in sandboxes, and what connects them to the user.
    pub shell: Option<(When, &'a dyn ShellUi)>,
    /// Where each result is copied as soon as it is made, to a directory of its name.
    pub output: Option<&'a Path>,
    /// The file that the manifest was read from, by which the records of its builds are found again; `-` if none.
    pub manifest: &'a Path,
    /// The command line that the record of the build shows, program first.
    pub arguments: Vec<String>,
}

impl Default for BuildOptions<'_> {
    fn default() -> Self {
        Self {
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            keep_going: false,
            jobserver: None,
            stage_timeout: None,
            in_vm: BTreeSet::new(),
            shell: None,
            output: None,
            manifest: Path::new("-"),
            arguments: Vec::new(),
        }
    }
}

/// A monitor that shows nothing.
pub struct Silent;

impl Monitor for Silent {
    fn event(&mut self, _: Duration, _: &Event<'_>) {}
}

impl<'s> Planned<'s> {
    pub(crate) fn new(
        session: &'s Session,
        plan: Plan,
        (lease, checkpoints): (Lease, Option<Checkpoints>),
        always_run: Option<NodeIndex>,
        warnings: Vec<Warning>,
    ) -> Self {
        Self { session, plan: Arc::new(plan), lease, checkpoints, always_run, warnings }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The lease that it was made with.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns what a user should know before it runs.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Checks that this machine has what the plan needs; stages of `in_vm` have their own kernel.
    ///
    /// # Errors
    /// [`Error::Machine`] with all that is missing, who needs it, and how to get it; [`Error::Library`] if a module
    /// cannot be described.
    pub fn check_machine(&self, in_vm: &BTreeSet<NodeIndex>) -> Result<(), Error> {
        match requirements::missing(&self.plan, &self.session.catalog, in_vm)? {
            Some(reason) => Err(Error::Machine(reason)),
            None => Ok(()),
        }
    }

    /// Runs the plan, until it is done or `interrupt` is raised. Every failure of a stage or download is in the
    /// outcome.
    ///
    /// All events reach `monitor` on this thread. With [`BuildOptions::output`] results are exported meanwhile.
    ///
    /// # Errors
    /// The plan could not be run, or the store did not take its results.
    pub fn run(
        self,
        options: &BuildOptions<'_>,
        monitor: &mut dyn Monitor,
        interrupt: &Interrupt,
    ) -> Result<Built, RunError> {
        let Self { session, plan, lease, checkpoints, always_run, warnings: _ } = self;
        let transaction = Transaction::begin(lease)?.with_checkpoints(checkpoints);
        let settings = Settings {
            jobs: options.jobs,
            keep_going: options.keep_going,
            jobserver: options.jobserver.clone(),
            stage_timeout: options.stage_timeout,
            in_vm: options.in_vm.clone(),
            always_run,
            host_runner: session.host.clone(),
            environment: session.environment.sources.clone(),
            host_environment: session.environment.host.clone(),
        };
        let about =
            About { manifest: ManifestName::new(options.manifest, &plan.graph), arguments: options.arguments.clone() };
        let runner = local_runner(&session.environment.terminal);
        let shells = options.shell.as_ref().map(|(when, user)| ShellRunner::new(&runner, when.clone(), *user));
        let machine = Host { disk: transaction.store().path().to_owned() };
        let build = |monitor: &mut dyn Monitor| {
            let parts = Parts {
                runner: shells.as_ref().map_or(&runner as &dyn StageRunner, |shells| shells),
                catalog: &session.catalog,
                monitor,
                machine: &machine,
                interrupt,
                settings: &settings,
                about: &about,
            };
            run(&plan, &transaction, parts)
        };
        let (outcome, exported, not_exported) = match options.output {
            Some(output) => {
                let exports = Concurrent { plan: &plan, lease: &transaction, output, interrupt };
                exports.beside(|watcher| build(&mut Tee(vec![Box::new(monitor), Box::new(watcher)])))?
            }
            None => (build(monitor)?, Vec::new(), Vec::new()),
        };
        if outcome.success() && !outcome.interrupted {
            transaction.complete_checkpoints(&plan.graph)?;
        }
        Ok(Built { plan, transaction, outcome, exported, not_exported })
    }
}
