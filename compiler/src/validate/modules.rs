//! Looks up the modules of a manifest, each once, and compiles their schemas.

use std::collections::HashMap;
use std::sync::Arc;

use osbc_ir::{FormatVersion, Kind, ModuleRef, Value};
use osbc_module_api::{Catalog, LibraryError, Module, Provider};
use rayon::prelude::*;

use super::message;
use super::module_configs::ModuleConfig;
use super::schema::{Schema, SchemaError};
use super::suggest::{Suggestions, did_you_mean};
use crate::place::Place;
use crate::problem::{Anchor, Code, Phase, Problem, Problems};

/// The modules that were asked for so far.
#[derive(Debug)]
pub(crate) struct Modules<'a> {
    catalog: &'a Catalog,
    version: FormatVersion,
    known: HashMap<Kind, HashMap<String, Known>>,
    suggestions: Suggestions,
}

/// What became of a look-up.
#[derive(Debug)]
enum Known {
    /// It is there.
    Found {
        module: Arc<Module>,
        /// None until something is checked against it.
        schema: Option<Result<Schema, SchemaError>>,
    },
    /// No library has it; a name that is close.
    Missing(Option<String>),
    /// It is there and cannot be described.
    Broken(LibraryError),
}

impl<'a> Modules<'a> {
    /// None yet.
    pub(crate) fn new(catalog: &'a Catalog, version: FormatVersion) -> Self {
        Self { catalog, version, known: HashMap::new(), suggestions: Suggestions::default() }
    }

    fn look_up(&mut self, kind: Kind, name: &str) -> &mut Known {
        let of_kind = self.known.entry(kind).or_default();
        if !of_kind.contains_key(name) {
            let known = match self.catalog.module(kind, name) {
                Ok(Some(module)) => Known::Found { module, schema: None },
                Ok(None) => Known::Missing(self.suggestions.look(|| {
                    let names = self.catalog.names(kind).unwrap_or_default();
                    did_you_mean(name, names.iter().map(String::as_str))
                })),
                Err(error) => Known::Broken(error),
            };
            of_kind.insert(name.to_owned(), known);
        }
        of_kind.entry(name.to_owned()).or_insert(Known::Missing(None))
    }

    /// Checks all that a manifest says to modules; on all cores, since nearly always nothing is wrong with it.
    pub(super) fn check(&mut self, configs: &[ModuleConfig<'_>]) -> Problems {
        for config in configs {
            self.look_up(config.kind, config.name);
        }
        let version = self.version;
        self.known.par_iter_mut().flat_map(|(_, of_kind)| of_kind.par_iter_mut()).for_each(|(_, known)| {
            if let Known::Found { module, schema } = known {
                schema.get_or_insert_with(|| Schema::of_module(module, version));
            }
        });
        let mut problems = Problems::new();
        let refused: Vec<&ModuleConfig<'_>> = configs.par_iter().filter(|config| !self.accepts(config)).collect();
        for config in refused {
            if problems.is_full() {
                break;
            }
            problems.extend(self.problems(config));
        }
        problems
    }

    fn known(&self, kind: Kind, name: &str) -> Option<&Known> {
        self.known.get(&kind)?.get(name)
    }

    /// Returns whether what the manifest says for a module is valid.
    fn accepts(&self, config: &ModuleConfig<'_>) -> bool {
        match self.known(config.kind, config.name) {
            Some(Known::Found { module, schema: Some(Ok(schema)) }) => {
                schema.accepts(config.value) && missing_options(module, schema, config).is_none()
            }
            _ => false,
        }
    }

    /// Returns what is wrong with what the manifest says for a module.
    fn problems(&self, config: &ModuleConfig<'_>) -> Vec<Problem> {
        let ModuleConfig { kind, name, value, .. } = *config;
        let (path, place) = (config.path(), &config.place);
        match self.known(kind, name) {
            Some(Known::Found { module, schema: Some(Ok(schema)) }) => {
                let errors = schema.errors(value);
                if errors.is_empty() {
                    return missing_options(module, schema, config).into_iter().collect();
                }
                errors.iter().map(|error| message::problem(error, schema, value, path, place)).collect()
            }
            Some(Known::Found { schema: Some(Err(error)), .. }) => {
                let phase = match error {
                    SchemaError::Missing { .. } => Phase::Load,
                    SchemaError::Invalid { .. } => Phase::Validate,
                };
                let message = format!("the {kind} module `{name}` {error}");
                let problem = Problem::new(Code::BrokenModule, phase, path.clone(), message);
                vec![problem.at(Anchor::Value(place.clone()))]
            }
            known => known.and_then(|known| known.problem(kind, name, path, place, self.version)).into_iter().collect(),
        }
    }

    /// Looks a module up that a manifest implies without naming it.
    /// Returns what is wrong if there is no such module.
    pub(crate) fn require(&mut self, kind: Kind, name: &str, place: &Place) -> Option<Problem> {
        let version = self.version;
        let mut problem = self.look_up(kind, name).problem(kind, name, place, place, version)?;
        problem.phase = Phase::Load;
        Some(problem)
    }

    /// A module that was looked up, and found.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Module>> {
        match self.known(kind, name)? {
            Known::Found { module, .. } => Some(module),
            Known::Missing(_) | Known::Broken(_) => None,
        }
    }

    /// How the graph names a module that was looked up.
    pub(crate) fn reference(&self, kind: Kind, name: &str) -> ModuleRef {
        self.get(kind, name).map(|module| module.to_ref()).expect("validation looked every module up")
    }
}

impl Known {
    fn problem(&self, kind: Kind, name: &str, path: &Place, place: &Place, version: FormatVersion) -> Option<Problem> {
        // osbuild looks nothing up that has no name, and raises later.
        let phase = if name.is_empty() { Phase::Load } else { Phase::Validate };
        let problem = |code, message| Problem::new(code, phase, path.clone(), message);
        let problem = match self {
            Known::Found { .. } => return None,
            Known::Missing(guess) => {
                let help = guess.clone().or_else(|| Some(format!("`osbc modules` lists the {kind}s that there are")));
                let message = format!("there is no {kind} module `{name}`");
                problem(Code::UnknownModule, message).label("no library has it").help(help)
            }
            Known::Broken(error) => {
                let message = format!("the {kind} module `{name}` cannot be described: {error}");
                problem(Code::BrokenModule, message).label("used here")
            }
        };
        Some(problem.at(match (kind, version) {
            (Kind::Source, _) => Anchor::Key(place.clone()),
            (_, FormatVersion::V1) => Anchor::Value(place.with("name")),
            (_, FormatVersion::V2) => Anchor::Value(place.with("type")),
        }))
    }
}

/// osbuild hands a stage without options `{}` and lets it fail when it runs. Of built-in modules we know better.
fn missing_options(module: &Module, schema: &Schema, config: &ModuleConfig<'_>) -> Option<Problem> {
    if !matches!(module.provider, Provider::BuiltIn(_)) || config.value.get("options").is_some() {
        return None;
    }
    let required = schema.source().pointer("/properties/options/required")?.as_array()?;
    let names: Vec<String> = required.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return None;
    }
    let needs = names.join(", ");
    let message = format!("'options' is a required property of `{}`", module.name);
    let problem = Problem::new(Code::MissingOptions, Phase::Load, config.path().clone(), message);
    Some(
        problem
            .at(Anchor::Value(config.place.clone()))
            .label("options are missing")
            .help(format!("give `options` with {needs}")),
    )
}
