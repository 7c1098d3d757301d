//! Forms segments: consecutive stages that change one tree in place, from a committed base to the next commit.
//!
//! Nearly every segment is one stage, since every stage's result is committed. The exception is stages that work on a
//! disk image through a device: a commit below them would make overlayfs copy the whole image up, stage after stage. If
//! nothing is retained, a tree stays one segment for as long as no other pipeline needs it.

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Decision, Edge, Export, Graph, Segment};

/// Which results are kept for later builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// That of every stage.
    #[default]
    Every,
    /// None: a tree is committed only if something in the same build needs it.
    None,
}

/// The segments of a plan, dependencies before dependents; ranks are left at zero.
pub fn segment(graph: &Graph, exports: &[Export], decisions: &[Decision], retention: Retention) -> Vec<Segment> {
    let runs = |node: NodeIndex| decisions[node.index()].action == Action::Run;
    let mut exported = vec![false; graph.dag.node_count()];
    for node in exports.iter().filter_map(|export| export.node) {
        exported[node.index()] = true;
    }

    // The running stage that goes on in the same segment, for every running stage that stays open.
    let mut continues: Vec<Option<NodeIndex>> = vec![None; graph.dag.node_count()];
    let mut is_continued: Vec<bool> = vec![false; graph.dag.node_count()];
    for node in graph.dag.node_indices().filter(|node| runs(*node) && !exported[node.index()]) {
        let mut users = graph.users(node).filter(|(user, _)| runs(*user));
        if let (Some((next, Edge::Base)), None) = (users.next(), users.next())
            && (retention == Retention::None || stays_open_for(graph, next))
        {
            continues[node.index()] = Some(next);
            is_continued[next.index()] = true;
        }
    }

    let starts = graph.dag.node_indices().filter(|node| runs(*node) && !is_continued[node.index()]);
    let mut chains: Vec<Vec<NodeIndex>> =
        starts.map(|start| std::iter::successors(Some(start), |node| continues[node.index()]).collect()).collect();
    // A step's needs have lower indices than the step, and only last steps are needed from outside: ordered by last
    // steps, a chain comes after all that it needs.
    chains.sort_unstable_by_key(|steps| steps.last().copied());

    let mut sealed_by = vec![None; graph.dag.node_count()];
    let mut segments = Vec::with_capacity(chains.len());
    for (index, steps) in chains.into_iter().enumerate() {
        let (mut after, mut fetches) = (Vec::new(), Vec::new());
        for (needed, edge) in steps.iter().flat_map(|step| graph.needs(*step)) {
            match edge {
                Edge::Fetch if decisions[needed.index()].action == Action::Fetch => fetches.push(needed),
                Edge::Fetch => {}
                Edge::Base | Edge::Build | Edge::Input => after.extend(sealed_by[needed.index()]),
            }
        }
        after.sort_unstable();
        after.dedup();
        fetches.sort_unstable();
        fetches.dedup();
        if let Some(last) = steps.last() {
            sealed_by[last.index()] = Some(index);
        }
        let base = steps.first().and_then(|first| graph.base(*first));
        segments.push(Segment { steps, base, after, fetches, rank: 0 });
    }
    segments
}

