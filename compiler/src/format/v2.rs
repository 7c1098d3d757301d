//! Reads format 2: flat pipelines, references by name.

use osbc_ir::{FormatVersion, InputOrigin, Kind, Map, Value};

use crate::description::{Description, Device, Input, Mount, Pipeline, Reference, Source, Stage, Take};
use crate::place::{Key, Place};

/// Takes a manifest apart.
pub fn read(manifest: Value) -> Description {
    let mut description =
        Description { version: FormatVersion::V2, metadata: Map::new(), sources: Vec::new(), pipelines: Vec::new() };
    for (key, value) in manifest.entries() {
        let place = Place::root().with(key.clone());
        match key.as_str() {
            "metadata" => description.metadata = value.entries(),
            "sources" => {
                let sources = value.entries().into_iter();
                description.sources = sources.map(|(module, value)| read_source(&place, module, value)).collect();
            }
            "pipelines" => {
                let pipelines = value.items().into_iter().enumerate();
                description.pipelines =
                    pipelines.map(|(index, value)| read_pipeline(place.with(index), value)).collect();
            }
            _ => {}
        }
    }
    description
}

fn read_source(sources: &Place, module: String, value: Value) -> Source {
    let place = sources.with(module.clone());
    let mut source = Source { place, module, items: Map::new(), options: Value::Object(Map::new()) };
    for (key, value) in value.entries() {
        match key.as_str() {
            "items" => source.items = value.entries(),
            "options" => source.options = value,
            _ => {}
        }
    }
    source
}

fn read_pipeline(place: Place, value: Value) -> Pipeline {
    let mut pipeline = Pipeline {
        place,
        name: None,
        unnamed: true,
        build: None,
        runner: None,
        source_epoch: None,
        stages: Vec::new(),
    };
    for (key, value) in value.entries() {
        match key.as_str() {
            "name" => (pipeline.name, pipeline.unnamed) = (value.string(), false),
            "build" => pipeline.build = value.string(),
            "runner" => {
                let runner = value.string().filter(|runner| !runner.is_empty());
                pipeline.runner = runner.map(|runner| (runner, pipeline.place.with("runner")));
            }
            "source-epoch" => {
                if let Value::Number(epoch) = value {
                    pipeline.source_epoch = Some(epoch);
                }
            }
            "stages" => {
                let place = pipeline.place.with("stages");
                let stages = value.items().into_iter().enumerate();
                pipeline.stages = stages.map(|(index, value)| read_stage(place.with(index), value)).collect();
            }
            _ => {}
        }
    }
    pipeline
}

fn read_stage(place: Place, value: Value) -> Stage {
    let mut stage = Stage {
        place,
        kind: Kind::Stage,
        module: String::new(),
        options: None,
        inputs: Vec::new(),
        devices: Vec::new(),
        mounts: Vec::new(),
    };
    for (key, value) in value.entries() {
        match key.as_str() {
            "type" => stage.module = value.string().unwrap_or_default(),
            "options" => stage.options = Some(value),
            "inputs" => {
                let place = stage.place.with("inputs");
                let inputs = value.entries().into_iter();
                stage.inputs = inputs.filter_map(|(name, value)| read_input(&place, name, value)).collect();
            }
            "devices" => {
                stage.devices = value.entries().into_iter().map(|(name, value)| read_device(name, value)).collect();
            }
            "mounts" => {
                let mounts = value.items().into_iter().enumerate();
                stage.mounts = mounts.map(|(index, value)| read_mount(index, value)).collect();
            }
            _ => {}
        }
    }
    stage
}

