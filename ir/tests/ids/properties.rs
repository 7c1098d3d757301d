//! What ids cover, as properties: what is out never changes an id, what is in always does.

use osbc_ir::{
    FileDigest, Graph, HostFile, Kind, Manifest, Map, Pipeline, PipelineIndex, Reference, Revision, Stage, StageId,
    Target, Value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::sample::*;

fn ids(graph: &Graph, pipeline: usize) -> Vec<StageId> {
    let nodes = &graph.pipelines[pipeline].stages;
    nodes.iter().map(|node| graph.stage_node(*node).expect("a stage").id).collect()
}

fn all_ids(manifest: Manifest) -> Vec<Vec<StageId>> {
    let graph = manifest.finalize();
    (0..graph.pipelines.len()).map(|pipeline| ids(&graph, pipeline)).collect()
}

/// Any JSON value, canonical.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e30f64..1e30).prop_map(|float| {
            let text = osbc_ir::value::float_repr(float);
            serde_json::from_str(&text).expect("a number")
        }),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((".{0,3}", inner), 0..4).prop_map(|entries| Value::Object(Map::from_iter(entries))),
        ]
    })
}

/// The same value with the keys of all objects in reverse.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().rev().map(|(key, item)| (key.clone(), reversed(item))).collect())
        }
        leaf => leaf.clone(),
    }
}

fn with_options(options: Value) -> Manifest {
    manifest(vec![], vec![pipeline("os", None, vec![stage("mkdir", options)])])
}

proptest! {
    #[test]
    fn two_stages_have_one_id_exactly_when_their_options_are_equal(one in value(), other in value()) {
        let same = one == other;
        let (left, right) = (with_options(one.clone()).finalize(), with_options(other).finalize());
        prop_assert_eq!(ids(&left, 0) == ids(&right, 0), same);
        let again = with_options(reversed(&one)).finalize();
        prop_assert_eq!(ids(&left, 0), ids(&again, 0));
        let compat = |graph: &Graph| graph.stage_node(graph.pipelines[0].stages[0]).map(|node| node.compat);
        prop_assert_eq!(compat(&left), compat(&again));
        prop_assert_eq!(compat(&left) == compat(&right), same);
    }

    #[test]
    fn names_of_pipelines_do_not_matter(names in vec("[a-z]{1,8}", 5)) {
        let mut renamed = everything();
        for (pipeline, name) in renamed.pipelines.iter_mut().zip(&names) {
            pipeline.name.clone_from(name);
        }
        prop_assert_eq!(all_ids(renamed), all_ids(everything()));
    }

    #[test]
    fn unused_pipelines_do_not_matter_wherever_they_stand(at in 0usize..6, options in value()) {
        let expected = all_ids(everything());
        let mut ids = all_ids(with_unused(at, options));
        ids.remove(at);
        prop_assert_eq!(ids, expected);
    }

    #[test]
    fn pipelines_that_begin_alike_share_ids_up_to_where_they_part(
        common in vec(value(), 0..6), one in vec(value(), 0..4), other in vec(value(), 0..4),
    ) {
        let stages = |rest: &[Value]| {
            common.iter().chain(rest).map(|options| stage("mkdir", options.clone())).collect()
        };
        let pipelines = vec![pipeline("one", None, stages(&one)), pipeline("other", None, stages(&other))];
        let alike = common.len() + one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        let graph = manifest(vec![], pipelines).finalize();
        let (one, other) = (ids(&graph, 0), ids(&graph, 1));
        prop_assert_eq!(&one[..alike], &other[..alike]);
        for id in &one[alike..] {
            prop_assert!(!other.contains(id));
        }
    }

    #[test]
    fn a_change_reaches_everything_after_it_and_nothing_else(position in 0usize..3) {
        let mut changed = everything();
        changed.pipelines[IMAGE].stages[position].options = json!({"changed": true});
        let (before, after) = (all_ids(everything()), all_ids(changed));
        for (pipeline, (before, after)) in before.iter().zip(&after).enumerate() {
            for (stage, (before, after)) in before.iter().zip(after).enumerate() {
                prop_assert_eq!(before == after, pipeline != IMAGE || stage < position);
            }
        }
    }
}

/// [`everything`] with a pipeline that nothing refers to at position `at`.
fn with_unused(at: usize, options: Value) -> Manifest {
    let mut manifest = everything();
    let moved = |index: &mut PipelineIndex| index.0 += usize::from(index.0 >= at);
    for pipeline in &mut manifest.pipelines {
        pipeline.build.iter_mut().for_each(moved);
        for input in pipeline.stages.iter_mut().flat_map(|stage| &mut stage.inputs) {
            for reference in &mut input.references.entries {
                if let Target::Pipeline(index) = &mut reference.target {
                    moved(index);
                }
            }
        }
    }
    manifest.pipelines.insert(at, pipeline("unused", None, vec![stage("noop", options)]));
    manifest
}

