//! What the two formats mean: manifests and what they are lowered to.

use osbc_compiler::{Host, IdScheme, SourceText, compile, describe};
use osbc_ir::{FileDigest, Graph, HostFile, Manifest, PipelineIndex, Runner, Target, Value};
use osbc_module_api::host::{EmptyHost, HostTree};
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_pytext::json;
use serde_json::json;

const HOST: &str = "org.osbuild.linux";

fn lower(manifest: &Value) -> Manifest {
    lower_on(manifest, &EmptyHost)
}

fn lower_on(manifest: &Value, tree: &dyn HostTree) -> Manifest {
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let runner = &Runner { name: HOST.into(), exec: HOST.into() };
    let text = SourceText::from_bytes("m.json", manifest.to_string().into_bytes()).expect("text");
    compile(&text, &Catalog::new(libraries), Host { runner, tree }).unwrap_or_else(|report| panic!("{report}"))
}

fn finalize(manifest: &Value) -> Graph {
    lower(manifest).finalize()
}

fn described(graph: &Graph, ids: IdScheme) -> Value {
    serde_json::to_value(describe(graph, ids)).expect("JSON")
}

fn v2(pipelines: Value) -> Value {
    json!({"version": "2", "pipelines": pipelines})
}

fn noop() -> Value {
    json!({"type": "org.osbuild.noop"})
}

#[test]
fn a_build_root_brings_its_runner_and_the_host_its_own() {
    let manifest = lower(&v2(json!([
        {"name": "build", "runner": "org.osbuild.fedora41", "stages": [noop()]},
        {"name": "tree", "build": "name:build", "stages": [noop()]},
    ])));
    let host = Runner { name: HOST.into(), exec: HOST.into() };
    assert_eq!(manifest.runner_of(&manifest.pipelines[0], &host), &host);
    let runner = manifest.runner_of(&manifest.pipelines[1], &host);
    assert_eq!((runner.name.as_str(), runner.exec.as_str()), ("org.osbuild.fedora41", "org.osbuild.fedora38"));
}

#[test]
fn an_empty_build_and_a_build_pipeline_without_stages_are_the_host() {
    let manifest = lower(&v2(json!([
        {"name": "nothing", "runner": "org.osbuild.arch"},
        {"name": "a", "build": "name:nothing", "stages": [noop()]},
        {"name": "b", "build": "", "stages": [noop()]},
    ])));
    assert!(manifest.pipelines.iter().all(|pipeline| pipeline.build.is_none()));
}

#[test]
fn osbuild_distinguishes_an_empty_build_from_none() {
    let id = |pipeline: Value| {
        described(&finalize(&v2(json!([pipeline]))), IdScheme::Osbuild)["pipelines"][0]["stages"][0]["id"].clone()
    };
    let absent = json!({"name": "tree", "stages": [noop()]});
    let empty = json!({"name": "tree", "build": "", "stages": [noop()]});
    assert_eq!(id(absent), "beda46704765a47e6d4f44aff22168ae36866c9c0e6e11552b775b77776b2969");
    assert_eq!(id(empty), "1abdfd6fe9760df843ac158a304823132d623ebfcca0a65c3517c614f44b1f50");
}

#[test]
fn references_that_name_no_pipeline_are_dropped_and_repeated_ones_kept_once() {
    let input = |references: Value| {
        let input = json!({"type": "org.osbuild.files", "origin": "org.osbuild.pipeline", "references": references});
        let stage = json!({"type": "org.osbuild.noop", "inputs": {"files": input}});
        let pipelines = json!([{"name": "a", "stages": [noop()]}, {"name": "b", "stages": [noop()]}, {"name": "c", "stages": [stage]}]);
        let mut manifest = lower(&v2(pipelines));
        let references = manifest.pipelines.remove(2).stages.remove(0).inputs.remove(0).references;
        let entries: Vec<_> = references.entries.into_iter().map(|entry| (entry.target, entry.options)).collect();
        (references.ordered, entries)
    };
    let to = |index| Target::Pipeline(PipelineIndex(index));
    let list = json!([
        {"id": "name:b", "options": {"file": "x"}},
        {"id": "other"},
        {"id": "name:a", "options": {"file": "a"}},
        {"id": "name:b", "options": {"file": "b"}},
    ]);
    let expected = vec![(to(1), json!({"file": "b"})), (to(0), json!({"file": "a"}))];
    assert_eq!(input(list), (true, expected.clone()));
    assert_eq!(input(json!({"name:b": {"file": "b"}, "name:a": {"file": "a"}})), (false, expected));
}

#[test]
fn devices_come_parents_first_and_mounts_point_at_them() {
    let disk = json!({"filename": "disk.img"});
    let stage = json!({
        "type": "org.osbuild.noop",
        "devices": {
            "root": {"type": "org.osbuild.loopback", "parent": "disk", "options": disk},
            "disk": {"type": "org.osbuild.loopback", "options": disk},
        },
        "mounts": [{"name": "m", "type": "org.osbuild.ext4", "source": "root", "target": "/", "partition": 0}],
    });
    let manifest = lower(&v2(json!([{"name": "image", "stages": [stage]}])));
    let stage = &manifest.pipelines[0].stages[0];
    let devices: Vec<_> = stage.devices.iter().map(|device| (device.name.as_str(), device.parent)).collect();
    assert_eq!(devices, [("disk", None), ("root", Some(0))]);
    assert_eq!((stage.mounts[0].source, &stage.mounts[0].partition), (Some(1), &None));
}

