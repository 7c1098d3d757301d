//! Lists what a manifest says to each module, and where. What has the wrong shape is skipped: the manifest's schema
//! reports it.

use osbc_ir::{FormatVersion, Kind, Value};

use crate::format::v1;
use crate::place::{Key, Place};

/// A module's options, and what surrounds them, as a manifest gives them.
#[derive(Debug)]
pub(super) struct ModuleConfig<'v> {
    /// The module's kind.
    pub(super) kind: Kind,
    /// Its name.
    pub(super) name: &'v str,
    /// What the manifest says.
    pub(super) value: &'v Value,
    /// Where that stands.
    pub(super) place: Place,
    /// Where osbuild says that it stands, if elsewhere.
    path: Option<Place>,
}

impl<'v> ModuleConfig<'v> {
    fn new(kind: Kind, name: &'v str, value: &'v Value, place: Place) -> Self {
        Self { kind, name, value, place, path: None }
    }

    /// Where osbuild says that it stands.
    pub(super) fn path(&self) -> &Place {
        self.path.as_ref().unwrap_or(&self.place)
    }
}

/// Returns what a manifest says to each of its modules, in the manifest's order.
pub(super) fn all(manifest: &Value, version: FormatVersion) -> Vec<ModuleConfig<'_>> {
    let mut configs = Vec::new();
    match version {
        FormatVersion::V1 => v1_modules(manifest, &mut configs),
        FormatVersion::V2 => v2_modules(manifest, &mut configs),
    }
    configs
}

fn v1_modules<'v>(manifest: &'v Value, configs: &mut Vec<ModuleConfig<'v>>) {
    let sources = Place::root().with("sources");
    for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
        let (module, _) = v1::source_module(name);
        // osbuild names the place after the module.
        let path = Some(sources.with(module.to_owned()));
        configs
            .push(ModuleConfig { path, ..ModuleConfig::new(Kind::Source, module, source, sources.with(name.clone())) });
    }
    let mut place = Place::root();
    let mut above = Some(manifest);
    while let Some(pipeline) = above.and_then(|above| above.get("pipeline")) {
        place = place.with("pipeline");
        let stages = place.with("stages");
        for (index, stage) in items(pipeline.get("stages")) {
            if let Some(name) = module_name(stage, "name") {
                configs.push(ModuleConfig::new(Kind::Stage, name, stage, stages.with(index)));
            }
        }
        if let Some(assembler) = pipeline.get("assembler")
            && let Some(name) = module_name(assembler, "name")
        {
            configs.push(ModuleConfig::new(Kind::Assembler, name, assembler, place.with("assembler")));
        }
        above = pipeline.get("build");
        place = place.with("build");
    }
}

fn v2_modules<'v>(manifest: &'v Value, configs: &mut Vec<ModuleConfig<'v>>) {
    let sources = Place::root().with("sources");
    for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
        configs.push(ModuleConfig::new(Kind::Source, name, source, sources.with(name.clone())));
    }
    let pipelines = Place::root().with("pipelines");
    for (index, pipeline) in items(manifest.get("pipelines")) {
        let stages = pipelines.with(index).with("stages");
        for (index, stage) in items(pipeline.get("stages")) {
            let place = stages.with(index);
            for (kind, group) in [(Kind::Device, "devices"), (Kind::Input, "inputs"), (Kind::Mount, "mounts")] {
                if let Some(members) = stage.get(group) {
                    v2_members(kind, members, &place.with(group), configs);
                }
            }
            if let Some(name) = module_name(stage, "type") {
                configs.push(ModuleConfig::new(Kind::Stage, name, stage, place));
            }
        }
    }
}

/// The members of an object or list; osbuild names their places by their names.
fn v2_members<'v>(kind: Kind, members: &'v Value, place: &Place, configs: &mut Vec<ModuleConfig<'v>>) {
    let mut member = |key: Key, name: Option<&str>, value: &'v Value| {
        if let Some(module) = module_name(value, "type") {
            let path = name.map(|name| place.with(name.to_owned()));
            configs.push(ModuleConfig { path, ..ModuleConfig::new(kind, module, value, place.with(key)) });
        }
    };
    match members {
        Value::Object(entries) => entries.iter().for_each(|(name, value)| member(name.clone().into(), None, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
            member(index.into(), module_name(value, "name"), value);
        }),
        _ => {}
    }
}

fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    value.and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// The name of a module, where a manifest says it.
fn module_name<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}
