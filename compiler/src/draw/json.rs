//! A drawing as data: see [`super::Format::Json`] for the shape.

use serde::Serialize;

use super::{Drawing, edge_name};

#[derive(Serialize)]
struct Document<'a> {
    nodes: Vec<Node<'a>>,
    edges: Vec<Edge<'a>>,
    pipelines: Vec<Pipeline<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    osbuild_id: Option<&'a str>,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    pipelines: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    kind: &'a str,
}

#[derive(Serialize)]
struct Pipeline<'a> {
    name: &'a str,
    node: Option<&'a str>,
}

pub(super) fn write(drawing: &Drawing) -> String {
    let id = |index: usize| drawing.vertices[index].id.as_str();
    let nodes = drawing.vertices.iter().map(|vertex| Node {
        id: &vertex.id,
        osbuild_id: vertex.osbuild_id.as_deref(),
        kind: vertex.kind.name(),
        module: vertex.module.as_deref(),
        pipelines: &vertex.pipelines,
        action: vertex.mark.map(super::Mark::name),
        reason: vertex.reason.as_deref(),
    });
    let edges =
        drawing.links.iter().map(|link| Edge { from: id(link.from), to: id(link.to), kind: edge_name(link.kind) });
    let pipelines = drawing.clusters.iter().map(|cluster| Pipeline { name: &cluster.name, node: cluster.end.map(id) });
    let document = Document { nodes: nodes.collect(), edges: edges.collect(), pipelines: pipelines.collect() };
    let mut text = serde_json::to_string_pretty(&document).expect("texts and lists can always be written as JSON");
    text.push('\n');
    text
}
