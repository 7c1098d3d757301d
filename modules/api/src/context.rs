//! The contexts that the functions of modules get: everything that they may use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use osbc_ir::{InputOrigin, Map, Value};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::host;
use crate::requirement::Requirement;
use crate::tool::Tool;
use crate::tree::Tree;

/// Reads options into a module's own type.
fn typed<T: DeserializeOwned>(options: &Value) -> Result<T, Error> {
    T::deserialize(options).map_err(Error::Options)
}

/// The context of a stage or assembler, inside the sandbox.
#[derive(Debug)]
pub struct StageContext {
    /// The tree that it changes.
    pub tree: Tree,
    /// Its options, an object.
    pub options: Value,
    /// What its module declares that it needs.
    pub requires: &'static [Requirement],
    /// Its inputs by name.
    pub inputs: BTreeMap<String, MappedInput>,
    /// Its devices by name.
    pub devices: BTreeMap<String, OpenDevice>,
    /// Its mounts by name.
    pub mounts: BTreeMap<String, MountPoint>,
    /// What it knows of itself.
    pub meta: StageMeta,
    /// The metadata that it has written.
    pub metadata: RefCell<Value>,
}

/// What a stage knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageMeta {
    /// Its id, in the scheme that the build uses.
    pub id: String,
    /// Seconds since 1970 that it should use for "now" in what it writes.
    pub source_epoch: Option<i64>,
}

/// An input as a stage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedInput {
    /// Where it lies: in [`Entry::Input`](crate::Entry::Input) a path below the target's root, in a stage a path in
    /// the sandbox.
    pub path: PathBuf,
    /// What the input module says about it, e.g. `{"files": {"sha256:…": {}}}`.
    pub data: Value,
}

/// A device as a stage sees it.
#[derive(Debug)]
pub struct OpenDevice {
    /// Its node: as returned by a device module the name below the private `/dev` (`loop0`), in a stage the path
    /// (`/dev/loop0`).
    pub path: PathBuf,
    /// All that the module replied, e.g. `{"node": {"major": 7, "minor": 0}}`.
    pub data: Value,
    /// What must stay open while the stage runs; empty in a stage.
    pub keep: Vec<OwnedFd>,
}

/// A mount as a stage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it lies in the sandbox; for mounts without a place of their own, the root of all mounts.
    pub path: PathBuf,
}

impl StageContext {
    /// The options as the module's own type.
    ///
    /// # Errors
    /// They do not fit.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, Error> {
        typed(&self.options)
    }

    /// The input called `name`.
    ///
    /// # Errors
    /// The manifest gives none.
    pub fn input(&self, name: &str) -> Result<&MappedInput, Error> {
        self.inputs.get(name).ok_or_else(|| Error::failed(format!("the stage needs an input called `{name}`")))
    }

    /// The device called `name`.
    ///
    /// # Errors
    /// The manifest gives none.
    pub fn device(&self, name: &str) -> Result<&OpenDevice, Error> {
        self.devices.get(name).ok_or_else(|| Error::failed(format!("the stage needs a device called `{name}`")))
    }

    /// The mount called `name`.
    ///
    /// # Errors
    /// The manifest gives none.
    pub fn mount(&self, name: &str) -> Result<&MountPoint, Error> {
        self.mounts.get(name).ok_or_else(|| Error::failed(format!("the stage needs a mount called `{name}`")))
    }

    /// Returns a tool of the build root, ready to get arguments.
    ///
    /// # Errors
    /// It is not there.
    ///
    /// # Panics
    /// In a build with debug assertions: the module does not declare to call it, so that ids know nothing of it.
    pub fn tool(&self, name: &str) -> Result<Tool, Error> {
        debug_assert!(
            host::takes(self.requires, &self.options).contains(name),
            "the module's `requires` lacks the tool {name}"
        );
        Tool::find(name)
    }

    /// Returns the stage's own id.
    ///
    /// # Panics
    /// In a build with debug assertions: the module does not declare to write it down.
    pub fn own_id(&self) -> &str {
        debug_assert!(
            self.requires.iter().any(|requirement| matches!(requirement, Requirement::OwnId)),
            "the module's `requires` lacks OwnId"
        );
        &self.meta.id
    }

    /// Sets the metadata of the stage; the last call counts.
    pub fn set_metadata(&self, metadata: Value) {
        self.metadata.replace(metadata);
    }
}

