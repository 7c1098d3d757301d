//! Merges nodes with equal ids into one.
//!
//! The node stays where it was written first; what needed one of its likes now needs it, and pipelines' lists point at
//! it. What nodes need is the same for equal ids, so the edges into the first one are all that is kept.

use std::collections::HashMap;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, PipelineNodes};
use petgraph::graph::DiGraph;

/// The same graph with one node per id, in the order in which the ids were first written.
pub fn share(graph: Graph) -> Graph {
    let Graph { manifest, dag, by_id, pipelines } = graph;
    let (nodes, edges) = dag.into_nodes_edges();

    let mut shared = DiGraph::with_capacity(by_id.len(), edges.len());
    let mut first_ids = HashMap::with_capacity(by_id.len());
    let mut moved: Vec<NodeIndex> = Vec::with_capacity(nodes.len());
    let mut is_first: Vec<bool> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let id = node.weight.id();
        let mut added = false;
        let place = *first_ids.entry(id).or_insert_with(|| {
            added = true;
            shared.add_node(node.weight)
        });
        moved.push(place);
        is_first.push(added);
    }

    let kept = edges.iter().filter(|edge| is_first[edge.target().index()]);
    let mut kept: Vec<_> =
        kept.map(|edge| (moved[edge.target().index()], moved[edge.source().index()], edge.weight)).collect();
    kept.sort_unstable();
    kept.dedup();
    for (user, needed, edge) in kept {
        shared.add_edge(needed, user, edge);
    }

    let renamed = |nodes: PipelineNodes| PipelineNodes {
        stages: nodes.stages.into_iter().map(|node| moved[node.index()]).collect(),
    };
    let pipelines = pipelines.into_iter().map(renamed).collect();
    Graph { manifest, dag: shared, by_id: first_ids, pipelines }
}

#[cfg(test)]
mod tests {
    use osbc_ir::Edge;

    use crate::passes::sketch::{Sketch, manifest};

    use super::share;

    const VARIANTS: &str = "
        build: packages
        one(build): packages<#a common left
        two(build): packages<#a common right
        copy: tar<one,two
    ";

    #[test]
    fn pipelines_that_begin_alike_share_nodes_at_the_place_of_the_first() {
        let sketch = Sketch::shared(VARIANTS);
        assert_eq!(sketch.labels(sketch.graph.pipelines[1].stages.clone()), ["one/packages", "one/common", "one/left"]);
        assert_eq!(
            sketch.labels(sketch.graph.pipelines[2].stages.clone()),
            ["one/packages", "one/common", "two/right"]
        );
        let (one, two) = (&sketch.graph.pipelines[1].stages, &sketch.graph.pipelines[2].stages);
        assert_eq!(one[..2], two[..2]);
    }

    #[test]
    fn what_needed_an_equal_node_now_needs_the_first() {
        let sketch = Sketch::shared(VARIANTS);
        let mut needs: Vec<_> =
            sketch.graph.needs(sketch.node("two/right")).map(|(node, edge)| (sketch.label(node), edge)).collect();
        needs.sort();
        assert_eq!(needs, [("build/packages".to_owned(), Edge::Build), ("one/common".to_owned(), Edge::Base)]);
        let users: Vec<_> = sketch.graph.users(sketch.node("#a")).collect();
        assert_eq!(users, [(sketch.node("one/packages"), Edge::Fetch)]);
    }

    #[test]
    fn an_edge_that_appears_twice_is_kept_once() {
        let sketch = Sketch::shared("one: a\ntwo: a\nboth: tar<one,two");
        assert_eq!(sketch.graph.needs(sketch.node("both/tar")).count(), 1);
    }

    #[test]
    fn nothing_is_lost_and_nothing_doubled() {
        let written = Sketch::as_written(VARIANTS);
        let shared = Sketch::shared(VARIANTS);
        assert_eq!(written.graph.dag.node_count(), 9);
        assert_eq!(shared.graph.dag.node_count(), 7);
        assert_eq!(shared.graph.by_id.len(), 7);
        for (id, node) in &shared.graph.by_id {
            assert_eq!(shared.graph.id(*node), *id);
            assert!(written.graph.by_id.contains_key(id));
        }
    }

    #[test]
    fn sharing_twice_is_sharing_once() {
        let once = share(manifest(VARIANTS).finalize());
        let twice = share(once.clone());
        assert_eq!(once.pipelines, twice.pipelines);
        let edges = |graph: &osbc_ir::Graph| -> Vec<_> {
            graph.dag.raw_edges().iter().map(|edge| (edge.source(), edge.target(), edge.weight)).collect()
        };
        assert_eq!(edges(&once), edges(&twice));
    }
}
