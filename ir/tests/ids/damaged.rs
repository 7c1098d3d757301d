//! Graphs that were written down and damaged: refused, or read to what can be walked without fear.

use osbc_ir::content::{content_key, own_facts, stage_key};
use osbc_ir::{Graph, TreeDigest, Value};
use serde_json::json;

use crate::sample::everything;

/// Does what readers of a graph do.
fn walk(graph: &Graph) {
    for node in graph.dag.node_indices() {
        assert!(graph.needs(node).all(|(needed, _)| needed < node) && graph.users(node).all(|(user, _)| user > node));
        if let Some(stage) = graph.stage_node(node) {
            graph.stage(stage);
            stage_key(graph, &[node]);
            own_facts(graph, node, |pipeline| &graph.manifest.pipeline(pipeline).name);
            content_key(graph, &[node], |_| Some(TreeDigest::from_bytes([0; 32])));
        }
        if let Some(item) = graph.item_node(node) {
            graph.item(item);
        }
    }
    for (index, nodes) in graph.pipelines.iter().enumerate() {
        assert!(nodes.stages.iter().all(|node| graph.stage_node(*node).is_some_and(|stage| stage.pipeline.0 <= index)));
    }
}

/// The pointers to all numbers of a value.
fn numbers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| numbers(item, format!("{at}/{index}"), found));
        }
        Value::Object(entries) => entries.iter().for_each(|(key, item)| numbers(item, format!("{at}/{key}"), found)),
        _ => {}
    }
}

#[test]
fn one_changed_number_is_noticed_or_harmless() {
    let written = serde_json::to_value(everything().finalize()).expect("it has a JSON form");
    let mut found = Vec::new();
    numbers(&written, String::new(), &mut found);
    let (mut refused, mut read) = (0, 0);
    for at in &found {
        for number in [0_u64, 1, 2, 3, 5, 1000, u64::from(u32::MAX), u64::MAX] {
            let mut damaged = written.clone();
            *damaged.pointer_mut(at).expect("it was found there") = json!(number);
            match serde_json::from_value::<Graph>(damaged) {
                Ok(graph) => {
                    walk(&graph);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 50 && read > 50, "{refused} refused, {read} read");
}

#[test]
fn what_is_missing_or_too_much_is_noticed() {
    let written = serde_json::to_value(everything().finalize()).expect("it has a JSON form");
    for (at, what) in [
        ("/pipelines", json!([])),
        ("/pipelines/0/stages", json!([])),
        ("/manifest/pipelines", json!([])),
        ("/manifest/sources", json!([])),
        ("/dag/nodes", json!([])),
        ("/manifest/pipelines/3/stages/2/devices", json!([])),
    ] {
        let mut damaged = written.clone();
        *damaged.pointer_mut(at).unwrap_or_else(|| panic!("{at} is there")) = what;
        assert!(serde_json::from_value::<Graph>(damaged).is_err(), "{at}");
    }
}
