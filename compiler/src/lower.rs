//! Resolves the names of a validated manifest. Cannot fail.

use std::collections::HashMap;

use osbc_ir::{
    Device, Input, InputOrigin, ItemKey, Kind, Manifest, Map, Mount, Pipeline, PipelineIndex, Reference, References,
    Runner, Source, SourceItem, Stage, Target, Value,
};
use osbc_module_api::host::HostTree;
use osbc_module_api::runner::choose;

use crate::description;
use crate::validate::modules::Modules;
use crate::validate::{Validated, devices};

/// Resolves every name, and what stages take from the host's tree. In both formats, what Python takes for "not set" is
/// not set.
pub fn lower(validated: Validated<'_>, host_tree: &dyn HostTree) -> Manifest {
    let Validated { description, modules, runners, host } = validated;
    let names = description.pipelines.iter().enumerate();
    let names = names.filter_map(|(index, pipeline)| Some((pipeline.name.clone()?, index))).collect();
    let empty = description.pipelines.iter().map(|pipeline| pipeline.stages.is_empty()).collect();
    let lowering = Lowering { modules: &modules, runners: &runners, host: &host, host_tree, names, empty };
    Manifest {
        version: description.version,
        metadata: description.metadata,
        sources: description.sources.into_iter().map(|source| lowering.source(source)).collect(),
        pipelines: description.pipelines.into_iter().map(|pipeline| lowering.pipeline(pipeline)).collect(),
    }
}

struct Lowering<'a> {
    modules: &'a Modules<'a>,
    runners: &'a [String],
    host: &'a Runner,
    host_tree: &'a dyn HostTree,
    names: HashMap<String, usize>,
    /// Whether a pipeline has no stages.
    empty: Vec<bool>,
}

impl Lowering<'_> {
    fn source(&self, source: description::Source) -> Source {
        let module = self.modules.get(Kind::Source, &source.module);
        let content_type = module.map(|module| module.content_type.as_str()).unwrap_or_default();
        let items = source.items.into_iter().map(|(checksum, description)| {
            let size = module.and_then(|module| module.item_size(&description));
            SourceItem { key: ItemKey::new(content_type, checksum), description, size }
        });
        Source {
            items: items.collect(),
            module: self.modules.reference(Kind::Source, &source.module),
            options: source.options,
        }
    }

    fn pipeline(&self, pipeline: description::Pipeline) -> Pipeline {
        // A build pipeline without stages is the host.
        let build = pipeline.build.as_deref().and_then(|build| self.named(build));
        let build = build.filter(|index| !self.empty[index.0]);
        Pipeline {
            name: pipeline.name.unwrap_or_default(),
            empty_build: pipeline.build.as_deref() == Some(""),
            build,
            runner: pipeline.runner.and_then(|(name, _)| self.runner(name)).unwrap_or_else(|| self.host.clone()),
            source_epoch: pipeline.source_epoch.and_then(|epoch| epoch.as_i64()),
            stages: pipeline.stages.into_iter().map(|stage| self.stage(stage, build.is_none())).collect(),
        }
    }

    fn named(&self, reference: &str) -> Option<PipelineIndex> {
        self.names.get(reference.strip_prefix("name:")?).copied().map(PipelineIndex)
    }

    fn runner(&self, name: String) -> Option<Runner> {
        let exec = choose(&name, self.runners.iter().map(String::as_str))?.to_owned();
        Some(Runner { name, exec })
    }

    fn stage(&self, stage: description::Stage, in_host: bool) -> Stage {
        let order = devices::order(&stage.devices).unwrap_or_default();
        let mut written: Vec<Option<description::Device>> = stage.devices.into_iter().map(Some).collect();
        let mut devices: Vec<Device> = Vec::with_capacity(written.len());
        let mut positions: HashMap<String, usize> = HashMap::with_capacity(written.len());
        for device in order.into_iter().filter_map(|position| written[position].take()) {
            positions.insert(device.name.clone(), devices.len());
            devices.push(Device {
                module: self.modules.reference(Kind::Device, &device.module),
                name: device.name,
                parent: device.parent.and_then(|parent| positions.get(&parent).copied()),
                options: or_empty(device.options),
            });
        }
        let mounts = stage.mounts.into_iter().map(|mount| Mount {
            module: self.modules.reference(Kind::Mount, &mount.module),
            name: mount.name,
            source: mount.source.and_then(|source| positions.get(&source).copied()),
            partition: mount.partition.filter(|partition| partition.as_f64() != Some(0.0)),
            target: mount.target,
            options: mount.options.unwrap_or_else(|| Value::Object(Map::new())),
        });
        let options = or_empty(stage.options);
        let module = self.modules.get(stage.kind, &stage.module);
        let of_host = module.filter(|_| in_host).map(|module| module.host_files(&options, self.host_tree));
        Stage {
            host: of_host.unwrap_or_default(),
            writes_id: module.is_some_and(|module| module.writes_id()),
            module: self.modules.reference(stage.kind, &stage.module),
            options,
            inputs: stage.inputs.into_iter().map(|input| self.input(input)).collect(),
            mounts: mounts.collect(),
            devices,
        }
    }

    fn input(&self, input: description::Input) -> Input {
        let mut entries: Vec<Reference> = Vec::with_capacity(input.references.len());
        let mut seen: HashMap<String, usize> = HashMap::new();
        for reference in input.references {
            let target = match input.origin {
                InputOrigin::Source => Some(Target::Item(reference.id.clone())),
                InputOrigin::Pipeline => self.named(&reference.id).map(Target::Pipeline),
            };
            let Some(target) = target else { continue };
            let options = or_empty(reference.options);
            // Said again, a reference keeps its place and changes its options.
            match seen.get(&reference.id) {
                Some(position) => entries[*position].options = options,
                None => {
                    seen.insert(reference.id, entries.len());
                    entries.push(Reference { target, options });
                }
            }
        }
        Input {
            module: self.modules.reference(Kind::Input, &input.module),
            name: input.name,
            origin: input.origin,
            references: References { ordered: input.ordered, entries },
            options: or_empty(input.options),
        }
    }
}

/// `{}` for what Python takes for nothing.
fn or_empty(options: Option<Value>) -> Value {
    match options {
        None | Some(Value::Null | Value::Bool(false)) => Value::Object(Map::new()),
        Some(Value::String(text)) if text.is_empty() => Value::Object(Map::new()),
        Some(Value::Array(items)) if items.is_empty() => Value::Object(Map::new()),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Value::Object(Map::new()),
        Some(options) => options,
    }
}
