//! Draws a graph, with or without a plan: [`Drawing`] has the content, and one file for each format writes it.
//!
//! Decides nothing about a build, and starts no tool: DOT is for `dot`, the SVG is complete.

mod dot;
mod escape;
mod json;
mod layout;
mod mermaid;
mod svg;

use std::collections::{BTreeMap, HashSet};

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Edge, Graph, Node, PipelineIndex, Plan, Target};

use crate::passes::written_plan::reason;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// A node per pipeline and per source.
    Pipeline,
    /// A node per stage and per source item.
    Stage,
}

/// A language for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Graphviz.
    Dot,
    /// Mermaid's flowcharts.
    Mermaid,
    /// Nodes, edges and pipelines as data, nothing folded: `{nodes: [{id, osbuild_id?, kind, module?, pipelines,
    /// action?, reason?}], edges: [{from, to, kind}], pipelines: [{name, node}]}`.
    Json,
    /// A complete picture, light or dark as the viewer prefers.
    Svg,
}

/// Draws a graph in one of the formats. With a plan, which must be one of this graph, its actions are shown.
pub fn draw(graph: &Graph, plan: Option<&Plan>, level: Level, format: Format) -> String {
    draw_annotated(graph, &as_planned(graph, plan), level, format)
}

/// Annotates nodes with a plan's decisions.
fn as_planned<'a>(graph: &'a Graph, plan: Option<&'a Plan>) -> impl Fn(NodeIndex) -> Option<Annotation> + 'a {
    move |node| {
        let decision = plan?.decision(node);
        let reason = Some(reason(graph, &decision.reason).to_string());
        Some(Annotation { mark: decision.action.into(), reason, link: None })
    }
}

/// What a picture shows of a node besides its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is painted as.
    pub mark: Mark,
    /// Why, for who points at it.
    pub reason: Option<String>,
    /// Where it leads, in formats that lead anywhere.
    pub link: Option<String>,
}

/// Returns the annotation of a node; `None` if it has none.
pub type Annotate<'a> = dyn Fn(NodeIndex) -> Option<Annotation> + 'a;

/// Draws a graph in one of the formats, its nodes annotated by `annotate`.
pub fn draw_annotated(graph: &Graph, annotate: &Annotate<'_>, level: Level, format: Format) -> String {
    let drawing = Drawing::new(graph, annotate, level);
    match format {
        Format::Dot => dot::write(&drawing.folded()),
        Format::Mermaid => mermaid::write(&drawing.folded()),
        Format::Json => json::write(&drawing),
        Format::Svg => svg::write(&drawing.folded()),
    }
}

/// What a vertex stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Stage,
    /// One source item; after folding, items that the same stages read.
    Item,
    Pipeline,
    /// All items of one source.
    Source,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Stage => "stage",
            Kind::Item => "item",
            Kind::Pipeline => "pipeline",
            Kind::Source => "source",
        }
    }
}

/// What happens to what a vertex stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// It was run and failed.
    Failed,
    /// It is run.
    Run,
    /// It is fetched.
    Fetch,
    /// It should have been run or fetched, and was not begun.
    NotStarted,
    /// The store has it.
    Cached,
    /// A pipeline that ends with another pipeline's stage.
    Shared,
    /// Nothing happens to it.
    Unneeded,
}

impl Mark {
    const ALL: [Mark; 7] =
        [Mark::Failed, Mark::Run, Mark::Fetch, Mark::NotStarted, Mark::Cached, Mark::Shared, Mark::Unneeded];

    const fn name(self) -> &'static str {
        match self {
            Mark::Failed => "failed",
            Mark::Run => "run",
            Mark::Fetch => "fetch",
            Mark::NotStarted => "unstarted",
            Mark::Cached => "cached",
            Mark::Shared => "shared",
            Mark::Unneeded => "unneeded",
        }
    }
}

impl From<Action> for Mark {
    fn from(action: Action) -> Self {
        match action {
            Action::Run => Mark::Run,
            Action::Fetch => Mark::Fetch,
            Action::Cached => Mark::Cached,
            Action::Unneeded => Mark::Unneeded,
        }
    }
}

/// What a box is painted with.
#[derive(Debug, Clone, Copy)]
struct Colours {
    fill: &'static str,
    line: &'static str,
    text: &'static str,
}