#[test]
fn an_assembler_reads_the_tree_and_is_built_like_it() {
    let build = json!({"runner": "org.osbuild.arch", "pipeline": {"stages": [{"name": "org.osbuild.noop"}]}});
    let manifest = lower(&json!({"pipeline": {
        "build": build,
        "stages": [{"name": "org.osbuild.noop"}],
        "assembler": {"name": "org.osbuild.tar", "options": {"filename": "a.tar"}},
    }}));
    let names: Vec<&str> = manifest.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["build", "tree", "assembler"]);
    let assembler = &manifest.pipelines[2];
    assert_eq!(assembler.build, Some(PipelineIndex(0)));
    assert_eq!(manifest.pipelines[0].runner.name, "org.osbuild.arch");
    let input = &assembler.stages[0].inputs[0];
    assert_eq!((input.name.as_str(), input.module.name.as_str()), ("tree", "org.osbuild.tree"));
    assert_eq!(input.references.entries[0].target, Target::Pipeline(PipelineIndex(1)));
}

#[test]
fn version_1_is_described_as_version_1() {
    let urls = json!({format!("sha256:{}", "1".repeat(64)): "https://example.com/a"});
    let manifest = json!({
        "pipeline": {
            "build": {"pipeline": {"stages": [{"name": "org.osbuild.noop"}]}, "runner": "org.osbuild.linux"},
            "stages": [{"name": "org.osbuild.hostname", "options": {"hostname": "web"}}],
            "assembler": {"name": "org.osbuild.noop"},
        },
        "sources": {"org.osbuild.files": {"urls": urls}},
    });
    let mut described = described(&finalize(&manifest), IdScheme::Blake3);
    for pointer in ["/pipeline/build/pipeline/stages/0", "/pipeline/stages/0", "/pipeline/assembler"] {
        let stage = described.pointer_mut(pointer).and_then(Value::as_object_mut).expect(pointer);
        assert_eq!(stage.shift_remove("id").and_then(|id| Some(id.as_str()?.len())), Some(64));
    }
    assert_eq!(json::to_string(&described), json::to_string(&manifest));
}

#[test]
fn every_value_of_a_manifest_survives() {
    let text = r#"{"version": "2", "pipelines": [{"name": "tree", "stages": [{"type": "org.osbuild.noop",
        "options": {"é\ud83d\ude00": 123456789012345678901234567890, "b": 1, "a": [1e22, 1.50, -0.0, -0], "b": "\u0000"}}]}]}"#;
    let value: Value = serde_json::from_str(text).expect("JSON");
    let manifest = lower(&value);
    let options = &manifest.pipelines[0].stages[0].options;
    assert_eq!(
        json::to_string(options),
        r#"{"\u00e9\ud83d\ude00": 123456789012345678901234567890, "b": "\u0000", "a": [1e+22, 1.5, -0.0, 0]}"#
    );
}

#[test]
fn modules_that_write_their_own_id_down_say_so() {
    let lowered = lower(&v2(json!([{"name": "a", "stages": [
        {"type": "org.osbuild.noop"}, {"type": "org.osbuild.ovf", "options": {"vmdk": "a.vmdk"}}
    ]}])));
    let writes: Vec<bool> = lowered.pipelines[0].stages.iter().map(|stage| stage.writes_id).collect();
    assert_eq!(writes, [false, true]);
}

/// A host with these tools and files, each with a number for its content.
#[derive(Debug)]
struct FakeHost(&'static [(&'static str, u8)]);

impl HostTree for FakeHost {
    fn digest(&self, name: &str) -> Option<FileDigest> {
        let Self(files) = self;
        files.iter().find(|(known, _)| *known == name).map(|(_, content)| FileDigest::from_bytes([*content; 32]))
    }
}

#[test]
fn a_stage_takes_what_its_module_declares_from_the_host_unless_it_has_a_build_tree() {
    let erofs = json!({
        "type": "org.osbuild.erofs",
        "inputs": {"tree": {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:build"]}},
        "options": {"filename": "x"},
    });
    let manifest = v2(json!([
        {"name": "build", "stages": [{"type": "org.osbuild.noop"}]},
        {"name": "empty", "stages": []},
        {"name": "host", "stages": [erofs]},
        {"name": "empty-build", "build": "name:empty", "stages": [erofs]},
        {"name": "in-tree", "build": "name:build", "stages": [erofs]},
    ]));
    let host = FakeHost(&[("mkfs.erofs", 7), ("mksquashfs", 8)]);
    let lowered = lower_on(&manifest, &host);
    let taken = |pipeline: usize| lowered.pipelines[pipeline].stages[0].host.clone();
    let tool = HostFile { name: "mkfs.erofs".to_owned(), digest: Some(FileDigest::from_bytes([7; 32])) };
    assert_eq!((taken(0), taken(2), taken(3), taken(4)), (vec![], vec![tool.clone()], vec![tool], vec![]));

    let ids = |host: &FakeHost| {
        let graph = lower_on(&manifest, host).finalize();
        let id = |pipeline: usize| graph.id(graph.pipelines[pipeline].stages[0]);
        [id(0), id(2), id(4)]
    };
    let [present, absent, changed] = [&host, &FakeHost(&[]), &FakeHost(&[("mkfs.erofs", 9)])].map(ids);
    for (one, other) in [(present, absent), (present, changed), (absent, changed)] {
        assert_eq!((one[0], one[2]), (other[0], other[2]));
        assert_ne!(one[1], other[1]);
    }
    assert_eq!(present, ids(&FakeHost(&[("mkfs.erofs", 7), ("mksquashfs", 1)])), "what is not declared does not count");
}
