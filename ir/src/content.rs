//! What went into a stage by content, for early cutoff: a stage whose trees hold what those of an earlier run held gives
//! what that run gave, whatever the ids say.
//!
//! A [`ContentKey`] covers just what an id covers ([`crate::identity`] lists it once for both), with the *digest* of the
//! base, of the build tree and of the inputs in the place of their ids. The id that a stage gets as its own (osbuild's)
//! is part of it only for modules that declare to write it down, as `org.osbuild.ostree.commit` does.
//!
//! An [`OwnKey`] leaves the trees out. It is known before anything has been built and says where looking for equal
//! content can be worth while. [`own_facts`] are the same for people.

use std::fmt::Display;

use petgraph::graph::NodeIndex;

use crate::graph::Graph;
use crate::id::{ContentKey, OwnKey, TreeDigest};
use crate::identity::{Facts, TreeName, identify};
use crate::manifest::PipelineIndex;
use crate::sink::{ExplainSink, HashSink, Sink};
use crate::value::Value;

const CONTENT_CONTEXT: &str = "osbc content key 1";
const OWN_CONTEXT: &str = "osbc own key 1";

/// A tree by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    /// A sealed tree.
    Digest(TreeDigest),
    /// The tree between two stages of one segment, which is never sealed: what went into it tells it as well.
    Between(ContentKey),
}

impl TreeName for Content {
    fn tell(self, name: &dyn Display, sink: &mut impl Sink) {
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

/// That there is a tree, whichever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AnyTree;

impl TreeName for AnyTree {
    fn tell(self, name: &dyn Display, sink: &mut impl Sink) {
        sink.variant(name, 0, "tree");
    }
}

/// A tree by the name of its pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Named<'a>(&'a str);

impl TreeName for Named<'_> {
    fn tell(self, name: &dyn Display, sink: &mut impl Sink) {
        sink.text(name, self.0);
    }
}

/// The content key of consecutive stages that change one tree, from the digests of all sealed trees that they need; none
/// while one of these is not known.
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
        tell(graph, step, base, |node| digest(node).map(Content::Digest), &mut sink)?;
        let node = graph.stage_node(step).expect("only stages have a content");
        if graph.stage(node).1.writes_id {
            sink.digest(&"own id", node.compat.as_bytes());
        }
        before = Some(ContentKey::from_bytes(sink.finish()));
    }
    before
}

/// The own key of consecutive stages that change one tree.
///
/// # Panics
/// A step is no stage.
pub fn own_key(graph: &Graph, steps: &[NodeIndex]) -> OwnKey {
    let mut sink = HashSink::new(OWN_CONTEXT);
    sink.list(steps.len());
    for &step in steps {
        let base = graph.base(step).map(|_| AnyTree);
        tell(graph, step, base, |_| Some(AnyTree), &mut sink).expect("every tree is any tree");
    }
    OwnKey::from_bytes(sink.finish())
}

/// What a stage says by itself, as pointers and values: trees by what `name` calls their pipelines, and nothing of the stage
/// before it.
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

/// Tells a sink the facts of one stage; none if one of its trees has no name.
fn tell<Tree: TreeName>(
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