fn tool(name: &str, content: Option<u8>) -> HostFile {
    HostFile { name: name.to_owned(), digest: content.map(|byte| FileDigest::from_bytes([byte; 32])) }
}

#[test]
fn what_a_stage_takes_from_the_host_is_in_its_id() {
    let hosts = [
        vec![],
        vec![tool("cp", None)],
        vec![tool("cp", Some(0))],
        vec![tool("cp", Some(1))],
        vec![tool("mv", Some(1))],
        vec![tool("cp", Some(1)), tool("mv", None)],
    ];
    let id = |host: &[HostFile]| {
        let stage = Stage { host: host.to_vec(), ..stage("copy", json!({})) };
        all_ids(manifest(vec![], vec![pipeline("os", None, vec![stage])]))
    };
    let ids: Vec<_> = hosts.iter().map(|host| id(host)).collect();
    for (index, one) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(one), "{:?}", hosts[index]);
        assert_eq!(*one, id(&hosts[index]));
    }
}

#[test]
fn osbuilds_ids_know_nothing_of_the_host() {
    let compat = |host: Vec<HostFile>| {
        let stage = Stage { host, ..stage("copy", json!({})) };
        let graph = manifest(vec![], vec![pipeline("os", None, vec![stage])]).finalize();
        graph.stage_node(graph.pipelines[0].stages[0]).map(|node| node.compat)
    };
    assert_eq!(compat(vec![]), compat(vec![tool("cp", Some(1))]));
}

/// The ids of the last stage of `image` before and after an edit.
fn image_after(edit: impl FnOnce(&mut Manifest)) -> (StageId, StageId) {
    let mut edited = everything();
    edit(&mut edited);
    let last = |manifest: Manifest| *all_ids(manifest)[IMAGE].last().expect("three stages");
    (last(everything()), last(edited))
}

/// What each test edits: the last stage of `image`, which has inputs, devices and mounts.
fn copy(manifest: &mut Manifest) -> &mut Stage {
    &mut manifest.pipelines[IMAGE].stages[2]
}

