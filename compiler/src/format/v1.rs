//! Reads format 1: one pipeline with build pipelines nested in it and an assembler at its end.
//!
//! Here they become plain pipelines, innermost first, called `build-build`, `build`, `tree` and `assembler`.

use osbc_ir::{FormatVersion, InputOrigin, Kind, Map, Value};
use serde_json::json;

use crate::description::{Description, Input, Pipeline, Reference, Source, Stage, Take};
use crate::place::{Key, Place};

/// Takes a manifest apart.
pub fn read(manifest: Value) -> Description {
    let mut description =
        Description { version: FormatVersion::V1, metadata: Map::new(), sources: Vec::new(), pipelines: Vec::new() };
    let mut pipeline = Map::new();
    for (key, value) in manifest.entries() {
        match key.as_str() {
            "pipeline" => pipeline = value.entries(),
            "sources" => {
                let place = Place::root().with("sources");
                let sources = value.entries().into_iter();
                description.sources = sources.map(|(name, value)| read_source(&place, name, value)).collect();
            }
            _ => {}
        }
    }
    let place = Place::root().with("pipeline");
    let assembler = pipeline.get_mut("assembler").map(Value::take).filter(|assembler| !is_empty(assembler));
    read_pipeline(&mut description.pipelines, &place, pipeline, 0, None);
    if let Some(assembler) = assembler {
        let build = description.pipelines.last().and_then(|tree| tree.build.clone());
        let stage = read_assembler(place.with("assembler"), assembler);
        description.pipelines.push(Pipeline {
            place: stage.place.clone(),
            name: Some("assembler".to_owned()),
            unnamed: false,
            build,
            runner: None,
            source_epoch: None,
            stages: vec![stage],
        });
    }
    description
}

