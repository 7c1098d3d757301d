//! A drawing for Graphviz.

use std::fmt::Write;

use osbc_ir::Edge;

use super::escape::xml;
use super::{Colours, Drawing, Kind, Level, Link, colours, edge_colour, edge_name};

/// Graphviz's text for a drawing.
pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(drawing, &mut out);
    out
}

fn render(drawing: &Drawing, out: &mut String) -> std::fmt::Result {
    writeln!(out, "digraph manifest {{")?;
    writeln!(out, "  graph [rankdir=LR, compound=true, newrank=true, nodesep=0.18, ranksep=0.55, pad=0.3,")?;
    writeln!(out, "         fontname=\"Helvetica,Arial,sans-serif\", fontsize=12, color=\"#b8c0cc\"];")?;
    writeln!(
        out,
        "  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica,Arial,sans-serif\", fontsize=11,"
    )?;
    writeln!(out, "        margin=\"0.14,0.07\", height=0.3, penwidth=1.2];")?;
    writeln!(out, "  edge [arrowsize=0.65, penwidth=1.2];")?;

    let names = drawing.other_names();
    for (index, vertex) in drawing.vertices.iter().enumerate().filter(|(_, vertex)| vertex.cluster.is_none()) {
        node(drawing, index, &[], "  ", out)?;
        debug_assert_ne!(vertex.kind, Kind::Stage, "stages are drawn in their pipelines");
    }
    for (cluster, members) in drawing.members().iter().enumerate().filter(|(_, members)| !members.is_empty()) {
        let name = xml(&drawing.clusters[cluster].name);
        writeln!(out, "  subgraph cluster_{cluster} {{")?;
        writeln!(
            out,
            "    label=<<b>{name}</b>>; labeljust=l; style=\"rounded,filled\"; fillcolor=\"#f7f8fa\"; margin=10;"
        )?;
        for member in members {
            node(drawing, *member, names.get(member).map_or(&[], Vec::as_slice), "    ", out)?;
        }
        writeln!(out, "  }}")?;
    }
    for link in &drawing.links {
        edge(drawing, *link, out)?;
    }
    writeln!(out, "}}")
}

fn node(drawing: &Drawing, index: usize, names: &[&str], indent: &str, out: &mut String) -> std::fmt::Result {
    let vertex = &drawing.vertices[index];
    let Colours { fill, line, text } = colours(vertex.mark);
    let mut label =
        format!("<b>{}</b><br/><font point-size=\"9\">{}</font>", xml(&vertex.title), xml(&vertex.subtitle));
    if !names.is_empty() {
        label.push_str(&format!("<br/><font point-size=\"9\"><i>{}</i></font>", xml(&names.join(", "))));
    }
    let shape = match vertex.kind {
        Kind::Stage | Kind::Pipeline => "",
        Kind::Item | Kind::Source => ", shape=cylinder, style=filled",
    };
    let shared = if vertex.kind == Kind::Stage && vertex.pipelines.len() > 1 { ", peripheries=2" } else { "" };
    let tooltip = quoted(&drawing.tooltip(index));
    writeln!(
        out,
        "{indent}n{index} [label=<{label}>, fillcolor=\"{fill}\", color=\"{line}\", fontcolor=\"{text}\"{shape}{shared}, tooltip={tooltip}];"
    )
}

fn edge(drawing: &Drawing, link: Link, out: &mut String) -> std::fmt::Result {
    let style = match link.kind {
        Edge::Base => "weight=8",
        Edge::Build => "style=dashed",
        Edge::Input => "penwidth=1.8",
        Edge::Fetch => "style=dotted",
    };
    let colour = edge_colour(link.kind);
    // A build tree serves every stage of a pipeline: its edge ends at the pipeline's frame.
    let frame = match (drawing.level, link.kind, drawing.vertices[link.to].cluster) {
        (Level::Stage, Edge::Build, Some(cluster)) => format!(", lhead=cluster_{cluster}"),
        _ => String::new(),
    };
    writeln!(
        out,
        "  n{} -> n{} [{style}, color=\"{colour}\"{frame}, tooltip=\"{}\"];",
        link.from,
        link.to,
        edge_name(link.kind)
    )
}

/// A quoted string of the DOT language.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let text: String = text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    format!("\"{text}\"")
}
