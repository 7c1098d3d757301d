//! Keys by content, for early cutoff: a stage that runs on trees of equal content gives an equal result, whatever the
//! ids of those trees are.
//!
//! A [`ContentKey`] covers what an id covers ([`crate::identity`] lists it once for both), but with the *digests* of
//! the base, the build tree and the inputs in place of their ids. `StageMeta::id`, osbuild's id of the stage, is hashed
//! only for modules that declare to write it down, as `org.osbuild.ostree.commit` does.
//!
//! An [`StageKey`] leaves the trees out. It is known before anything is built, and finds the earlier runs whose content
//! may be equal. [`own_facts`] returns the same for people.

use std::fmt::Display;

use petgraph::graph::NodeIndex;

use crate::graph::Graph;
use crate::id::{ContentKey, StageKey, TreeDigest};
use crate::identity::{Facts, TreeName, identify};
use crate::manifest::PipelineIndex;
use crate::sink::{ExplainSink, HashSink, Sink};
use crate::value::Value;

const CONTENT_CONTEXT: &str = "osbc content key 1";
const STAGE_KEY_CONTEXT: &str = "osbc own key 1";

/// A tree by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    /// A committed tree.
    Digest(TreeDigest),
    /// The tree between two stages of one segment. It is never committed; the key of what made it identifies it as
    /// well.
    Between(ContentKey),
}

impl TreeName for Content {
    fn write(self, name: &dyn Display, sink: &mut impl Sink) {
        match self {
            Content::Digest(digest) => {
                sink.variant(name, 0, "digest");
                sink.digest(name, digest.as_bytes());
            }
            Content::Between(key) => {
                sink.variant(name, 1, "between");
                sink.digest(name, key.as_bytes());
            }
        }
    }
}

/// Any tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AnyTree;

impl TreeName for AnyTree {
    fn write(self, name: &dyn Display, sink: &mut impl Sink) {
        sink.variant(name, 0, "tree");
    }
}

/// A tree by the name of its pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Named<'a>(&'a str);

impl TreeName for Named<'_> {
    fn write(self, name: &dyn Display, sink: &mut impl Sink) {
        sink.text(name, self.0);
    }
}

/// Returns the content key of consecutive stages that change one tree; `None` while a digest of a tree that they need
/// is not known.
///
/// # Panics
/// A step is no stage.
pub fn content_key(
    graph: &Graph,
    steps: &[NodeIndex],
    digest: impl Fn(NodeIndex) -> Option<TreeDigest>,
) -> Option<ContentKey> {
    let mut before = None;
    for &step in steps {
        let base = match (before, graph.base(step)) {
            (Some(key), _) => Some(Content::Between(key)),
            (None, None) => None,
            (None, Some(base)) => Some(Content::Digest(digest(base)?)),
        };
        let mut sink = HashSink::new(CONTENT_CONTEXT);
        write_facts(graph, step, base, |node| digest(node).map(Content::Digest), &mut sink)?;
        let node = graph.stage_node(step).expect("only stages have a content");
        if graph.stage(node).1.writes_id {
            sink.digest(&"own id", node.compat.as_bytes());
        }
        before = Some(ContentKey::from_bytes(sink.finish()));
    }
    before
}

/// Returns the stage key of consecutive stages that change one tree.
///
/// # Panics
/// A step is no stage.
pub fn stage_key(graph: &Graph, steps: &[NodeIndex]) -> StageKey {
    let mut sink = HashSink::new(STAGE_KEY_CONTEXT);
    sink.list(steps.len());
    for &step in steps {
        let base = graph.base(step).map(|_| AnyTree);
        write_facts(graph, step, base, |_| Some(AnyTree), &mut sink).expect("every tree is any tree");
    }
    StageKey::from_bytes(sink.finish())
}

/// Returns the facts of a stage without those of its base, as pointers and values. Trees are named after their
/// pipelines, by `name`.
///
/// # Panics
/// `step` is no stage.
pub fn own_facts<'a>(graph: &Graph, step: NodeIndex, name: impl Fn(PipelineIndex) -> &'a str) -> Vec<(String, Value)> {
    let stage = graph.stage_node(step).expect("only stages have facts");
    let (pipeline, stage) = (graph.manifest.pipeline(stage.pipeline), graph.stage(stage).1);
    let mut trees = vec![None; graph.pipelines.len()];
    for needed in pipeline.build.into_iter().chain(stage.pipelines()) {
        trees[needed.0] = graph.pipelines[needed.0].last().map(|_| Named(name(needed)));
    }
    let mut sink = ExplainSink::default();
    identify(&Facts { manifest: &graph.manifest, pipeline, stage, base: None, trees: &trees }, &mut sink);
    sink.into_facts()
}

/// Writes the facts of one stage to a sink; `None` if one of its trees has no name.
fn write_facts<Tree: TreeName>(
    graph: &Graph,
    step: NodeIndex,
    base: Option<Tree>,
    name: impl Fn(NodeIndex) -> Option<Tree>,
    sink: &mut impl Sink,
) -> Option<()> {
    let (pipeline, stage) = graph.stage(graph.stage_node(step).expect("only stages have a content"));
    let mut trees = vec![None; graph.pipelines.len()];
    for needed in pipeline.build.into_iter().chain(stage.pipelines()) {
        if let Some(last) = graph.pipelines[needed.0].last() {
            trees[needed.0] = Some(name(last)?);
        }
    }
    identify(&Facts { manifest: &graph.manifest, pipeline, stage, base, trees: &trees }, sink);
    Some(())
}