/// The colours of a box on a light page.
const fn colours(mark: Option<Mark>) -> Colours {
    let (fill, line, text) = match mark {
        None => ("#ffffff", "#667085", "#1f2430"),
        Some(Mark::Failed) => ("#fde0de", "#c42b2b", "#5a0f0f"),
        Some(Mark::Run) => ("#ffedd0", "#d08400", "#3d2a00"),
        Some(Mark::NotStarted) => ("#ffffff", "#9a8c66", "#5f563d"),
        Some(Mark::Fetch) => ("#dcebfb", "#3578c8", "#0d2b4d"),
        Some(Mark::Cached) => ("#dff3e4", "#3a9a57", "#0f3a1d"),
        Some(Mark::Shared) => ("#ece4f8", "#7e57c2", "#2c1a4d"),
        Some(Mark::Unneeded) => ("#f4f5f7", "#c3c8d0", "#8a93a1"),
    };
    Colours { fill, line, text }
}

/// The colour of an edge, legible on light and dark pages.
const fn edge_colour(edge: Edge) -> &'static str {
    match edge {
        Edge::Base => "#7a8394",
        Edge::Build => "#a58a5c",
        Edge::Input => "#4787cc",
        Edge::Fetch => "#3f9d91",
    }
}

const EDGES: [Edge; 4] = [Edge::Base, Edge::Build, Edge::Input, Edge::Fetch];

const fn edge_name(edge: Edge) -> &'static str {
    match edge {
        Edge::Base => "base",
        Edge::Build => "build",
        Edge::Input => "input",
        Edge::Fetch => "fetch",
    }
}

/// A node of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Vertex {
    kind: Kind,
    /// Unique within the drawing: the id of a stage or item in full, or the kind and the name.
    id: String,
    osbuild_id: Option<String>,
    /// The full name of the module; `None` for a pipeline.
    module: Option<String>,
    /// The large line of the label.
    title: String,
    /// The small line of the label.
    subtitle: String,
    /// The names of the pipelines that it stands in.
    pipelines: Vec<String>,
    /// The pipeline that it is drawn in.
    cluster: Option<usize>,
    mark: Option<Mark>,
    reason: Option<String>,
    link: Option<String>,
}

/// An edge of the picture: from what is needed to what needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Link {
    from: usize,
    to: usize,
    kind: Edge,
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cluster {
    name: String,
    /// The vertex that its name points at.
    end: Option<usize>,
}

/// What is drawn. Links lead from vertices with lower indices to such with higher ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Drawing {
    level: Level,
    vertices: Vec<Vertex>,
    links: Vec<Link>,
    clusters: Vec<Cluster>,
}

impl Drawing {
    fn new(graph: &Graph, annotate: &Annotate<'_>, level: Level) -> Self {
        match level {
            Level::Stage => Self::of_stages(graph, annotate),
            Level::Pipeline => Self::of_pipelines(graph, annotate),
        }
    }

    fn of_stages(graph: &Graph, annotate: &Annotate<'_>) -> Self {
        let mut stands_in = vec![Vec::new(); graph.dag.node_count()];
        for (pipeline, nodes) in graph.manifest.pipelines.iter().zip(&graph.pipelines) {
            for node in &nodes.stages {
                stands_in[node.index()].push(pipeline.name.clone());
            }
        }
        let vertex = |(index, pipelines): (NodeIndex, Vec<String>)| {
            let (kind, id, osbuild_id, module, subtitle, cluster) = match &graph.dag[index] {
                Node::Stage(node) => {
                    let module = &graph.stage(node).1.module.name;
                    let compat = Some(node.compat.to_string());
                    (Kind::Stage, node.id.to_string(), compat, module, node.id.short(), Some(node.pipeline.0))
                }
                Node::Item(node) => {
                    let (source, item) = graph.item(node);
                    let checksum = short_checksum(&item.key.checksum);
                    (Kind::Item, node.id.to_string(), None, &source.module.name, checksum, None)
                }
            };
            let annotation = annotate(index);
            Vertex {
                kind,
                id,
                osbuild_id,
                module: Some(module.clone()),
                title: short_module(module).to_owned(),
                subtitle,
                pipelines,
                cluster,
                mark: annotation.as_ref().map(|annotation| annotation.mark),
                reason: annotation.as_ref().and_then(|annotation| annotation.reason.clone()),
                link: annotation.and_then(|annotation| annotation.link),
            }
        };
        let edges = graph.dag.raw_edges().iter();
        let mut links: Vec<_> = edges
            .map(|edge| Link { from: edge.source().index(), to: edge.target().index(), kind: edge.weight })
            .collect();
        links.sort_unstable();
        let clusters =
            graph.manifest.pipelines.iter().zip(&graph.pipelines).map(|(pipeline, nodes)| Cluster {
                name: pipeline.name.clone(),
                end: nodes.last().map(NodeIndex::index),
            });
        let vertices = graph.dag.node_indices().zip(stands_in).map(vertex).collect();
        Self { level: Level::Stage, vertices, links, clusters: clusters.collect() }
    }

