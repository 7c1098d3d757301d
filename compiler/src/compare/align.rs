//! Matches the pipelines and stages of the new graph with those of the old one.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use osbc_ir::{Graph, PipelineIndex, StageKey, content};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::PipelinePair;

/// A stage in either pipeline or in both, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagePair {
    /// In the old pipeline.
    pub old: Option<usize>,
    /// In the new pipeline.
    pub new: Option<usize>,
    /// Whether it stands at another place among those that are in both.
    pub moved: bool,
}

/// The pipelines of the new graph in its order, then those that are gone.
pub(super) fn pipelines(old: &Graph, new: &Graph) -> Vec<PipelinePair> {
    let partners = partners(old, new);
    let mut pairs: Vec<PipelinePair> = Vec::with_capacity(partners.len());
    for (index, partner) in partners.iter().enumerate() {
        let index = PipelineIndex(index);
        pairs.push(PipelinePair { old: *partner, new: Some(index), stages: stages(old, *partner, new, Some(index)) });
    }
    let kept: HashSet<PipelineIndex> = partners.into_iter().flatten().collect();
    let gone = (0..old.pipelines.len()).map(PipelineIndex).filter(|index| !kept.contains(index));
    pairs.extend(gone.map(|index| PipelinePair {
        old: Some(index),
        new: None,
        stages: stages(old, Some(index), new, None),
    }));
    pairs
}

/// For every new pipeline the old one that it was: of the same name or, for the others, with the same result or else
/// the same modules.
fn partners(old: &Graph, new: &Graph) -> Vec<Option<PipelineIndex>> {
    let mut free: HashMap<&str, usize> =
        old.manifest.pipelines.iter().enumerate().map(|(index, pipeline)| (pipeline.name.as_str(), index)).collect();
    let by_name = |pipeline: &osbc_ir::Pipeline| free.remove(pipeline.name.as_str());
    let mut partners: Vec<Option<usize>> = new.manifest.pipelines.iter().map(by_name).collect();
    let mut free: Vec<usize> = free.into_values().collect();
    free.sort_unstable();
    let result = |graph: &Graph, index: usize| graph.pipelines[index].last().map(|node| graph.id(node));
    let modules = |graph: &Graph, index: usize| -> Vec<String> {
        graph.manifest.pipelines[index].stages.iter().map(|stage| stage.module.name.clone()).collect()
    };
    for (index, partner) in partners.iter_mut().enumerate().filter(|(_, partner)| partner.is_none()) {
        let same_result = |&was: &usize| result(old, was).is_some() && result(old, was) == result(new, index);
        let same_modules = |&was: &usize| !modules(old, was).is_empty() && modules(old, was) == modules(new, index);
        let found = free.iter().position(same_result).or_else(|| free.iter().position(same_modules));
        *partner = found.map(|found| free.remove(found));
    }
    partners.into_iter().map(|partner| partner.map(PipelineIndex)).collect()
}

/// The stages of two pipelines, those that are gone at their old places.
fn stages(old: &Graph, was: Option<PipelineIndex>, new: &Graph, is: Option<PipelineIndex>) -> Vec<StagePair> {
    let keys = |graph: &Graph, pipeline: Option<PipelineIndex>| -> Vec<StageKey> {
        let nodes = pipeline.map_or(&[][..], |pipeline| &graph.pipelines[pipeline.0].stages);
        nodes.iter().map(|node| content::stage_key(graph, &[*node])).collect()
    };
    let modules = |graph: &Graph, pipeline: Option<PipelineIndex>| -> Vec<String> {
        let stages = pipeline.map_or(&[][..], |pipeline| &graph.manifest.pipeline(pipeline).stages);
        stages.iter().map(|stage| stage.module.name.clone()).collect()
    };
    align(&keys(old, was), &keys(new, is), &modules(old, was), &modules(new, is))
}