/// The context of an input module, before the sandbox is entered.
#[derive(Debug)]
pub struct InputContext {
    /// What the references refer to.
    pub origin: InputOrigin,
    /// The references, in the manifest's order.
    pub references: Vec<InputReference>,
    /// The input's options, an object.
    pub options: Value,
    /// An empty directory, on the store's file system, for what the stage shall see.
    pub target: PathBuf,
}

/// One reference of an input, resolved.
#[derive(Debug, Clone)]
pub struct InputReference {
    /// The tree's id or the item's checksum, as the stage sees it.
    pub id: String,
    /// The options of this reference, an object.
    pub options: Value,
    /// The tree, mounted read-only, or the item in the store.
    pub path: PathBuf,
}

impl InputContext {
    /// The options as the module's own type.
    ///
    /// # Errors
    /// They do not fit.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, Error> {
        typed(&self.options)
    }
}

/// The context of a device module, before the sandbox is entered.
#[derive(Debug)]
pub struct DeviceContext<'a> {
    /// The private `/dev` of the stage, where nodes are made.
    pub dev: &'a Path,
    /// The stage's tree.
    pub tree: &'a Tree,
    /// The device that this one lies on, with its path below `dev`.
    pub parent: Option<&'a OpenDevice>,
    /// The device's options, an object.
    pub options: &'a Value,
}

impl DeviceContext<'_> {
    /// The options as the module's own type.
    ///
    /// # Errors
    /// They do not fit.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, Error> {
        typed(self.options)
    }
}

/// The context of a mount module, before the sandbox is entered.
#[derive(Debug)]
pub struct MountContext<'a> {
    /// The device's node in the stage's private `/dev`, partition included.
    pub source: Option<PathBuf>,
    /// Where the mount shall appear below `root`, as the manifest gives it.
    pub target: Option<&'a str>,
    /// The directory that holds the stage's mounts.
    pub root: &'a Path,
    /// The stage's tree.
    pub tree: &'a Path,
    /// The mount's options, an object.
    pub options: &'a Value,
}

impl MountContext<'_> {
    /// The options as the module's own type.
    ///
    /// # Errors
    /// They do not fit.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, Error> {
        typed(self.options)
    }
}

/// The context of a source module, in the host's network.
pub struct SourceContext<'a> {
    /// The source's options, an object.
    pub options: &'a Value,
    /// The file or directory to make.
    ///
    /// A part of it may be there from an earlier try that was cut off, to be resumed or overwritten; it is renamed into
    /// the store when the function returns. Where nothing is made, the item is kept elsewhere and asked for again by
    /// the next build.
    pub target: &'a Path,
    /// The directory that holds all items of this content type, for what they have in common besides, such as the
    /// repository that all commits are in.
    pub shared: &'a Path,
    /// To be called now and then with the bytes had so far and, where known, the bytes in all.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
    /// Whether the build was ended: to be asked now and then.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Settings from the environment that the field knows, e.g. `OSBUILD_SOURCES_CURL_PROXY`, by name.
    pub environment: &'a BTreeMap<String, String>,
}

impl SourceContext<'_> {
    /// The options as the module's own type.
    ///
    /// # Errors
    /// They do not fit.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, Error> {
        typed(self.options)
    }
}

impl std::fmt::Debug for SourceContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceContext").field("target", &self.target).finish_non_exhaustive()
    }
}

/// An empty options object.
pub fn no_options() -> Value {
    Value::Object(Map::new())
}