    fn of_pipelines(graph: &Graph, annotate: &Annotate<'_>) -> Self {
        let sources = graph.manifest.sources.len();
        let mut vertices: Vec<Vertex> = (0..sources).map(|index| source_vertex(graph, annotate, index)).collect();
        let mut links = Vec::new();
        let mut clusters = Vec::new();
        for (index, pipeline) in graph.manifest.pipelines.iter().enumerate() {
            let to = sources + index;
            let mut link = |from: usize, kind| {
                if from != to {
                    links.push(Link { from, to, kind });
                }
            };
            if let Some(PipelineIndex(build)) = pipeline.build {
                link(sources + build, Edge::Build);
            }
            for reference in
                pipeline.stages.iter().flat_map(|stage| &stage.inputs).flat_map(|input| &input.references.entries)
            {
                if let Target::Pipeline(PipelineIndex(target)) = reference.target {
                    link(sources + target, Edge::Input);
                }
            }
            for node in &graph.pipelines[index].stages {
                // A stage that is written elsewhere first: this pipeline continues that one.
                if let Some(stage) = graph.stage_node(*node).filter(|stage| stage.pipeline.0 != index) {
                    if graph.pipelines[index]
                        .stages
                        .get(stage.position + 1)
                        .is_none_or(|next| graph.stage_node(*next).is_some_and(|next| next.pipeline != stage.pipeline))
                    {
                        link(sources + stage.pipeline.0, Edge::Base);
                    }
                    continue;
                }
                for (needed, edge) in graph.needs(*node) {
                    if let (Edge::Fetch, Some(item)) = (edge, graph.item_node(needed)) {
                        link(item.source, Edge::Fetch);
                    }
                }
            }
            clusters.push(Cluster { name: pipeline.name.clone(), end: graph.pipelines[index].last().map(|_| to) });
            vertices.push(pipeline_vertex(graph, annotate, index));
        }
        links.sort_unstable();
        links.dedup();
        Self { level: Level::Pipeline, vertices, links, clusters }
    }

    /// The same for people: items that the same stages read become one vertex, and a build tree leads to a pipeline's
    /// first stage only, standing for all of them.
    fn folded(self) -> Self {
        if self.level == Level::Pipeline {
            return self;
        }
        let Self { level, vertices, links, clusters } = self;
        let mut readers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for link in links.iter().filter(|link| link.kind == Edge::Fetch) {
            readers.entry(link.from).or_default().push(link.to);
        }
        let mut place = Vec::with_capacity(vertices.len());
        let mut kept: Vec<(Vertex, usize)> = Vec::new();
        let mut groups = BTreeMap::new();
        for (index, vertex) in vertices.into_iter().enumerate() {
            let fresh = kept.len();
            let to = match vertex.kind {
                Kind::Item => {
                    let key = (vertex.module.clone(), vertex.mark, readers.remove(&index));
                    *groups.entry(key).or_insert(fresh)
                }
                Kind::Stage | Kind::Pipeline | Kind::Source => fresh,
            };
            place.push(to);
            match kept.get_mut(to) {
                Some((_, count)) => *count += 1,
                None => kept.push((vertex, 1)),
            }
        }
        let mut built = HashSet::new();
        let mut folded: Vec<Link> =
            links.into_iter().map(|link| Link { from: place[link.from], to: place[link.to], ..link }).collect();
        folded.sort_unstable();
        folded.dedup();
        folded.retain(|link| link.kind != Edge::Build || built.insert((link.from, kept[link.to].0.cluster)));
        let vertices = kept.into_iter().map(|(vertex, count)| match count {
            1 => vertex,
            _ => Vertex { subtitle: format!("{count} items"), id: format!("{count} items"), ..vertex },
        });
        let clusters =
            clusters.into_iter().map(|Cluster { name, end }| Cluster { name, end: end.map(|end| place[end]) });
        Self { level, vertices: vertices.collect(), links: folded, clusters: clusters.collect() }
    }

