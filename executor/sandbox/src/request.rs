//! What crosses the boundary to the process that runs one stage: plain data, so that the same stage could run in a
//! virtual machine or on a remote worker.
//!
//! Trees are named by directories of the store, never by content.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use osbc_ir::{Cause, InputOrigin, Kind, Resource, Value};
use osbc_module_api::OnDisk;
use osbc_store::TreeStack;
use serde::{Deserialize, Serialize};

/// All that a stage needs, self-contained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRequest {
    /// The stage's own id, as it sees it.
    pub id: String,
    /// The stage's module.
    pub module: ModuleRequest,
    /// Its options, an object.
    pub options: Value,
    /// Its inputs, in order.
    pub inputs: Vec<InputRequest>,
    /// Its devices, parents before children.
    pub devices: Vec<DeviceRequest>,
    /// Its mounts, in the order in which they are made.
    pub mounts: Vec<MountRequest>,
    /// Seconds since 1970 for "now".
    pub source_epoch: Option<i64>,
    /// The tree that it changes.
    pub tree: TreeStack,
    /// The tree that it runs in; the host's when none.
    pub build_root: Option<TreeStack>,
    /// What a runner made in that one, as a file with a snapshot; `None` if nothing is made.
    #[serde(with = "osbc_store::fs::paths")]
    pub prepared: Option<PathBuf>,
    /// The runner that starts it, e.g. `org.osbuild.debian`.
    pub runner: String,
    /// The runner's executable where it has to be run; `None` if it is built in, and for a built-in module.
    #[serde(with = "osbc_store::fs::paths")]
    pub runner_file: Option<PathBuf>,
    /// What on-disk modules on the host's side work with; `None` if all those are built in.
    pub host: Option<HostRequest>,
    /// An existing empty directory on the store's file system, this stage's alone, for `/var`, inputs and mount points.
    ///
    /// Whoever sends the request removes it afterwards.
    #[serde(with = "osbc_store::fs::paths")]
    pub scratch: PathBuf,
    /// The capabilities that it has besides the usual ones.
    pub capabilities: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Whether it runs in a virtual machine ([`crate::vm`]).
    pub in_vm: bool,
    /// A shell in its place.
    pub shell: Option<ShellRequest>,
}

/// The exit code of a shell that cannot be started, as with sh(1).
pub const SHELL_NOT_STARTED: i32 = 127;

/// A shell where a stage is ([`crate::client::shell`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellRequest {
    /// The socket of whoever connects it to the user.
    #[serde(with = "osbc_store::fs::paths")]
    pub socket: PathBuf,
    /// When it comes.
    pub moment: ShellMoment,
}

/// When a shell comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellMoment {
    /// Before the module, which then runs unless the shell says that it failed.
    Before,
    /// In place of the module.
    Instead,
    /// After the module has failed.
    AfterFailure,
}

/// What on-disk inputs, devices and mounts work with: they are programs on the host's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRequest {
    /// The directory with the source items of the store.
    #[serde(with = "osbc_store::fs::paths")]
    pub sources: PathBuf,
    /// Their environment.
    pub environment: BTreeMap<String, String>,
}

/// A module by name and, unless built in, by file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRequest {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Where an on-disk module is; none for a built-in one.
    pub on_disk: Option<OnDisk>,
}

/// An input to be made visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// Its name within the stage.
    pub name: String,
    /// Its module.
    pub module: ModuleRequest,
    /// What its references refer to.
    pub origin: InputOrigin,
    /// Its references, in order.
    pub references: Vec<ReferenceRequest>,
    /// Its options, an object.
    pub options: Value,
}

/// One reference of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRequest {
    /// The tree's id or the item's checksum, as the stage sees it.
    pub id: String,
    /// The options of this reference, an object.
    pub options: Value,
    /// Where the thing is.
    pub from: ReferenceFrom,
}

/// Where a referenced thing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceFrom {
    /// A tree; an empty one when the stack has no layer.
    Tree(TreeStack),
    /// An item in the store: a file or, for some content types, a directory.
    Item(#[serde(with = "osbc_store::fs::paths")] PathBuf),
}

/// A device to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// Its name within the stage.
    pub name: String,
    /// Its module.
    pub module: ModuleRequest,
    /// The device that it lies on: an index into [`StageRequest::devices`], smaller than its own.
    pub parent: Option<usize>,
    /// Its options, an object.
    pub options: Value,
}

/// A mount to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Its name within the stage.
    pub name: String,
    /// Its module.
    pub module: ModuleRequest,
    /// The device: an index into [`StageRequest::devices`].
    pub source: Option<usize>,
    /// The partition of the device, starting at one.
    pub partition: Option<u32>,
    /// Where below the mounts' root.
    pub target: Option<String>,
    /// Its options, an object.
    pub options: Value,
}

