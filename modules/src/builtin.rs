//! The library of built-in modules.

use osbc_module_api::{Kind, Library, LibraryError, Module, Provider, Registered, Revision};

use crate::runners::BUILT_IN;

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

fn describe(row: &Registered) -> Module {
    let def = row.def;
    let schema = (def.schema)();
    let (summary, description) = row.doc.split_once('\n').unwrap_or((row.doc, ""));
    Module {
        kind: def.kind,
        name: def.name.to_owned(),
        revision: Revision::BuiltIn(def.revision),
        summary: summary.trim().to_owned(),
        description: description.trim().to_owned(),
        schema: schema.schema,
        schema_2: schema.schema_2,
        capabilities: def.capabilities.iter().map(|name| (*name).to_owned()).collect(),
        provider: Provider::BuiltIn(def),
    }
}
