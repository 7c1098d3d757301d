//! The structure of a finalized graph.

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Edge, Graph, Node};
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use serde_json::json;

use crate::sample::*;

/// What a node needs, in the order of indices.
fn needs(graph: &Graph, node: NodeIndex) -> Vec<(NodeIndex, Edge)> {
    let edges = graph.dag.edges_directed(node, Direction::Incoming);
    let mut needs: Vec<_> = edges.map(|edge| (edge.source(), *edge.weight())).collect();
    needs.sort();
    needs
}

#[test]
fn every_stage_and_item_is_a_node_and_says_where_it_was_written() {
    let graph = everything().finalize();
    let written: usize = graph.manifest.pipelines.iter().map(|pipeline| pipeline.stages.len()).sum();
    assert_eq!(graph.dag.node_count(), written + 2);
    for (index, nodes) in graph.pipelines.iter().enumerate() {
        for (position, node) in nodes.stages.iter().enumerate() {
            let node = graph.stage_node(*node).expect("a stage");
            assert_eq!((node.pipeline.0, node.position), (index, position));
        }
    }
}

#[test]
fn edges_say_why_one_node_needs_another() {
    let graph = everything().finalize();
    let at = |pipeline: usize, position: usize| graph.pipelines[pipeline].stages[position];
    let item = |position: usize| NodeIndex::new(position);

    assert_eq!(needs(&graph, at(BUILD, 0)), []);
    assert_eq!(needs(&graph, at(OS, 0)), [(item(0), Edge::Fetch), (item(1), Edge::Fetch), (at(BUILD, 0), Edge::Build)]);
    assert_eq!(needs(&graph, at(OS, 1)), [(at(BUILD, 0), Edge::Build), (at(OS, 0), Edge::Base)]);
    assert_eq!(
        needs(&graph, at(IMAGE, 2)),
        [(at(BUILD, 0), Edge::Build), (at(OS, 1), Edge::Input), (at(IMAGE, 1), Edge::Base)],
        "the input that refers to an empty pipeline gives no edge"
    );
    assert_eq!(needs(&graph, at(ON_EMPTY, 0)), [], "a build pipeline without stages gives no edge");
}

#[test]
fn an_item_that_two_sources_offer_is_needed_from_both_and_once_each() {
    let mut reader = stage("copy", json!({}));
    reader.inputs = vec![files_input("one", true, &[(A, json!({}))]), files_input("two", true, &[(A, json!({}))])];
    let sources = vec![source("curl", &[(A, json!({}))]), source("inline", &[(A, json!({}))])];
    let graph = manifest(sources, vec![pipeline("os", None, vec![reader])]).finalize();
    let last = graph.pipelines[0].last().expect("one stage");
    assert_eq!(needs(&graph, last), [(NodeIndex::new(0), Edge::Fetch), (NodeIndex::new(1), Edge::Fetch)]);
    let (Node::Item(first), Node::Item(second)) = (&graph.dag[NodeIndex::new(0)], &graph.dag[NodeIndex::new(1)]) else {
        panic!("items come first");
    };
    assert_eq!(first.id, second.id, "both are the same content, so they have one id");
    assert_eq!(graph.by_id[&osbc_ir::NodeId::Item(first.id)], NodeIndex::new(0));
}

#[test]
fn edges_lead_from_lower_to_higher_indices() {
    let graph = everything().finalize();
    assert!(graph.dag.edge_references().all(|edge| edge.source() < edge.target()));
}