/// Pairs what is equal, in order; between that, what has the same name, in order; and of the rest what is equal, moved.
fn align<Key: Hash + Eq + Ord>(old: &[Key], new: &[Key], old_names: &[String], new_names: &[String]) -> Vec<StagePair> {
    let mut pairs = Vec::with_capacity(new.len());
    if old_names == new_names {
        pairs.extend((0..new.len()).map(|at| StagePair { old: Some(at), new: Some(at), moved: false }));
        return pairs;
    }
    each(old, new, &mut |part| match part {
        Part::Both(old, new) => pairs.push(StagePair { old: Some(old), new: Some(new), moved: false }),
        Part::Other(was, is) => {
            let (old_from, new_from) = (was.start, is.start);
            each(&old_names[was], &new_names[is], &mut |part| match part {
                Part::Both(old, new) => {
                    pairs.push(StagePair { old: Some(old_from + old), new: Some(new_from + new), moved: false });
                }
                Part::Other(was, is) => {
                    let gone = was.map(|old| StagePair { old: Some(old_from + old), new: None, moved: false });
                    pairs.extend(gone);
                    let come = is.map(|new| StagePair { old: None, new: Some(new_from + new), moved: false });
                    pairs.extend(come);
                }
            });
        }
    });
    let mut gone: Vec<usize> = pairs.iter().filter(|pair| pair.new.is_none()).filter_map(|pair| pair.old).collect();
    for pair in pairs.iter_mut().filter(|pair| pair.old.is_none()) {
        let same = gone.iter().position(|was| pair.new.is_some_and(|is| old[*was] == new[is]));
        if let Some(same) = same {
            *pair = StagePair { old: Some(gone.remove(same)), new: pair.new, moved: true };
        }
    }
    let moved: HashSet<usize> = pairs.iter().filter(|pair| pair.moved).filter_map(|pair| pair.old).collect();
    pairs.retain(|pair| pair.new.is_some() || pair.old.is_none_or(|old| !moved.contains(&old)));
    pairs
}

/// A part of two sequences.
enum Part {
    /// The same thing, by position.
    Both(usize, usize),
    /// What only one or the other has at this place.
    Other(std::ops::Range<usize>, std::ops::Range<usize>),
}

fn each<T: Hash + Eq + Ord>(old: &[T], new: &[T], take: &mut dyn FnMut(Part)) {
    for op in capture_diff_slices(Algorithm::Patience, old, new) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => {
                (0..len).for_each(|at| take(Part::Both(old_index + at, new_index + at)));
            }
            other => take(Part::Other(other.old_range(), other.new_range())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stages as `name=options`.
    fn aligned(old: &str, new: &str) -> String {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let names = |words: &[String]| -> Vec<String> {
            words.iter().map(|word| word.split('=').next().expect("a name").to_owned()).collect()
        };
        let (old, new) = (words(old), words(new));
        let pairs = align(&old, &new, &names(&old), &names(&new));
        let words = pairs.iter().map(|pair| match (pair.old, pair.new) {
            (Some(was), Some(is)) if pair.moved => format!("~{}:{was}", new[is]),
            (Some(was), Some(is)) if old[was] == new[is] => new[is].clone(),
            (Some(was), Some(is)) => format!("{}>{}", old[was], new[is]),
            (Some(was), None) => format!("-{}", old[was]),
            (None, Some(is)) => format!("+{}", new[is]),
            (None, None) => "nothing".to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_stage_is_found_again_wherever_others_come_or_go() {
        for (old, new, expected) in [
            ("a b c", "a b c", "a b c"),
            ("a b=1 c", "a b=2 c", "a b=1>b=2 c"),
            ("a b c", "a x b c", "a +x b c"),
            ("a b c", "a c", "a -b c"),
            ("a=1 b=1", "x a=2 b=2", "+x a=1>a=2 b=1>b=2"),
            ("m=1 m=2 m=3", "m=1 m=3", "m=1 -m=2 m=3"),
            ("m=1 m=2 h", "m=1 m=9 m=2 h", "m=1 +m=9 m=2 h"),
            ("a b c", "b c a", "b c ~a:0"),
            ("a", "b", "-a +b"),
        ] {
            assert_eq!(aligned(old, new), expected, "{old} and {new}");
        }
    }
}
