//! The catalog: finds modules by kind and name, in all libraries.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use osbc_ir::{HostFile, Kind, ModuleRef, Revision, Value};
use serde::{Deserialize, Serialize};

use crate::def::{Entry, ModuleDef};
use crate::host::{self, HostTree};
use crate::requirement::Requirement;

/// The description of a module.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its kind.
    pub kind: Kind,
    /// Its full name.
    pub name: String,
    /// Which code.
    pub revision: Revision,
    /// One line.
    pub summary: String,
    /// The rest of its documentation, Markdown; may be empty.
    pub description: String,
    /// `schema` of its metadata: for a stage, the schema of its options alone.
    pub schema: Option<Value>,
    /// `schema_2` of its metadata: for a stage the properties of a version 2 stage.
    pub schema_2: Option<Value>,
    /// Capabilities beyond the sandbox's usual ones.
    pub capabilities: Vec<String>,
    /// What it needs; for an on-disk module, as far as it is known.
    pub requires: Vec<Requirement>,
    /// For a source: the kind of content that it fetches, which is also the directory below `sources/`; empty for
    /// others.
    pub content_type: String,
    /// What provides it.
    pub provider: Provider,
}

/// What provides a module.
#[derive(Debug, Clone)]
pub enum Provider {
    /// osbc itself.
    BuiltIn(&'static ModuleDef),
    /// An executable.
    OnDisk(OnDisk),
}

/// Where an on-disk module is, and what it runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDisk {
    /// The executable.
    pub file: PathBuf,
    /// The directory of modules that it belongs to.
    pub libdir: PathBuf,
    /// The Python package `osbuild` that it may import: the one in `libdir`, else the system's; none where there is
    /// neither.
    pub package: Option<PathBuf>,
}

impl Module {
    /// How the graph names it.
    pub fn to_ref(&self) -> ModuleRef {
        ModuleRef { kind: self.kind, name: self.name.clone(), revision: self.revision }
    }

    /// Returns what a stage with these options takes from the host's tree when it runs there.
    pub fn host_files(&self, options: &Value, host: &dyn HostTree) -> Vec<HostFile> {
        host::files(&self.requires, options, host)
    }

    /// Returns whether the module makes its own id part of its result.
    pub fn writes_id(&self) -> bool {
        self.requires.iter().any(|requirement| matches!(requirement, Requirement::OwnId))
    }

    /// Returns how many loop devices the module opens with these options.
    pub fn loop_devices(&self, options: &Value) -> u64 {
        self.requires.iter().map(|requirement| requirement.loop_devices(options)).sum()
    }

    /// Returns whether the module needs a tree that is a plain directory with these options.
    pub fn plain_tree(&self, options: &Value) -> bool {
        self.requires.iter().any(|requirement| requirement.plain_tree(options))
    }

    /// For a source: the size of an item in bytes, if its description states it.
    pub fn item_size(&self, description: &Value) -> Option<u64> {
        match &self.provider {
            Provider::BuiltIn(ModuleDef { entry: Entry::Source(source), .. }) => (source.size)(description),
            Provider::BuiltIn(_) | Provider::OnDisk(_) => None,
        }
    }
}

/// Why a library could not describe a module that it has.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LibraryError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The OS error.
        reason: String,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, with line and column where known.
        reason: String,
    },
}

/// A library of modules.
pub trait Library: fmt::Debug + Send + Sync {
    /// Returns its name for messages: `built-in` or the directory.
    fn label(&self) -> String;

    /// Returns the description of a module; `None` if there is none. Runners are found by exact name.
    ///
    /// # Errors
    /// It is there and cannot be described.
    fn module(&self, kind: Kind, name: &str) -> Result<Option<Module>, LibraryError>;

    /// The names of all modules of a kind, sorted.
    ///
    /// # Errors
    /// The library cannot be read.
    fn names(&self, kind: Kind) -> Result<Vec<String>, LibraryError>;
}

type Found = Result<Option<Arc<Module>>, LibraryError>;

/// All modules, from libraries in order of preference; each description is made once.
#[derive(Debug)]
pub struct Catalog {
    libraries: Vec<Box<dyn Library>>,
    known: Mutex<HashMap<(Kind, String), Found>>,
}

impl Catalog {
    /// Returns a catalog of libraries; if two have a module, the first one's is used.
    pub fn new(libraries: Vec<Box<dyn Library>>) -> Self {
        Self { libraries, known: Mutex::default() }
    }

    /// The libraries, most preferred first.
    pub fn libraries(&self) -> &[Box<dyn Library>] {
        &self.libraries
    }

    /// The module of that kind and name, or none.
    ///
    /// # Errors
    /// The preferred library that has it cannot describe it.
    pub fn module(&self, kind: Kind, name: &str) -> Found {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry((kind, name.to_owned()))
            .or_insert_with(|| {
                for library in &self.libraries {
                    if let Some(module) = library.module(kind, name)? {
                        return Ok(Some(Arc::new(module)));
                    }
                }
                Ok(None)
            })
            .clone()
    }

    /// The libraries that have a module, most preferred first: the first one's counts.
    ///
    /// # Errors
    /// One of them has it and cannot describe it.
    pub fn providers(&self, kind: Kind, name: &str) -> Result<Vec<String>, LibraryError> {
        let mut providers = Vec::new();
        for library in &self.libraries {
            if library.module(kind, name)?.is_some() {
                providers.push(library.label());
            }
        }
        Ok(providers)
    }

    /// The names of all modules of a kind, sorted, each once.
    ///
    /// # Errors
    /// A library cannot be read.
    pub fn names(&self, kind: Kind) -> Result<Vec<String>, LibraryError> {
        let mut names = Vec::new();
        for library in &self.libraries {
            names.extend(library.names(kind)?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}
