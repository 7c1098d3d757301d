//! Finds the nodes that a request needs, whatever the store has.

use std::collections::VecDeque;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Edge, Export, Graph};

/// Why a node is needed: the first reason found in the search back from the exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is this export (an index into the list of them).
    Export(usize),
    /// This stage needs it, as what the edge says.
    By(NodeIndex, Edge),
}

/// Returns for every node of the graph, by its index, why it is needed; `None` if no export needs it.
pub fn reach(graph: &Graph, exports: &[Export]) -> Vec<Option<Need>> {
    let mut needs = vec![None; graph.dag.node_count()];
    walk(graph, exports, &mut needs, |_, _| true);
    needs
}

/// Goes back from the exports, breadth first, from each node that matters where `goes_on` says so. Every node that is
/// met is asked about once.
pub(super) fn walk_back(graph: &Graph, exports: &[Export], mut goes_on: impl FnMut(NodeIndex) -> bool) {
    let mut met = vec![false; graph.dag.node_count()];
    let mut meet = |node: NodeIndex| !std::mem::replace(&mut met[node.index()], true);
    let mut queue: VecDeque<NodeIndex> =
        exports.iter().filter_map(|export| export.node).filter(|node| meet(*node)).collect();
    while let Some(node) = queue.pop_front() {
        if goes_on(node) {
            queue.extend(graph.needs(node).map(|(need, _)| need).filter(|need| meet(*need)));
        }
    }
}

/// Searches back from the exports, breadth first, and notes for every node why it was reached.
///
/// `follow` says which edges to take from a node. Returns the nodes in the order in which they were reached.
pub(super) fn walk(
    graph: &Graph,
    exports: &[Export],
    needs: &mut [Option<Need>],
    follow: impl Fn(NodeIndex, Edge) -> bool,
) -> Vec<NodeIndex> {
    let mut met = Vec::new();
    let mut queue = VecDeque::new();
    for (index, export) in exports.iter().enumerate() {
        if let Some(node) = export.node
            && needs[node.index()].is_none()
        {
            needs[node.index()] = Some(Need::Export(index));
            queue.push_back(node);
        }
    }
    while let Some(user) = queue.pop_front() {
        met.push(user);
        for (node, edge) in graph.needs(user) {
            if needs[node.index()].is_none() && follow(user, edge) {
                needs[node.index()] = Some(Need::By(user, edge));
                queue.push_back(node);
            }
        }
    }
    met
}

#[cfg(test)]
mod tests {
    use osbc_ir::Edge;

    use super::*;
    use crate::passes::sketch::Sketch;

    #[test]
    fn what_an_export_leads_to_matters_and_says_what_needs_it_first() {
        let sketch = Sketch::shared(
            "build: packages<#b
             os(build): packages<#a hostname
             tar(build): tar<os
             other(build): noop<#c",
        );
        let needs = reach(&sketch.graph, &sketch.exports(&["tar"]));
        let need = |label: &str| needs[sketch.node(label).index()];
        let by = |label: &str, edge| Some(Need::By(sketch.node(label), edge));
        assert_eq!(need("tar/tar"), Some(Need::Export(0)));
        assert_eq!(need("os/hostname"), by("tar/tar", Edge::Input));
        assert_eq!(need("os/packages"), by("os/hostname", Edge::Base));
        assert_eq!(need("#a"), by("os/packages", Edge::Fetch));
        assert_eq!(need("build/packages"), by("tar/tar", Edge::Build));
        assert_eq!(need("#b"), by("build/packages", Edge::Fetch));
        assert_eq!(need("other/noop"), None);
        assert_eq!(need("#c"), None);
    }

    #[test]
    fn an_export_that_another_one_needs_is_still_an_export() {
        let sketch = Sketch::shared("os: packages\ntar: tar<os");
        let needs = reach(&sketch.graph, &sketch.exports(&["tar", "os"]));
        assert_eq!(needs[sketch.node("os/packages").index()], Some(Need::Export(1)));
    }

    #[test]
    fn a_pipeline_without_stages_leads_nowhere() {
        let sketch = Sketch::shared("empty:\nos: packages");
        assert_eq!(reach(&sketch.graph, &sketch.exports(&["empty"])), [None]);
    }
}
