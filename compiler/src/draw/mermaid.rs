//! A drawing as a Mermaid flowchart.

use std::fmt::Write;

use osbc_ir::Edge;

use super::{Colours, Drawing, EDGES, Kind, Level, Mark, colours, edge_colour, edge_name};

/// Mermaid's text for a drawing.
pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(drawing, &mut out);
    out
}

fn render(drawing: &Drawing, out: &mut String) -> std::fmt::Result {
    writeln!(out, "flowchart LR")?;
    let names = drawing.other_names();
    for (index, _) in drawing.vertices.iter().enumerate().filter(|(_, vertex)| vertex.cluster.is_none()) {
        node(drawing, index, &[], "  ", out)?;
    }
    let members = drawing.members();
    for (cluster, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
        writeln!(out, "  subgraph p{cluster}[\"{}\"]", escaped(&drawing.clusters[cluster].name))?;
        for member in members {
            node(drawing, *member, names.get(member).map_or(&[], Vec::as_slice), "    ", out)?;
        }
        writeln!(out, "  end")?;
    }
    for link in &drawing.links {
        let arrow = match link.kind {
            Edge::Base => "-->",
            Edge::Build => "-.->",
            Edge::Input => "==>",
            Edge::Fetch => "-..->",
        };
        let to = match (drawing.level, link.kind, drawing.vertices[link.to].cluster) {
            (Level::Stage, Edge::Build, Some(cluster)) => format!("p{cluster}"),
            _ => format!("n{}", link.to),
        };
        writeln!(out, "  n{} {arrow} {to}", link.from)?;
    }
    for kind in EDGES {
        let positions: Vec<String> = drawing
            .links
            .iter()
            .enumerate()
            .filter(|(_, link)| link.kind == kind)
            .map(|(position, _)| position.to_string())
            .collect();
        if !positions.is_empty() {
            writeln!(out, "  %% {}", edge_name(kind))?;
            writeln!(out, "  linkStyle {} stroke:{}", positions.join(","), edge_colour(kind))?;
        }
    }
    for mark in Mark::ALL.into_iter().filter(|mark| drawing.vertices.iter().any(|vertex| vertex.mark == Some(*mark))) {
        let Colours { fill, line, text } = colours(Some(mark));
        writeln!(out, "  classDef {} fill:{fill},stroke:{line},color:{text}", mark.name())?;
    }
    Ok(())
}

fn node(drawing: &Drawing, index: usize, names: &[&str], indent: &str, out: &mut String) -> std::fmt::Result {
    let vertex = &drawing.vertices[index];
    let mut label = format!("{}<br/><small>{}</small>", escaped(&vertex.title), escaped(&vertex.subtitle));
    if !names.is_empty() {
        label.push_str(&format!("<br/><small><i>{}</i></small>", escaped(&names.join(", "))));
    }
    let (open, close) = match vertex.kind {
        Kind::Stage | Kind::Pipeline => ("[", "]"),
        Kind::Item | Kind::Source => ("[(", ")]"),
    };
    let class = vertex.mark.map(|mark| format!(":::{}", mark.name())).unwrap_or_default();
    writeln!(out, "{indent}n{index}{open}\"{label}\"{close}{class}")
}

/// Everything that Mermaid could take for its own as a numbered entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            plain if plain.is_alphanumeric() || " ._-:,/+".contains(plain) => escaped.push(plain),
            control if control.is_control() => escaped.push('\u{fffd}'),
            // Writing to a string cannot fail.
            other => drop(write!(escaped, "#{};", u32::from(other))),
        }
    }
    escaped
}
