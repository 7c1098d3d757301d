//! One stage, as the process that prepares it sees it: surroundings, inputs, devices, mounts, the stage, and all of it
//! taken down in reverse.
//!
//! Runs in the helper (`helper`), as the first process of a pid namespace; what it does to mounts stays in its own
//! mount namespace and ends with it. Knows nothing of the store, the scheduler, or the build.
//!
//! In the request's scratch directory, on the store's file system:
//!
//! ```text
//! var/      the stage's /var
//! inputs/   what input modules make, one directory each; only where there are inputs
//! mounts/   where mount modules mount; only where there are mounts
//! sandbox/  a file system in memory, in this mount namespace only:
//!   root/     the sandbox's root
//!   build/    the build tree
//!   trees/N/  trees that inputs refer to
//! ```

pub(crate) mod message;

mod api;
mod arguments;
mod calls;
mod confine;
mod full;
mod host;
mod inside;
mod isolation;
mod lock;
mod mounts;
mod network;
mod on_disk;
pub(crate) mod root;
mod shell;
mod spec;
mod supervise;
pub(crate) mod sys;
mod teardown;

pub(crate) use isolation::Isolation;
pub(crate) use mounts::leave_mounts;
pub(crate) use network::Network;
pub(crate) use spec::{environment, epoch_variable};
pub(crate) use supervise::{Answered, Supervisor};
pub(crate) use sys::close_descriptors;

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use osbc_module_api::{Catalog, Entry, Error, ModuleDef, OnDisk, Provider, Requirement, StageContext};

use crate::request::{ModuleRequest, StageFailure, StageReply, StageRequest};
use mounts::StageMounts;

/// Runs a stage from its first mount to its last unmount.
///
/// Must be called by the only thread of the first process of a pid namespace; it kills everything else in there. The
/// stage joins the namespaces of `isolation`. Afterwards this process may itself be in the sandbox, with no descriptor
/// open but `client`, where the reply is to be sent (and what services write was): it must end then without using or
/// dropping another.
pub(crate) fn run_stage(
    request: &StageRequest,
    catalog: &Catalog,
    isolation: &Isolation,
    client: &UnixStream,
) -> StageReply {
    let job = match job(catalog, &request.module) {
        Ok(job) => job,
        Err(reason) => return StageReply::failed(StageFailure::Environment(reason)),
    };
    let mut mounts = StageMounts::new(client);
    let mut reply = match mounts.prepare(request, catalog) {
        Ok(()) => {
            let mut reply = inside::run(request, &job, &mut mounts, isolation, client);
            if reply.failure.is_some() {
                reply.hint = mounts.full_mount();
            }
            reply
        }
        Err(failure) => {
            let exception = mounts.host.exception();
            StageReply { exception, ..StageReply::failed(failure) }
        }
    };
    let problems = mounts.close();
    if !problems.is_empty() {
        reply.add_problem(&problems.join("; "));
    }
    reply
}

/// What the built-in module does that a request means.
fn entry(catalog: &Catalog, module: &ModuleRequest) -> Result<Entry, String> {
    definition(catalog, module).map(|definition| definition.entry)
}

/// The built-in module that a request means.
fn definition(catalog: &Catalog, module: &ModuleRequest) -> Result<&'static ModuleDef, String> {
    let found = catalog.module(module.kind, &module.name).map_err(|error| error.to_string())?;
    match found.as_ref().map(Arc::as_ref).map(|module| &module.provider) {
        Some(Provider::BuiltIn(definition)) => Ok(*definition),
        _ => Err(format!("there is no built-in module {}", module.name)),
    }
}

/// What is done in the sandbox.
enum Job<'a> {
    /// A function of ours is called, of a module that needs these things.
    Call(fn(&StageContext) -> Result<(), Error>, &'static [Requirement]),
    /// A program is executed.
    Execute(&'a OnDisk),
}

fn job<'a>(catalog: &Catalog, module: &'a ModuleRequest) -> Result<Job<'a>, String> {
    if let Some(on_disk) = &module.on_disk {
        return Ok(Job::Execute(on_disk));
    }
    let definition = definition(catalog, module)?;
    match definition.entry {
        Entry::Stage(function) => Ok(Job::Call(function, definition.requires)),
        _ => Err(format!("{} is no stage", module.name)),
    }
}

impl StageReply {
    /// The reply of a stage that failed.
    pub fn failed(failure: StageFailure) -> Self {
        let metadata = osbc_module_api::Value::Null;
        Self { metadata, failure: Some(failure), hint: None, exception: None, written: None, memory: None }
    }

    /// Puts a failure of taking down to the reply, which keeps the failure that it has.
    pub(crate) fn add_problem(&mut self, problem: &str) {
        self.failure = Some(match self.failure.take() {
            None => StageFailure::Environment(problem.to_owned()),
            Some(failure) => failure.map_reason(|first| format!("{first}; and then: {problem}")),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_cleanup_hides_no_failure() {
        let mut reply = StageReply::failed(StageFailure::Module("the disk is full".into()));
        reply.add_problem("cannot unmount /x: busy");
        let both = "the disk is full; and then: cannot unmount /x: busy".to_owned();
        assert_eq!(reply.failure, Some(StageFailure::Module(both)));

        let mut reply = StageReply { failure: None, ..StageReply::failed(StageFailure::Interrupted) };
        reply.add_problem("cannot unmount /x: busy");
        assert_eq!(reply.failure, Some(StageFailure::Environment("cannot unmount /x: busy".into())));
    }
}
