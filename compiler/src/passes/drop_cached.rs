//! Drops what the store makes unnecessary.
//!
//! The search back from the exports ends at every cached tree, so everything that only this tree needed goes: its
//! earlier stages, their build trees and inputs.

use osbc_ir::{CachedSet, Edge, Export, Graph, Node};

use super::reach::{Need, walk};

/// What a plan does with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFate {
    /// It is needed and the store does not have it.
    Run(Need),
    /// It is needed and the store has it.
    Cached(Need),
    /// Nothing that runs or is asked for needs it. Also said of every source item.
    Idle,
}

/// Returns what happens to every node of the graph, by its index. `have` lists what the store has.
pub fn drop_cached(graph: &Graph, exports: &[Export], have: &CachedSet) -> Vec<CacheFate> {
    let stored: Vec<bool> =
        graph.dag.node_weights().map(|node| matches!(node, Node::Stage(_)) && have.contains(&node.id())).collect();
    let mut needs = vec![None; stored.len()];
    walk(graph, exports, &mut needs, |user, edge| edge != Edge::Fetch && !stored[user.index()]);
    let fate = |(need, stored): (Option<Need>, bool)| match need {
        Some(need) if stored => CacheFate::Cached(need),
        Some(need) => CacheFate::Run(need),
        None => CacheFate::Idle,
    };
    needs.into_iter().zip(stored).map(fate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::sketch::Sketch;

    const MANIFEST: &str = "
        build: packages<#b
        os(build): packages<#a hostname
        tools: packages2
        tar(tools): tar<os
    ";

    fn fates(exports: &[&str], have: &[&str]) -> Vec<String> {
        let sketch = Sketch::shared(MANIFEST);
        let fates = drop_cached(&sketch.graph, &sketch.exports(exports), &sketch.have(have));
        let words = sketch.graph.dag.node_indices().filter_map(|node| match fates[node.index()] {
            CacheFate::Run(_) => Some(format!("run {}", sketch.label(node))),
            CacheFate::Cached(_) => Some(format!("use {}", sketch.label(node))),
            CacheFate::Idle => None,
        });
        words.collect()
    }

    #[test]
    fn with_an_empty_store_all_that_is_needed_runs() {
        assert_eq!(
            fates(&["tar"], &[]),
            ["run build/packages", "run os/packages", "run os/hostname", "run tools/packages2", "run tar/tar"]
        );
    }

    #[test]
    fn a_cached_tree_takes_its_whole_past_with_it() {
        assert_eq!(fates(&["tar"], &["os/hostname"]), ["use os/hostname", "run tools/packages2", "run tar/tar"]);
    }

    #[test]
    fn what_only_a_cached_past_needed_goes_even_if_it_is_cached_too() {
        assert_eq!(
            fates(&["tar"], &["os/hostname", "os/packages", "build/packages", "tools/packages2"]),
            ["use os/hostname", "use tools/packages2", "run tar/tar"]
        );
    }

    #[test]
    fn a_pipeline_goes_on_from_its_last_cached_stage() {
        assert_eq!(
            fates(&["os"], &["os/packages"]),
            ["run build/packages", "use os/packages", "run os/hostname"],
            "the build tree is needed by the stage that still runs"
        );
    }

    #[test]
    fn a_cached_export_leaves_nothing_to_do() {
        assert_eq!(fates(&["tar"], &["tar/tar"]), ["use tar/tar"]);
    }

    #[test]
    fn a_cached_item_stands_for_itself_only() {
        assert_eq!(fates(&["build"], &["#b"]), ["run build/packages"]);
    }
}