/// What the process that runs a stage says to whoever asked for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StageMessage {
    /// A line that a service wrote.
    ServiceOutput(String),
    /// That the descriptor that comes with it is a listener: any call at it makes what no layer can hold.
    Watch,
    /// That all is over.
    Reply(Box<StageReply>),
}

/// What the process that ran a stage gives back. Its output went to the pipes that it was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReply {
    /// The metadata that the stage set; `null` when none.
    pub metadata: Value,
    /// `None` if the stage succeeded.
    pub failure: Option<StageFailure>,
    /// What to say behind the failure: a file system that the stage has mounted and that is full.
    pub hint: Option<String>,
    /// How many bytes the stage and what it started wrote to disks, where the system counts them.
    pub written: Option<u64>,
    /// The most memory that one of its processes had, in bytes.
    pub memory: Option<u64>,
    /// The exception that an on-disk module reported: an object with `type`, `value` and `traceback`.
    pub exception: Option<Value>,
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum StageFailure {
    /// The module said so.
    Module(String),
    /// The program of an on-disk module ended with this exit status.
    Exited(i32),
    /// The stage's surroundings could not be prepared or taken down: an input, a device, a mount, the sandbox.
    Environment(String),
    /// It took longer than it may.
    TimedOut(Duration),
    /// It died by a signal or lost its process otherwise.
    Died(String),
    /// The machine had no more of something.
    Exhausted(Resource, String),
    /// The build was ended.
    Interrupted,
    /// It makes what a tree in layers cannot hold (a character device with the number 0), and has to run again on a plain
    /// directory.
    NeedsPlainTree,
}

impl StageFailure {
    /// Returns the failure of a stage's surroundings for `reason`, which `error` led to.
    pub(crate) fn environment(reason: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        if lacked_task(error) {
            Self::Exhausted(Resource::Tasks, reason.into())
        } else {
            Self::Environment(reason.into())
        }
    }

    /// Returns the failure with another reason, made from its own; one that needs none stays as it is.
    pub fn map_reason(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Module(reason) => Self::Module(change(reason)),
            Self::Environment(reason) => Self::Environment(change(reason)),
            Self::Died(reason) => Self::Died(change(reason)),
            Self::Exhausted(resource, reason) => Self::Exhausted(resource, change(reason)),
            Self::Exited(_) => Self::Module(change(self.to_string())),
            Self::TimedOut(_) | Self::Interrupted | Self::NeedsPlainTree => self,
        }
    }

    /// What the stage failed of.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Module(_) | Self::Exited(_) | Self::Died(_) => Cause::Module,
            Self::Environment(_) | Self::NeedsPlainTree => Cause::Environment,
            Self::Exhausted(resource, _) => Cause::Exhausted(*resource),
            Self::TimedOut(_) => Cause::TimedOut,
            Self::Interrupted => Cause::Interrupted,
        }
    }
}

impl From<String> for StageFailure {
    fn from(reason: String) -> Self {
        Self::Environment(reason)
    }
}

/// Whether an error, or one that led to it, is the OS's refusal of one more process or thread (`EAGAIN`).
pub fn lacked_task(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Some(error) => error.get_ref().is_some_and(|inner| lacked_task(inner)),
        None => error.source().is_some_and(lacked_task),
    }
}

impl fmt::Display for StageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageFailure::Exited(status) => write!(f, "it ended with exit status {status}"),
            StageFailure::Module(reason)
            | StageFailure::Environment(reason)
            | StageFailure::Died(reason)
            | StageFailure::Exhausted(_, reason) => f.write_str(reason),
            StageFailure::TimedOut(limit) => write!(f, "it took longer than the {limit:?} that a stage may take"),
            StageFailure::Interrupted => f.write_str("interrupted"),
            StageFailure::NeedsPlainTree => f.write_str("it makes a device that overlayfs refuses"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_process_is_found_below_other_errors() {
        let refused = || io::Error::from_raw_os_error(libc::EAGAIN);
        let of_module = osbc_module_api::Error::io("start", "/bin/true")(refused());
        let wrapped = io::Error::other(osbc_module_api::Error::io("start", "/bin/true")(refused()));
        assert!(lacked_task(&refused()) && lacked_task(&of_module) && lacked_task(&wrapped));
        let said = io::Error::other("Resource temporarily unavailable (os error 11)");
        assert!(!lacked_task(&said) && !lacked_task(&io::Error::from(io::ErrorKind::NotFound)));
        let failure = StageFailure::environment("no", &refused());
        assert_eq!(failure.cause(), Cause::Exhausted(Resource::Tasks));
        let failure = failure.map_reason(|reason| format!("input `x`: {reason}"));
        assert_eq!(failure, StageFailure::Exhausted(Resource::Tasks, "input `x`: no".into()));
        assert_eq!(StageFailure::Exited(3).cause(), Cause::Module);
    }
}
