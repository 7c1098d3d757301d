//! All that a manifest says to modules, and where. What has the wrong shape is passed by: the manifest's schema has a
//! word on it.

use osbc_ir::{FormatVersion, Kind, Value};

use crate::format::v1;
use crate::place::{Key, Place};

/// The options and surroundings that a manifest gives one module.
#[derive(Debug)]
pub(super) struct Said<'v> {
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

impl<'v> Said<'v> {
    fn new(kind: Kind, name: &'v str, value: &'v Value, place: Place) -> Self {
        Self { kind, name, value, place, path: None }
    }

    /// Where osbuild says that it stands.
    pub(super) fn path(&self) -> &Place {
        self.path.as_ref().unwrap_or(&self.place)
    }
}

/// Everything said, in the manifest's order.
pub(super) fn all(manifest: &Value, version: FormatVersion) -> Vec<Said<'_>> {
    let mut said = Vec::new();
    match version {
        FormatVersion::V1 => v1_modules(manifest, &mut said),
        FormatVersion::V2 => v2_modules(manifest, &mut said),
    }
    said
}

fn v1_modules<'v>(manifest: &'v Value, said: &mut Vec<Said<'v>>) {
    let sources = Place::root().with("sources");
    for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
        let (module, _) = v1::source_module(name);
        // osbuild names the place after the module.
        let path = Some(sources.with(module.to_owned()));
        said.push(Said { path, ..Said::new(Kind::Source, module, source, sources.with(name.clone())) });
    }
    let mut place = Place::root();
    let mut above = Some(manifest);
    while let Some(pipeline) = above.and_then(|above| above.get("pipeline")) {
        place = place.with("pipeline");
        let stages = place.with("stages");
        for (index, stage) in items(pipeline.get("stages")) {
            if let Some(name) = module_name(stage, "name") {
                said.push(Said::new(Kind::Stage, name, stage, stages.with(index)));
            }
        }
        if let Some(assembler) = pipeline.get("assembler")
            && let Some(name) = module_name(assembler, "name")
        {
            said.push(Said::new(Kind::Assembler, name, assembler, place.with("assembler")));
        }
        above = pipeline.get("build");
        place = place.with("build");
    }
}

fn v2_modules<'v>(manifest: &'v Value, said: &mut Vec<Said<'v>>) {
    let sources = Place::root().with("sources");
    for (name, source) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
        said.push(Said::new(Kind::Source, name, source, sources.with(name.clone())));
    }
    let pipelines = Place::root().with("pipelines");
    for (index, pipeline) in items(manifest.get("pipelines")) {
        let stages = pipelines.with(index).with("stages");
        for (index, stage) in items(pipeline.get("stages")) {
            let place = stages.with(index);
            for (kind, group) in [(Kind::Device, "devices"), (Kind::Input, "inputs"), (Kind::Mount, "mounts")] {
                if let Some(members) = stage.get(group) {
                    v2_members(kind, members, &place.with(group), said);
                }
            }
            if let Some(name) = module_name(stage, "type") {
                said.push(Said::new(Kind::Stage, name, stage, place));
            }
        }
    }
}

/// The members of an object or list; osbuild names their places by their names.
fn v2_members<'v>(kind: Kind, members: &'v Value, place: &Place, said: &mut Vec<Said<'v>>) {
    let mut member = |key: Key, name: Option<&str>, value: &'v Value| {
        if let Some(module) = module_name(value, "type") {
            let path = name.map(|name| place.with(name.to_owned()));
            said.push(Said { path, ..Said::new(kind, module, value, place.with(key)) });
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
