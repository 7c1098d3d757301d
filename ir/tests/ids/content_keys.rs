//! Content keys: equal exactly when the stages say the same and their trees hold the same.

use osbc_ir::content::{content_key, stage_key};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{ContentKey, Graph, Manifest, PipelineIndex, TreeDigest};
use serde_json::json;

use crate::sample::*;

/// `disk` is built in `build` from the tree of `os`.
fn three(build: &str, os: &str, disk: &str) -> Graph {
    let mut last = stage("copy", json!({ "is": disk }));
    last.inputs.push(tree_input("tree", 1, json!({})));
    finalized(vec![
        pipeline("build", None, vec![stage("packages", json!({ "is": build }))]),
        pipeline("os", Some(0), vec![stage("packages", json!({ "is": os }))]),
        pipeline("disk", Some(0), vec![stage("truncate", json!({})), last]),
    ])
}

fn finalized(pipelines: Vec<osbc_ir::Pipeline>) -> Graph {
    Manifest::finalize(manifest(vec![], pipelines))
}

fn last(graph: &Graph, pipeline: usize) -> NodeIndex {
    graph.pipelines[pipeline].last().expect("has stages")
}

fn digest(byte: u8) -> TreeDigest {
    TreeDigest::from_bytes([byte; 32])
}

/// The content key of the last stage of `disk` when all trees have these digests, by pipeline.
fn key(graph: &Graph, digests: [u8; 3]) -> Option<ContentKey> {
    content_key(graph, &[last(graph, 2)], |node| {
        let stage = graph.stage_node(node).expect("a stage");
        Some(digest(digests[stage.pipeline.0]))
    })
}

#[test]
fn what_went_into_the_trees_does_not_matter_what_they_hold_does() {
    let (one, other) = (three("gcc", "glibc", "x"), three("clang", "musl", "x"));
    assert_ne!(one.id(last(&one, 2)), other.id(last(&other, 2)));
    assert_eq!(key(&one, [1, 2, 3]), key(&other, [1, 2, 3]));
    for digests in [[9, 2, 3], [1, 9, 3], [1, 2, 9]] {
        assert_ne!(key(&one, [1, 2, 3]), key(&other, digests), "build tree, input or base: {digests:?}");
    }
}

#[test]
fn an_id_that_a_module_writes_down_matters() {
    let written = |build: &str| {
        let mut manifest = Manifest::clone(&three(build, "glibc", "x").manifest);
        manifest.pipelines[2].stages[1].writes_id = true;
        manifest.finalize()
    };
    let (one, other) = (written("gcc"), written("clang"));
    assert_ne!(key(&one, [1, 2, 3]), key(&other, [1, 2, 3]));
    assert_eq!(key(&one, [1, 2, 3]), key(&written("gcc"), [1, 2, 3]));
    let plain = three("gcc", "glibc", "x");
    assert_eq!(one.id(last(&one, 2)), plain.id(last(&plain, 2)), "ids are as before");
}

#[test]
fn what_a_stage_says_itself_matters() {
    let (one, other) = (three("gcc", "glibc", "x"), three("gcc", "glibc", "y"));
    assert_ne!(key(&one, [1, 2, 3]), key(&other, [1, 2, 3]));
    let own = |graph: &Graph, pipeline| stage_key(graph, &[last(graph, pipeline)]);
    assert_ne!(own(&one, 2), own(&other, 2));
    assert_eq!(own(&one, 2), own(&three("clang", "musl", "x"), 2), "the stage key leaves trees out");
}

#[test]
fn while_a_tree_is_unknown_there_is_no_key() {
    let graph = three("gcc", "glibc", "x");
    for unknown in 0..3 {
        let known = |node| {
            let PipelineIndex(index) = graph.stage_node(node).expect("a stage").pipeline;
            (index != unknown).then(|| digest(1))
        };
        assert_eq!(content_key(&graph, &[last(&graph, 2)], known), None);
    }
}

#[test]
fn stages_that_share_a_segment_have_one_key_and_every_one_counts() {
    let of = |options| {
        let graph = finalized(vec![pipeline("disk", None, vec![stage("truncate", options), stage("mkfs", json!({}))])]);
        let steps = graph.pipelines[0].stages.clone();
        let none = |_| -> Option<TreeDigest> { panic!("no committed tree is needed") };
        (content_key(&graph, &steps, none), stage_key(&graph, &steps))
    };
    let ((one, one_own), (other, other_own)) = (of(json!({"size": 1})), of(json!({"size": 2})));
    assert!(one.is_some());
    assert_ne!(one, other);
    assert_ne!(one_own, other_own);
    assert_eq!(one, of(json!({"size": 1})).0);
}

#[test]
fn a_build_pipeline_without_stages_is_the_host() {
    let with =
        |build| finalized(vec![pipeline("none", None, vec![]), pipeline("os", build, vec![stage("a", json!({}))])]);
    let (host, empty) = (with(None), with(Some(0)));
    let key = |graph: &Graph| content_key(graph, &[last(graph, 1)], |_| None);
    assert!(key(&host).is_some());
    assert_eq!(key(&host), key(&empty));
}
