//! Ranks segments: those with the longest remaining path behind them run first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, Segment};

use super::Durations;

/// What a stage is taken to last that was never seen to run.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Gives every segment its rank: its own duration and that of the longest chain of segments that wait for it.
pub fn rank(graph: &Graph, segments: &mut [Segment], durations: &Durations<'_>) {
    let mut longest = vec![0u64; segments.len()];
    for index in (0..segments.len()).rev() {
        let segment = &mut segments[index];
        let own = segment.steps.iter().map(|step| durations(graph, *step).unwrap_or(UNKNOWN));
        let own = own.fold(Duration::ZERO, Duration::saturating_add);
        let own = u64::try_from(own.as_millis()).unwrap_or(u64::MAX);
        segment.rank = own.saturating_add(longest[index]);
        for needed in &segment.after {
            longest[*needed] = longest[*needed].max(segment.rank);
        }
    }
}

/// All items that segments wait for, those first that the highest rank waits for; ties in the manifest's order.
pub(super) fn order_fetches(segments: &[Segment]) -> Vec<NodeIndex> {
    let mut urgency: HashMap<NodeIndex, u64> = HashMap::new();
    for segment in segments {
        for item in &segment.fetches {
            let highest = urgency.entry(*item).or_default();
            *highest = (*highest).max(segment.rank);
        }
    }
    let mut fetches: Vec<_> = urgency.into_iter().collect();
    fetches.sort_unstable_by_key(|(item, rank)| (Reverse(*rank), *item));
    fetches.into_iter().map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::sketch::Sketch;
    use crate::passes::{Request, Retention, plan};

    const MANIFEST: &str = "
        quick: a<#q
        slow: b<#s
        os: c<quick,slow
        image: truncate<#i copy@<os
    ";

    /// Seconds by stage; the others are unknown.
    fn seconds(graph: &Graph, node: NodeIndex) -> Option<Duration> {
        let name = &graph.stage(graph.stage_node(node)?).1.module.name;
        let seconds = match name.as_str() {
            "org.osbuild.b" => 100,
            "org.osbuild.c" => 10,
            "org.osbuild.copy" => 5,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_rank_is_the_longest_remaining_path() {
        let sketch = Sketch::shared(MANIFEST);
        let request = Request::Exports(sketch.exports(&["image"]));
        let plan = plan(sketch.graph.clone(), request, &sketch.have(&[]), Retention::Every, &seconds);
        let ranks: Vec<_> =
            plan.segments.iter().map(|segment| (sketch.label(segment.steps[0]), segment.rank)).collect();
        let expected = [("quick/a", 17_000), ("slow/b", 116_000), ("os/c", 16_000), ("image/truncate", 6_000)];
        assert_eq!(ranks, expected.map(|(label, rank)| (label.to_owned(), rank)));
    }

    #[test]
    fn the_most_urgent_fetch_comes_first() {
        let sketch = Sketch::shared(MANIFEST);
        let request = Request::Exports(sketch.exports(&["image"]));
        let plan = plan(sketch.graph.clone(), request, &sketch.have(&[]), Retention::Every, &seconds);
        assert_eq!(sketch.labels(plan.fetches), ["#s", "#q", "#i"]);
    }

    #[test]
    fn durations_beyond_measure_do_not_overflow() {
        let sketch = Sketch::shared("os: a b c");
        let request = Request::Exports(sketch.exports(&["os"]));
        let plan =
            plan(sketch.graph.clone(), request, &sketch.have(&[]), Retention::Every, &|_, _| Some(Duration::MAX));
        assert!(plan.segments.iter().all(|segment| segment.rank == u64::MAX));
    }
}
