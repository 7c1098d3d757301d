//! What a built-in module declares about itself.

use osbc_ir::{Kind, Value};
use serde::de::DeserializeOwned;

use crate::context::{DeviceContext, InputContext, MappedInput, MountContext, OpenDevice, SourceContext, StageContext};
use crate::error::Error;
use crate::requirement::Requirement;
use crate::schema::Schema;

/// A built-in module: one static per file, found at build time.
#[derive(Debug)]
pub struct ModuleDef {
    /// Its kind; must fit the directory that the file lies in.
    pub kind: Kind,
    /// Its full name, e.g. `org.osbuild.mkfs.ext4`; the file is named after the part behind the second dot, with `_`
    /// for dots and hyphens.
    pub name: &'static str,
    /// Part of every id: raise it when the module gives another result for the same options.
    pub revision: u32,
    /// Capabilities that it needs beyond the sandbox's usual ones, e.g. `CAP_NET_ADMIN`.
    pub capabilities: &'static [&'static str],
    /// What it needs of the machine and of its build root.
    pub requires: &'static [Requirement],
    /// The schemas, as a `.meta.json` would give them.
    pub schema: fn() -> Schema,
    /// Fragments that the schema refuses, for the contract test: a whole stage, device, input, mount or source without
    /// its `type`, e.g. `{"options": {"hostname": 42}}`.
    ///
    /// Those it accepts are the examples of the file's header.
    pub rejects: &'static [&'static str],
    /// Reads options as the entry does and forgets them, mostly `parse::<Options>`: lets the contract test see that
    /// schema and type agree.
    ///
    /// For a source it gets the whole description.
    pub parse: fn(&Value) -> Result<(), Error>,
    /// What it does.
    pub entry: Entry,
}

/// Reads options into a module's own type and forgets them: what [`ModuleDef::parse`] mostly is.
///
/// # Errors
/// They do not fit.
pub fn parse<T: DeserializeOwned>(options: &Value) -> Result<(), Error> {
    T::deserialize(options).map(drop).map_err(Error::Options)
}

/// The function of a module, by kind.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// A stage or assembler: changes the tree. Runs inside the sandbox.
    Stage(fn(&StageContext) -> Result<(), Error>),
    /// Makes the references visible below the target directory. Runs before the sandbox is entered, in the stage's own
    /// mount namespace.
    Input(fn(&InputContext) -> Result<MappedInput, Error>),
    /// Opens a block device. Runs before the sandbox is entered, in the stage's own mount namespace.
    Device(fn(&DeviceContext) -> Result<OpenDevice, Error>),
    /// Mounts a file system and returns where, if anywhere. Runs before the sandbox is entered, in the stage's own
    /// mount namespace; the executor unmounts it.
    Mount(fn(&MountContext) -> Result<Option<std::path::PathBuf>, Error>),
    /// Fetches one item of a source. Runs in the host's network.
    Source(SourceEntry),
}

/// The functions of a source.
#[derive(Debug, Clone, Copy)]
pub struct SourceEntry {
    /// What kind of content it fetches, which is also the directory below `sources/`, e.g. `org.osbuild.files`.
    pub content_type: &'static str,
    /// Returns the size of an item in bytes, if its description states it.
    pub size: fn(&Value) -> Option<u64>,
    /// Fetches one item (checksum, description) to [`SourceContext::target`], verified.
    pub fetch: fn(&SourceContext, &str, &Value) -> Result<(), Error>,
}

/// A row of the registry that the build script writes.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// The module.
    pub def: &'static ModuleDef,
    /// Its file, below `modules/src`.
    pub file: &'static str,
    /// The header of its file: Markdown, a summary line first, with at least one `json` example.
    pub doc: &'static str,
}
