//! Finds everything that is wrong with a manifest, in one go: against its format's schema, against the schemas of its
//! modules, and what no schema can say. What comes out can be lowered without fail.

use osbc_ir::{FormatVersion, Kind, Runner, Value};
use osbc_module_api::Catalog;

use crate::description::Description;
use crate::format::{Document, v1, v2};
use crate::place::{Key, Place};
use crate::problem::{Code, Phase, Problem, Problems};
use modules::{Modules, module_name};

pub(crate) mod devices;
mod message;
pub(crate) mod modules;
mod names;
mod repr;
mod schema;
mod shape;
mod suggest;

/// A manifest without problems: every module is there, every name leads somewhere.
#[derive(Debug)]
pub struct Validated<'a> {
    pub(crate) description: Description,
    pub(crate) modules: Modules<'a>,
    /// The names of all runners.
    pub(crate) runners: Vec<String>,
    /// The runner of the host.
    pub(crate) host: Runner,
}

/// Checks a manifest.
///
/// # Errors
/// All problems, in no order.
pub fn validate<'a>(document: Document, catalog: &'a Catalog, host: &Runner) -> Result<Validated<'a>, Problems> {
    let Document { version, value } = document;
    let mut problems = Problems::new();
    if let Err(error) = shape::check(&value, version, &mut problems) {
        let message = format!("the schema of the manifest {error}");
        problems.push(Problem::new(Code::Schema, Phase::Validate, Place::root(), message));
    }
    let mut walk = Walk { modules: Modules::new(catalog, version), problems };
    match version {
        FormatVersion::V1 => walk.v1(&value),
        FormatVersion::V2 => walk.v2(&value),
    }
    let Walk { mut modules, mut problems } = walk;
    if problems.is_full() {
        return Err(problems);
    }
    let description = match version {
        FormatVersion::V1 => v1::read(value),
        FormatVersion::V2 => v2::read(value),
    };
    let runners = catalog.names(Kind::Runner).unwrap_or_else(|error| {
        problems.push(Problem::new(Code::BrokenModule, Phase::Load, Place::root(), format!("the runners: {error}")));
        Vec::new()
    });
    names::check(&description, &mut modules, &runners, &mut problems);
    if problems.is_empty() {
        Ok(Validated { description, modules, runners, host: host.clone() })
    } else {
        Err(problems)
    }
}

/// Goes through all that a manifest says to modules. What has the wrong shape is passed by: the manifest's schema has
/// a word on it.
struct Walk<'a> {
    modules: Modules<'a>,
    problems: Problems,
}

impl Walk<'_> {
    fn check(&mut self, kind: Kind, name: &str, value: &Value, path: &Place, place: &Place) {
        self.modules.check(kind, name, value, path, place, &mut self.problems);
    }

    fn v1(&mut self, manifest: &Value) {
        for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
            let place = Place::root().with("sources");
            let (module, _) = v1::source_module(name);
            // osbuild names the place after the module.
            self.check(Kind::Source, module, source, &place.with(module.to_owned()), &place.with(name.clone()));
        }
        let mut place = Place::root();
        let mut above = Some(manifest);
        while let Some(pipeline) = above.and_then(|above| above.get("pipeline")) {
            place = place.with("pipeline");
            for (index, stage) in items(pipeline.get("stages")) {
                if let Some(name) = module_name(stage, "name") {
                    let place = place.with("stages").with(index);
                    self.check(Kind::Stage, name, stage, &place, &place);
                }
            }
            if let Some(assembler) = pipeline.get("assembler")
                && let Some(name) = module_name(assembler, "name")
            {
                let place = place.with("assembler");
                self.check(Kind::Assembler, name, assembler, &place, &place);
            }
            above = pipeline.get("build");
            place = place.with("build");
        }
    }

    fn v2(&mut self, manifest: &Value) {
        for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
            let place = Place::root().with("sources").with(name.clone());
            self.check(Kind::Source, name, source, &place, &place);
        }
        for (index, pipeline) in items(manifest.get("pipelines")) {
            if self.problems.is_full() {
                return;
            }
            let pipelines = Place::root().with("pipelines").with(index).with("stages");
            for (index, stage) in items(pipeline.get("stages")) {
                let place = pipelines.with(index);
                if let Some(name) = module_name(stage, "type") {
                    self.check(Kind::Stage, name, stage, &place, &place);
                }
                for (kind, group) in [(Kind::Device, "devices"), (Kind::Input, "inputs"), (Kind::Mount, "mounts")] {
                    let place = place.with(group);
                    for (name, key, value) in named(stage.get(group)) {
                        if let Some(module) = module_name(value, "type") {
                            self.check(kind, module, value, &place.with(name), &place.with(key));
                        }
                    }
                }
            }
        }
    }
}

/// The members of an object or list by name, as osbuild names their places, and by their true key.
fn named(group: Option<&Value>) -> Vec<(Key, Key, &Value)> {
    match group {
        Some(Value::Object(entries)) => {
            entries.iter().map(|(name, value)| (name.clone().into(), name.clone().into(), value)).collect()
        }
        Some(Value::Array(items)) => {
            let named = items.iter().enumerate().map(|(index, value)| {
                let name = value.get("name").and_then(Value::as_str);
                (name.map_or(Key::Index(index), |name| name.to_owned().into()), Key::Index(index), value)
            });
            named.collect()
        }
        _ => Vec::new(),
    }
}

fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    value.and_then(Value::as_array).into_iter().flatten().enumerate()
}