fn read_input(inputs: &Place, name: String, value: Value) -> Option<Input> {
    let place = inputs.with(name.clone()).with("references");
    let (mut module, mut origin, mut references, mut options) = (String::new(), None, Value::Null, None);
    for (key, value) in value.entries() {
        match key.as_str() {
            "type" => module = value.string().unwrap_or_default(),
            "origin" => {
                origin = [InputOrigin::Source, InputOrigin::Pipeline].into_iter().find(|known| value == known.as_str());
            }
            "references" => references = value,
            "options" => options = Some(value),
            _ => {}
        }
    }
    let ordered = references.is_array();
    let references = match references {
        Value::Array(items) => {
            items.into_iter().enumerate().filter_map(|(index, item)| read_reference(index.into(), item)).collect()
        }
        Value::Object(entries) => entries
            .into_iter()
            .map(|(id, options)| Reference { key: id.clone().into(), id, options: Some(options) })
            .collect(),
        _ => Vec::new(),
    };
    Some(Input { place, name, module, origin: origin?, ordered, references, options })
}

/// A reference in a list: an id, or an object with an id.
fn read_reference(key: Key, value: Value) -> Option<Reference> {
    match value {
        Value::String(id) => Some(Reference { key, id, options: None }),
        Value::Object(mut entries) => {
            let id = entries.get_mut("id").map(Value::take)?.string()?;
            Some(Reference { key, id, options: entries.get_mut("options").map(Value::take) })
        }
        _ => None,
    }
}

fn read_device(name: String, value: Value) -> Device {
    let mut device = Device { name, module: String::new(), parent: None, options: None };
    for (key, value) in value.entries() {
        match key.as_str() {
            "type" => device.module = value.string().unwrap_or_default(),
            "parent" => device.parent = value.string().filter(|parent| !parent.is_empty()),
            "options" => device.options = Some(value),
            _ => {}
        }
    }
    device
}

fn read_mount(index: usize, value: Value) -> Mount {
    let mut mount = Mount {
        index,
        name: String::new(),
        module: String::new(),
        source: None,
        partition: None,
        target: None,
        options: None,
    };
    for (key, value) in value.entries() {
        match (key.as_str(), value) {
            ("name", value) => mount.name = value.string().unwrap_or_default(),
            ("type", value) => mount.module = value.string().unwrap_or_default(),
            ("source", value) => mount.source = value.string().filter(|source| !source.is_empty()),
            ("partition", Value::Number(partition)) => mount.partition = Some(partition),
            ("target", value) => mount.target = value.string(),
            ("options", value) => mount.options = Some(value),
            _ => {}
        }
    }
    mount
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_the_wrong_shape_is_left_out() {
        for wrong in [json!(1), json!("a"), json!([[]]), json!({"a": 1}), json!(null)] {
            for manifest in [
                json!({"pipelines": wrong, "sources": wrong, "metadata": wrong}),
                json!({"pipelines": [wrong], "sources": {"a": wrong}}),
                json!({"pipelines": [{"name": wrong, "build": wrong, "runner": wrong, "stages": wrong}]}),
                json!({"pipelines": [{"stages": [{"type": wrong, "inputs": wrong, "devices": wrong, "mounts": wrong}]}]}),
                json!({"pipelines": [{"stages": [{"inputs": {"a": wrong}, "devices": {"a": wrong}, "mounts": [wrong]}]}]}),
                json!({"pipelines": [{"stages": [{"inputs": {"a": {"origin": "org.osbuild.source", "references": wrong}}}]}]}),
            ] {
                assert_eq!(read(manifest).version, FormatVersion::V2);
            }
        }
    }

    #[test]
    fn references_come_in_three_forms() {
        let read = |references: Value| {
            let input = json!({"type": "t", "origin": "org.osbuild.source", "references": references});
            let input = read_input(&Place::root(), "i".into(), input).expect("an input");
            let ids = input.references.into_iter().map(|one| (one.id, one.options)).collect::<Vec<_>>();
            (input.ordered, ids)
        };
        assert_eq!(read(json!(["a"])), (true, vec![("a".into(), None)]));
        assert_eq!(read(json!([{"id": "a", "options": {}}])), (true, vec![("a".into(), Some(json!({})))]));
        assert_eq!(read(json!({"a": {}})), (false, vec![("a".into(), Some(json!({})))]));
    }
}
