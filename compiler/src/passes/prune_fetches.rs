//! Prunes fetches: only items that a running stage reads are fetched.

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Edge, Graph};

use super::drop_cached::CacheFate;

/// For every node of the graph, by its index, the first running stage that reads it, if it is an item that one does.
pub fn prune_fetches(graph: &Graph, fates: &[CacheFate]) -> Vec<Option<NodeIndex>> {
    let mut readers = vec![None; graph.dag.node_count()];
    let running = graph.dag.node_indices().filter(|node| matches!(fates[node.index()], CacheFate::Run(_)));
    for stage in running {
        for (item, edge) in graph.needs(stage) {
            if edge == Edge::Fetch {
                readers[item.index()].get_or_insert(stage);
            }
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::drop_cached;
    use crate::passes::sketch::Sketch;

    #[test]
    fn only_what_a_running_stage_reads_is_fetched() {
        let sketch = Sketch::shared("os: packages<#a,#b files<#c,#b\nother: noop<#d");
        let readers = |have: &[&str]| {
            let fates = drop_cached(&sketch.graph, &sketch.exports(&["os"]), &sketch.have(have));
            let readers = prune_fetches(&sketch.graph, &fates);
            ["#a", "#b", "#c", "#d"].map(|item| readers[sketch.node(item).index()].map(|stage| sketch.label(stage)))
        };
        let packages = || Some("os/packages".to_owned());
        let files = || Some("os/files".to_owned());
        assert_eq!(readers(&[]), [packages(), packages(), files(), None]);
        assert_eq!(readers(&["os/packages"]), [None, files(), files(), None]);
        assert_eq!(readers(&["os/files"]), [None, None, None, None]);
    }
}