/// Whether the tree stays open between a stage and `next`, the only stage that continues from it.
///
/// It does if `next` has devices, because then it rewrites a large file (a disk image) in place. The caller checks the
/// rest of the rule: what other stages use, and what is exported, is always committed.
fn stays_open_for(graph: &Graph, next: NodeIndex) -> bool {
    graph.stage_node(next).is_some_and(|node| !graph.stage(node).1.devices.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::passes::sketch::Sketch;

    fn segments(sketch: &Sketch, exports: &[&str], have: &[&str]) -> Vec<String> {
        let plan = sketch.plan(exports, have);
        plan.segments.iter().map(|segment| sketch.labels(segment.steps.clone()).join(" ")).collect()
    }

    #[test]
    fn a_stage_that_edits_files_is_a_segment_of_its_own() {
        let sketch = Sketch::shared("os: packages hostname users");
        assert_eq!(segments(&sketch, &["os"], &[]), ["os/packages", "os/hostname", "os/users"]);
    }

    #[test]
    fn an_image_stays_open_while_stages_work_on_it_through_devices() {
        let sketch = Sketch::shared("disk: files truncate sfdisk@ mkfs@ copy@ xz");
        assert_eq!(
            segments(&sketch, &["disk"], &[]),
            ["disk/files", "disk/truncate disk/sfdisk disk/mkfs disk/copy", "disk/xz"]
        );
    }

    #[test]
    fn what_another_stage_uses_is_sealed() {
        let forked = "disk: truncate sfdisk@ copy@\nother: truncate sfdisk@ write@";
        let sketch = Sketch::shared(forked);
        assert_eq!(
            segments(&sketch, &["disk", "other"], &[]),
            ["disk/truncate disk/sfdisk", "disk/copy", "other/write"],
            "a second stage goes on from it"
        );
        assert_eq!(
            segments(&sketch, &["other"], &[]),
            ["disk/truncate disk/sfdisk other/write"],
            "a stage that does not run does not count"
        );
        let sketch = Sketch::shared("short: truncate\ndisk: truncate sfdisk@<short");
        assert_eq!(segments(&sketch, &["disk"], &[]), ["short/truncate", "disk/sfdisk"], "also as an input");
        let sketch = Sketch::shared("tools: a\ndisk: a b@\nos(tools): c");
        assert_eq!(segments(&sketch, &["disk", "os"], &[]), ["tools/a", "disk/b", "os/c"], "or as a build tree");
    }

    #[test]
    fn what_is_exported_is_sealed() {
        let sketch = Sketch::shared("raw: truncate\ndisk: truncate sfdisk@");
        assert_eq!(segments(&sketch, &["raw", "disk"], &[]), ["raw/truncate", "disk/sfdisk"]);
        assert_eq!(segments(&sketch, &["disk"], &[]), ["raw/truncate disk/sfdisk"]);
    }

    #[test]
    fn where_nothing_is_kept_only_what_others_use_is_sealed() {
        let sketch = Sketch::shared("os: packages hostname users\ntar(os): tar<os sign\nfork: packages hostname other");
        let plan = sketch.plan_keeping(&["tar", "fork"], &[], super::Retention::None);
        let segments: Vec<String> =
            plan.segments.iter().map(|segment| sketch.labels(segment.steps.clone()).join(" ")).collect();
        assert_eq!(segments, ["os/packages os/hostname", "os/users", "tar/tar tar/sign", "fork/other"]);
    }

    #[test]
    fn a_segment_starts_from_what_the_store_has() {
        let sketch = Sketch::shared("disk: truncate sfdisk@ copy@");
        let plan = sketch.plan(&["disk"], &["disk/truncate"]);
        assert_eq!(sketch.labels(plan.segments[0].steps.clone()), ["disk/sfdisk", "disk/copy"]);
        assert_eq!(plan.segments[0].base, Some(sketch.node("disk/truncate")));
        assert!(plan.segments[0].after.is_empty(), "what the store has need not be waited for");
    }

    #[test]
    fn a_segment_waits_for_all_that_its_steps_need() {
        let sketch = Sketch::shared(
            "build: packages<#b
             os(build): packages<#a
             disk(build): truncate<#a,#c copy@<os",
        );
        let plan = sketch.plan(&["disk"], &["#c"]);
        let [build, os, disk] = plan.segments.as_slice() else { panic!("three segments") };
        assert_eq!((build.after.as_slice(), sketch.labels(build.fetches.clone())), ([].as_slice(), vec!["#b".into()]));
        assert_eq!((os.after.as_slice(), sketch.labels(os.fetches.clone())), ([0].as_slice(), vec!["#a".into()]));
        assert_eq!(
            (disk.after.as_slice(), sketch.labels(disk.fetches.clone())),
            ([0, 1].as_slice(), vec!["#a".into()])
        );
        assert_eq!(disk.base, None);
    }

    #[test]
    fn dependencies_come_first_even_where_a_shared_stage_was_written_early() {
        let sketch = Sketch::shared("early: truncate\nos: packages\ndisk: truncate copy@<os");
        let plan = sketch.plan(&["disk"], &[]);
        let steps: Vec<_> = plan.segments.iter().map(|segment| sketch.labels(segment.steps.clone())).collect();
        assert_eq!(steps, [vec!["os/packages"], vec!["early/truncate", "disk/copy"]]);
        assert_eq!(plan.segments[1].after, [0]);
    }
}