type Edit = (&'static str, fn(&mut Manifest));

#[test]
fn what_is_out_changes_no_id() {
    let edits: &[Edit] = &[
        ("order of inputs", |m| copy(m).inputs.reverse()),
        ("the chosen runner", |m| m.pipelines[BUILD].runner.exec = "org.osbuild.other".into()),
        ("the runner of a pipeline that is no build root", |m| m.pipelines[OS].runner.name = "other".into()),
        ("where an item comes from", |m| m.sources[0].items[0].description = json!("elsewhere")),
        ("the size of an item", |m| m.sources[0].items[0].size = Some(1)),
        ("metadata", |m| drop(m.metadata.insert("key".into(), json!(1)))),
        ("the format", |m| m.version = osbc_ir::FormatVersion::V1),
        ("the runner of a build pipeline without stages", |m| m.pipelines[EMPTY].runner.name = "other".into()),
    ];
    for (name, edit) in edits {
        let mut edited = everything();
        edit(&mut edited);
        assert_eq!(all_ids(edited), all_ids(everything()), "{name}");
    }
}

#[test]
fn what_is_in_changes_the_id() {
    let edits: &[Edit] = &[
        ("the module's name", |m| copy(m).module.name.push('x')),
        ("the module's kind", |m| copy(m).module.kind = Kind::Assembler),
        ("the module's revision", |m| copy(m).module.revision = Revision::BuiltIn(2)),
        ("the module's provider", |m| copy(m).module.revision = Revision::Digest([1; 32])),
        ("the module's file", |m| copy(m).module.revision = Revision::Digest([2; 32])),
        ("an option", |m| copy(m).options = json!({"paths": [""]})),
        ("an option's type", |m| copy(m).options = json!({"paths": {}})),
        ("an input's name", |m| copy(m).inputs[0].name.push('x')),
        ("an input's module", |m| copy(m).inputs[0].module.revision = Revision::BuiltIn(2)),
        ("an input's origin", |m| copy(m).inputs[0].origin = osbc_ir::InputOrigin::Source),
        ("an input's options", |m| copy(m).inputs[0].options = json!({})),
        ("an input less", |m| drop(copy(m).inputs.pop())),
        ("what an input refers to", |m| {
            copy(m).inputs[0].references.entries[0].target = Target::Pipeline(PipelineIndex(BUILD));
        }),
        ("a reference's options", |m| copy(m).inputs[0].references.entries[0].options = json!({"x": 1})),
        ("a reference more", |m| {
            let target = Target::Pipeline(PipelineIndex(BUILD));
            copy(m).inputs[0].references.entries.push(Reference { target, options: json!({}) });
        }),
        ("a list instead of an object", |m| copy(m).inputs[0].references.ordered = false),
        ("the order of a list of references", |m| {
            m.pipelines[OS].stages[0].inputs[0].references.entries.reverse();
        }),
        ("a checksum", |m| {
            m.pipelines[OS].stages[0].inputs[0].references.entries[0].target = Target::Item("sha256:c".into());
        }),
        ("a device's name", |m| copy(m).devices[1].name.push('x')),
        ("a device's module", |m| copy(m).devices[1].module.revision = Revision::BuiltIn(2)),
        ("a device's parent", |m| copy(m).devices[1].parent = None),
        ("a device's options", |m| copy(m).devices[0].options["start"] = json!(2049)),
        ("a device that only an earlier stage has", |m| {
            m.pipelines[IMAGE].stages[1].devices[0].options["start"] = json!(4096);
        }),
        ("a device less", |m| {
            copy(m).mounts.remove(0);
            drop(copy(m).devices.pop());
        }),
        ("a mount's name", |m| copy(m).mounts[0].name.push('x')),
        ("a mount's module", |m| copy(m).mounts[0].module.revision = Revision::BuiltIn(2)),
        ("a mount's device", |m| copy(m).mounts[0].source = Some(0)),
        ("a mount without a device", |m| copy(m).mounts[0].source = None),
        ("a mount's partition", |m| copy(m).mounts[1].partition = Some(2.into())),
        ("a mount without a partition", |m| copy(m).mounts[1].partition = None),
        ("a mount's target", |m| copy(m).mounts[1].target = Some("/efi".into())),
        ("a mount without a target", |m| copy(m).mounts[2].target = None),
        ("a mount's options", |m| copy(m).mounts[1].options = json!({"readonly": false})),
        ("the order of mounts", |m| copy(m).mounts.reverse()),
        ("a tool of the host", |m| copy(m).host = vec![tool("cp", Some(1))]),
        ("the epoch", |m| m.pipelines[IMAGE].source_epoch = Some(0)),
        ("the epoch of an input", |m| m.pipelines[OS].source_epoch = Some(1)),
        ("the base", |m| drop(m.pipelines[IMAGE].stages.remove(0))),
        ("the build tree", |m| m.pipelines[BUILD].stages[0].options = json!({})),
        ("another build tree", |m| m.pipelines[IMAGE].build = Some(PipelineIndex(OS))),
        ("no build tree", |m| m.pipelines[IMAGE].build = None),
        ("the build pipeline's runner", |m| m.pipelines[BUILD].runner.name.push('x')),
    ];
    for (name, edit) in edits {
        let (before, after) = image_after(edit);
        assert_ne!(before, after, "{name}");
    }
}

#[test]
fn the_order_of_devices_that_do_not_lie_on_each_other_does_not_matter() {
    let with = |swapped: bool| {
        let mut stage = copy(&mut everything()).clone();
        stage.inputs.clear();
        stage.devices[1].parent = None;
        if swapped {
            stage.devices.reverse();
            for source in stage.mounts.iter_mut().filter_map(|mount| mount.source.as_mut()) {
                *source = 1 - *source;
            }
        }
        all_ids(manifest(vec![], vec![pipeline("image", None, vec![stage])]))
    };
    assert_eq!(with(true), with(false));
}

#[test]
fn the_order_of_an_object_of_references_does_not_matter() {
    let with = |items: &[(&str, Value)]| {
        let mut reader = stage("copy", json!({}));
        reader.inputs = vec![files_input("files", false, items)];
        all_ids(manifest(vec![], vec![pipeline("os", None, vec![reader])]))
    };
    let (a, b) = ((A, json!({"x": 1})), (B, json!({"x": 2})));
    assert_eq!(with(&[a.clone(), b.clone()]), with(&[b, a]));
    assert_ne!(
        with(&[(A, json!({"x": 2})), (B, json!({"x": 1}))]),
        with(&[(A, json!({"x": 1})), (B, json!({"x": 2}))])
    );
}

#[test]
fn explaining_names_what_changed() {
    let facts = |epoch: Option<i64>| {
        let stages = vec![stage("mkdir", json!({"paths": ["/a"]}))];
        let manifest = manifest(vec![], vec![Pipeline { source_epoch: epoch, ..pipeline("os", None, stages) }]);
        let (pipeline, mut sink) = (&manifest.pipelines[0], osbc_ir::sink::ExplainSink::default());
        let facts = osbc_ir::identity::Facts::<StageId> {
            manifest: &manifest,
            pipeline,
            stage: &pipeline.stages[0],
            base: None,
            trees: &[],
        };
        osbc_ir::identity::identify(&facts, &mut sink);
        sink.into_facts()
    };
    let (one, other) = (facts(Some(1)), facts(Some(2)));
    let changed: Vec<_> = one.iter().zip(&other).filter(|(one, other)| one != other).collect();
    assert_eq!(changed, [(&("/source-epoch".to_owned(), json!(1)), &("/source-epoch".to_owned(), json!(2)))]);
}
