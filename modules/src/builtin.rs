//! The library of built-in modules.

use osbc_module_api::{Entry, Kind, Library, LibraryError, Module, ModuleDef, Provider, Registered, Revision};

use crate::trees::runners::{BUILT_IN, preparation};

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// The modules that osbc brings along.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

/// The registry's row of a module.
pub fn find(kind: Kind, name: &str) -> Option<&'static Registered> {
    MODULES.iter().find(|row| row.def.kind == kind && row.def.name == name)
}

impl Library for BuiltIn {
    fn label(&self) -> String {
        "built-in".to_owned()
    }

    fn module(&self, kind: Kind, name: &str) -> Result<Option<Module>, LibraryError> {
        if kind == Kind::Runner {
            return Ok(preparation::definition(name).map(describe_runner));
        }
        Ok(find(kind, name).map(describe))
    }

    fn names(&self, kind: Kind) -> Result<Vec<String>, LibraryError> {
        if kind == Kind::Runner {
            return Ok(BUILT_IN.map(str::to_owned).to_vec());
        }
        let mut names: Vec<String> =
            MODULES.iter().filter(|row| row.def.kind == kind).map(|row| row.def.name.to_owned()).collect();
        names.sort();
        Ok(names)
    }
}

/// The kind of content that a source fetches; empty for other modules.
pub(crate) fn content_type(def: &ModuleDef) -> &'static str {
    match def.entry {
        Entry::Source(source) => source.content_type,
        _ => "",
    }
}

/// The description of a built-in runner.
pub(crate) fn describe_runner(def: &'static ModuleDef) -> Module {
    let doc = "Makes a build root ready: its libraries, users, directories.";
    Module { schema: None, schema_2: None, ..describe_as(def, doc) }
}

fn describe(row: &Registered) -> Module {
    describe_as(row.def, row.doc)
}

fn describe_as(def: &'static ModuleDef, doc: &str) -> Module {
    let schema = (def.schema)();
    let (summary, description) = doc.split_once('\n').unwrap_or((doc, ""));
    Module {
        kind: def.kind,
        name: def.name.to_owned(),
        revision: Revision::BuiltIn(def.revision),
        summary: summary.trim().to_owned(),
        description: description.trim().to_owned(),
        schema: schema.schema,
        schema_2: schema.schema_2,
        capabilities: def.capabilities.iter().map(|name| (*name).to_owned()).collect(),
        requires: def.requires.to_vec(),
        content_type: content_type(def).to_owned(),
        provider: Provider::BuiltIn(def),
    }
}