/// The module that a source is fetched by, and the key that holds its items.
pub(crate) fn source_module(name: &str) -> (&str, Option<&'static str>) {
    match name {
        "org.osbuild.files" | "org.osbuild.curl" => ("org.osbuild.curl", Some("urls")),
        "org.osbuild.ostree" => (name, Some("commits")),
        "org.osbuild.librepo" => (name, Some("items")),
        _ => (name, None),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn read_source(sources: &Place, name: String, value: Value) -> Source {
    let (module, items) = source_module(&name);
    let items = items.and_then(|key| value.get(key)).and_then(Value::as_object).cloned().unwrap_or_default();
    Source { module: module.to_owned(), place: sources.with(name), items, options: value }
}

/// Appends a pipeline, and before it those that it is built with. `depth` is how deep it is nested, `runner` the one
/// that its tree is used with.
fn read_pipeline(
    pipelines: &mut Vec<Pipeline>,
    place: &Place,
    entries: Map<String, Value>,
    depth: usize,
    runner: Option<(String, Place)>,
) {
    let name = if depth == 0 { "tree".to_owned() } else { vec!["build"; depth].join("-") };
    let mut build = None;
    let mut stages = Vec::new();
    for (key, value) in entries {
        match key.as_str() {
            "build" if !is_empty(&value) => {
                let place = place.with("build");
                let (mut nested, mut runner) = (Map::new(), None);
                for (key, value) in value.entries() {
                    match key.as_str() {
                        "pipeline" => nested = value.entries(),
                        "runner" => runner = value.string().map(|runner| (runner, place.with("runner"))),
                        _ => {}
                    }
                }
                read_pipeline(pipelines, &place.with("pipeline"), nested, depth + 1, runner);
                build = Some(format!("name:{}", vec!["build"; depth + 1].join("-")));
            }
            "stages" => {
                let place = place.with("stages");
                stages =
                    value.items().into_iter().enumerate().map(|(i, value)| read_stage(place.with(i), value)).collect();
            }
            _ => {}
        }
    }
    pipelines.push(Pipeline {
        place: place.clone(),
        name: Some(name),
        unnamed: false,
        build,
        runner,
        source_epoch: None,
        stages,
    });
}

fn read_plain(place: Place, kind: Kind, value: Value) -> Stage {
    let mut stage = Stage {
        place,
        kind,
        module: String::new(),
        options: None,
        inputs: Vec::new(),
        devices: Vec::new(),
        mounts: Vec::new(),
    };
    for (key, value) in value.entries() {
        match key.as_str() {
            "name" => stage.module = value.string().unwrap_or_default(),
            "options" => stage.options = Some(value),
            _ => {}
        }
    }
    stage
}

/// An assembler reads the tree through an input.
fn read_assembler(place: Place, value: Value) -> Stage {
    let mut stage = read_plain(place, Kind::Assembler, value);
    stage.inputs.push(Input {
        place: stage.place.clone(),
        name: "tree".to_owned(),
        module: "org.osbuild.tree".to_owned(),
        origin: InputOrigin::Pipeline,
        ordered: true,
        references: vec![Reference { key: Key::Index(0), id: "name:tree".to_owned(), options: None }],
        options: None,
    });
    stage
}

/// Two modules get what their options name as an input.
fn read_stage(place: Place, value: Value) -> Stage {
    let mut stage = read_plain(place, Kind::Stage, value);
    let option = |name: &str| stage.options.as_ref().and_then(|options| options.get(name));
    let input = match stage.module.as_str() {
        "org.osbuild.rpm" => {
            let packages = option("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let references = packages.iter().enumerate().filter_map(|(index, package)| read_package(index, package));
            let references = references.collect();
            Some(("packages", "org.osbuild.files", stage.place.with("options").with("packages"), references))
        }
        "org.osbuild.ostree" => {
            let options = option("ref").filter(|name| **name != "").map(|name| json!({"ref": name}));
            let commit = option("commit").and_then(Value::as_str);
            let references =
                commit.map(|id| Reference { key: "commit".into(), id: id.to_owned(), options }).into_iter().collect();
            Some(("commits", "org.osbuild.ostree", stage.place.with("options"), references))
        }
        _ => None,
    };
    stage.inputs.extend(input.map(|(name, module, place, references): (_, _, _, Vec<Reference>)| Input {
        place,
        name: name.to_owned(),
        module: module.to_owned(),
        origin: InputOrigin::Source,
        ordered: true,
        references,
        options: None,
    }));
    stage
}

/// A package: a checksum, or an object with one.
fn read_package(index: usize, package: &Value) -> Option<Reference> {
    let checksum = package.get("checksum").unwrap_or(package).as_str()?;
    let check = package.get("check_gpg").filter(|check| **check == true);
    let options = check.map(|check| json!({"metadata": {"rpm.check_gpg": check}}));
    Some(Reference { key: index.into(), id: checksum.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_pipelines_become_plain_ones_innermost_first() {
        let manifest = json!({"pipeline": {
            "build": {
                "runner": "r1",
                "pipeline": {"build": {"runner": "r2", "pipeline": {"stages": [{"name": "a"}]}}, "stages": [{"name": "b"}]},
            },
            "stages": [{"name": "c"}],
            "assembler": {"name": "d", "options": {}},
        }});
        let shape: Vec<_> = read(manifest)
            .pipelines
            .into_iter()
            .map(|pipeline| {
                let runner = pipeline.runner.map(|(runner, _)| runner);
                (pipeline.name.unwrap_or_default(), pipeline.build, runner, pipeline.stages[0].module.clone())
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            shape,
            [
                ("build-build".into(), None, some("r2"), "a".into()),
                ("build".into(), some("name:build-build"), some("r1"), "b".into()),
                ("tree".into(), some("name:build"), None, "c".into()),
                ("assembler".into(), some("name:build"), None, "d".to_owned()),
            ]
        );
    }

    #[test]
    fn packages_and_commits_become_inputs() {
        let packages = json!(["sha256:a", {"checksum": "sha256:b", "check_gpg": true}, {"checksum": "sha256:c"}]);
        let stage = read_stage(Place::root(), json!({"name": "org.osbuild.rpm", "options": {"packages": packages}}));
        let references: Vec<_> = stage.inputs[0].references.iter().map(|one| (one.id.as_str(), &one.options)).collect();
        let check = Some(json!({"metadata": {"rpm.check_gpg": true}}));
        assert_eq!(references, [("sha256:a", &None), ("sha256:b", &check), ("sha256:c", &None)]);

        let options = json!({"commit": "abc", "ref": "x/y"});
        let stage = read_stage(Place::root(), json!({"name": "org.osbuild.ostree", "options": options}));
        assert_eq!(stage.inputs[0].name, "commits");
        assert_eq!(stage.inputs[0].references[0].options, Some(json!({"ref": "x/y"})));
    }

    #[test]
    fn what_has_the_wrong_shape_is_left_out() {
        for wrong in [json!(1), json!("a"), json!([[]]), json!({"a": 1}), json!(null)] {
            for manifest in [
                json!({"pipeline": wrong, "sources": wrong}),
                json!({"pipeline": {"build": wrong, "stages": wrong, "assembler": wrong}, "sources": {"org.osbuild.files": wrong}}),
                json!({"pipeline": {"stages": [wrong], "build": {"pipeline": wrong, "runner": wrong}}}),
                json!({"pipeline": {"stages": [{"name": "org.osbuild.rpm", "options": {"packages": wrong}}]}}),
                json!({"pipeline": {"stages": [{"name": "org.osbuild.ostree", "options": wrong}]}}),
            ] {
                assert!(read(manifest).pipelines.iter().any(|pipeline| pipeline.name.as_deref() == Some("tree")));
            }
        }
    }
}