    /// The vertices of every cluster, in order.
    fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.clusters.len()];
        for (index, vertex) in self.vertices.iter().enumerate() {
            if let Some(cluster) = vertex.cluster {
                members[cluster].push(index);
            }
        }
        members
    }

    /// The names that point at a vertex from other clusters than its own.
    fn other_names(&self) -> BTreeMap<usize, Vec<&str>> {
        let mut names: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (index, cluster) in self.clusters.iter().enumerate() {
            if let Some(end) = cluster.end
                && self.vertices[end].cluster.is_some_and(|own| own != index)
            {
                names.entry(end).or_default().push(&cluster.name);
            }
        }
        names
    }

    /// What a pointer over the vertex shows.
    fn tooltip(&self, index: usize) -> String {
        let Vertex { kind, id, module, pipelines, mark, reason, .. } = &self.vertices[index];
        let mut lines = vec![match (kind, module) {
            (Kind::Stage | Kind::Item, Some(module)) => format!("{module} {id}"),
            _ => id.clone(),
        }];
        if *kind == Kind::Stage && pipelines.len() > 1 {
            lines.push(format!("in {}", pipelines.join(", ")));
        }
        match (mark, reason) {
            (Some(mark), Some(reason)) => lines.push(format!("{}: {reason}", mark.name())),
            (Some(mark), None) => lines.push(mark.name().to_owned()),
            (None, _) => {}
        }
        lines.join("\n")
    }
}

fn source_vertex(graph: &Graph, annotate: &Annotate<'_>, index: usize) -> Vertex {
    let source = &graph.manifest.sources[index];
    let nodes = graph.dag.node_indices().filter(|node| graph.item_node(*node).is_some_and(|item| item.source == index));
    let marks: Vec<Mark> = nodes.filter_map(|node| Some(annotate(node)?.mark)).collect();
    Vertex {
        kind: Kind::Source,
        id: format!("source:{}", source.module.name),
        osbuild_id: None,
        module: Some(source.module.name.clone()),
        title: short_module(&source.module.name).to_owned(),
        subtitle: counted(source.items.len(), "item", &marks),
        pipelines: Vec::new(),
        cluster: None,
        mark: marks.into_iter().min(),
        reason: None,
        link: None,
    }
}

fn pipeline_vertex(graph: &Graph, annotate: &Annotate<'_>, index: usize) -> Vertex {
    let pipeline = &graph.manifest.pipelines[index];
    let nodes = &graph.pipelines[index].stages;
    let mark = |node: &NodeIndex| {
        let elsewhere = graph.stage_node(*node).is_some_and(|stage| stage.pipeline.0 != index);
        Some(match annotate(*node)?.mark {
            Mark::Run | Mark::Cached if elsewhere => Mark::Shared,
            mark => mark,
        })
    };
    let marks: Vec<Mark> = nodes.iter().filter_map(mark).collect();
    let last = graph.pipelines[index].last();
    let stage = last.and_then(|node| graph.stage_node(node));
    // What fails or runs shows; otherwise the last stage speaks for the pipeline.
    let shown = [Mark::Failed, Mark::Run].into_iter().find(|mark| marks.contains(mark));
    let annotation = last.and_then(annotate);
    Vertex {
        kind: Kind::Pipeline,
        id: format!("pipeline:{}", pipeline.name),
        osbuild_id: stage.map(|stage| stage.compat.to_string()),
        module: None,
        title: pipeline.name.clone(),
        subtitle: counted(nodes.len(), "stage", &marks),
        pipelines: vec![pipeline.name.clone()],
        cluster: None,
        mark: shown.or(marks.last().copied()),
        reason: annotation.as_ref().and_then(|annotation| annotation.reason.clone()),
        link: annotation.and_then(|annotation| annotation.link),
    }
}

/// `3 stages: 2 run, 1 cached`
fn counted(count: usize, what: &str, marks: &[Mark]) -> String {
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!("{count} {what}{plural}");
    let counts = Mark::ALL.map(|mark| (mark, marks.iter().filter(|other| **other == mark).count()));
    let mut separator = ": ";
    for (mark, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        text.push_str(&format!("{separator}{count} {}", mark.name()));
        separator = ", ";
    }
    text
}

fn short_module(name: &str) -> &str {
    name.strip_prefix("org.osbuild.").unwrap_or(name)
}

/// The algorithm with the first digits, e.g. `sha256:0123456789ab`.
fn short_checksum(checksum: &str) -> String {
    let (algorithm, digits) = checksum.split_once(':').unwrap_or(("", checksum));
    let separator = if algorithm.is_empty() { "" } else { ":" };
    let digits: String = digits.chars().take(12).collect();
    format!("{algorithm}{separator}{digits}")
}

#[cfg(test)]
mod tests;
