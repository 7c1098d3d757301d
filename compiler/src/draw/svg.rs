//! A drawing as a complete SVG: pipelines as boxes with a row per stage, in the order of what needs what.

use std::fmt::Write;

use osbc_ir::Edge;

use super::escape::xml;
use super::layout::{Block, Layout, Wire, layout};
use super::{Colours, Drawing, EDGES, Kind, Link, Mark, colours, edge_colour, edge_name};

const MARGIN: f64 = 20.0;
const HEADER: f64 = 26.0;
const ROW: f64 = 40.0;
/// What a row leaves free above and below the stage's box.
const ROW_GAP: f64 = 5.0;
const PADDING: f64 = 10.0;
const LEGEND: f64 = 34.0;

/// The SVG for a drawing.
pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = Picture::new(drawing).render(&mut out);
    out
}

/// A drawing with every vertex assigned to a block of the layout.
struct Picture<'a> {
    drawing: &'a Drawing,
    /// For every block, the cluster that it shows, if it shows one, and its vertices, top to bottom.
    groups: Vec<(Option<usize>, Vec<usize>)>,
    /// For every vertex, its block and its row.
    place: Vec<(usize, usize)>,
    blocks: Vec<Block>,
    /// For every vertex, its small line, with the names that point at it from elsewhere.
    subtitles: Vec<String>,
}

impl<'a> Picture<'a> {
    fn new(drawing: &'a Drawing) -> Self {
        let loose = (0..drawing.vertices.len()).filter(|index| drawing.vertices[*index].cluster.is_none());
        let mut groups: Vec<(Option<usize>, Vec<usize>)> = loose.map(|index| (None, vec![index])).collect();
        let members = drawing.members().into_iter().enumerate().filter(|(_, members)| !members.is_empty());
        groups.extend(members.map(|(cluster, members)| (Some(cluster), members)));

        let mut place = vec![(0, 0); drawing.vertices.len()];
        for (block, (_, members)) in groups.iter().enumerate() {
            for (row, vertex) in members.iter().enumerate() {
                place[*vertex] = (block, row);
            }
        }
        let names = drawing.other_names();
        let subtitle = |index: usize| match names.get(&index) {
            Some(names) => format!("{} = {}", drawing.vertices[index].subtitle, names.join(", ")),
            None => drawing.vertices[index].subtitle.clone(),
        };
        let subtitles: Vec<String> = (0..drawing.vertices.len()).map(subtitle).collect();
        let blocks = groups.iter().map(|(cluster, members)| {
            let texts = members.iter().map(|vertex| {
                text_width(&drawing.vertices[*vertex].title, 7.3).max(text_width(&subtitles[*vertex], 5.9))
            });
            let name = cluster.map_or(0.0, |cluster| text_width(&drawing.clusters[cluster].name, 7.8));
            let inner = texts.fold(name, f64::max) + 2.0 * PADDING;
            let rows = members.len() as f64 * ROW;
            match cluster {
                Some(_) => Block { width: inner + 2.0 * PADDING, height: HEADER + rows + PADDING - ROW_GAP },
                None => Block { width: inner, height: ROW - 2.0 * ROW_GAP },
            }
        });
        let blocks = blocks.collect();
        Self { drawing, groups, place, blocks, subtitles }
    }

    fn render(&self, out: &mut String) -> std::fmt::Result {
        let links = &self.drawing.links;
        let (within, across): (Vec<&Link>, Vec<&Link>) =
            links.iter().partition(|link| self.place[link.from].0 == self.place[link.to].0);
        let wires: Vec<Wire> = across
            .iter()
            .map(|link| {
                let (from, to) = (self.place[link.from].0, self.place[link.to].0);
                let header = link.kind == Edge::Build && self.groups[to].0.is_some();
                let to_y = if header { HEADER / 2.0 } else { self.row_middle(link.to) };
                Wire { from, from_y: self.row_middle(link.from), to, to_y }
            })
            .collect();
        let layout = layout(&self.blocks, &wires);

        let width = (layout.width + 2.0 * MARGIN).max(560.0);
        let height = layout.height + 2.0 * MARGIN + LEGEND;
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img">"#
        )?;
        writeln!(out, "<title>Build graph</title>")?;
        self.style(out)?;
        writeln!(out, r#"<rect class="page" width="100%" height="100%"/>"#)?;
        writeln!(out, r#"<g transform="translate({MARGIN} {MARGIN})">"#)?;
        self.frames(&layout, out)?;
        for (link, route) in across.iter().zip(&layout.routes) {
            let name = edge_name(link.kind);
            writeln!(out, r#"<path class="edge {name}" marker-end="url(#{name})" d="{}"/>"#, curve(route))?;
        }
        for link in within {
            let ((x, _), from, to) =
                (self.corner(&layout, link.from), self.bottom(&layout, link.from), self.top(&layout, link.to));
            let (x, name) = (x + 2.0 * PADDING, edge_name(link.kind));
            writeln!(out, r#"<path class="edge {name}" marker-end="url(#{name})" d="M{x:.1} {from:.1}V{to:.1}"/>"#)?;
        }
        self.boxes(&layout, out)?;
        writeln!(out, "</g>")?;
        self.legend(height - LEGEND, out)?;
        writeln!(out, "</svg>")
    }

    fn style(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "<style>")?;
        writeln!(out, "text {{ font: 12px system-ui, 'Helvetica Neue', Helvetica, Arial, sans-serif; }}")?;
        writeln!(
            out,
            ".small {{ font-size: 10px; }} .name {{ font-weight: 600; font-size: 13px; }} .title {{ font-weight: 600; }}"
        )?;
        writeln!(out, ".edge {{ fill: none; stroke-width: 1.4; }} .edge.build {{ stroke-dasharray: 6 4; }}")?;
        writeln!(
            out,
            ".edge.fetch {{ stroke-dasharray: 1.5 4; stroke-linecap: round; }} .edge.input {{ stroke-width: 2; }}"
        )?;
        let plain = colours(None);
        let dark = Colours { fill: "#1d222b", line: "#7d8696", text: "#e6e9ef" };
        theme("#ffffff", "#f7f8fa", "#d5d9e0", "#5b6472", plain, |mark| colours(Some(mark)), out)?;
        writeln!(out, "@media (prefers-color-scheme: dark) {{")?;
        theme("#12151b", "#181c23", "#343b47", "#9aa3b2", dark, dark_colours, out)?;
        writeln!(out, "}}")?;
        for kind in EDGES {
            let (name, colour) = (edge_name(kind), edge_colour(kind));
            writeln!(out, ".edge.{name} {{ stroke: {colour}; }} marker .{name} {{ fill: {colour}; stroke: none; }}")?;
        }
        writeln!(out, "</style>")?;
        writeln!(out, "<defs>")?;
        for kind in EDGES {
            let name = edge_name(kind);
            writeln!(
                out,
                r#"<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="{name}" d="M0 0.5L8 4L0 7.5z"/></marker>"#
            )?;
        }
        writeln!(out, "</defs>")
    }

    fn frames(&self, layout: &Layout, out: &mut String) -> std::fmt::Result {
        for (index, (cluster, _)) in self.groups.iter().enumerate() {
            let (Some(cluster), (x, y), Block { width, height }) = (cluster, layout.corners[index], self.blocks[index])
            else {
                continue;
            };
            let name = xml(&self.drawing.clusters[*cluster].name);
            writeln!(
                out,
                r#"<rect class="frame" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="9"/>"#
            )?;
            let (x, y) = (x + 1.5 * PADDING, y + HEADER - 8.0);
            writeln!(out, r#"<text class="name" x="{x:.1}" y="{y:.1}">{name}</text>"#)?;
        }
        Ok(())
    }

    fn boxes(&self, layout: &Layout, out: &mut String) -> std::fmt::Result {
        for (index, vertex) in self.drawing.vertices.iter().enumerate() {
            let (x, y) = self.corner(layout, index);
            let block = self.blocks[self.place[index].0];
            let width = if vertex.cluster.is_some() { block.width - 2.0 * PADDING } else { block.width };
            let height = ROW - 2.0 * ROW_GAP;
            let class = vertex.mark.map_or("plain", Mark::name);
            let radius = match vertex.kind {
                Kind::Stage | Kind::Pipeline => 5.0,
                Kind::Item | Kind::Source => height / 2.0,
            };
            let title = xml(&self.drawing.tooltip(index));
            match &vertex.link {
                Some(link) => writeln!(out, r#"<a href="{}"><title>{title}</title>"#, xml(link))?,
                None => writeln!(out, "<g><title>{title}</title>")?,
            }
            writeln!(
                out,
                r#"<rect class="box {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="{radius}"/>"#
            )?;
            if vertex.kind == Kind::Stage && vertex.pipelines.len() > 1 {
                let (x, y, width, height) = (x + 2.5, y + 2.5, width - 5.0, height - 5.0);
                writeln!(
                    out,
                    r#"<rect class="box {class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3"/>"#
                )?;
            }
            let (x, title, subtitle) = (x + PADDING, xml(&vertex.title), xml(&self.subtitles[index]));
            writeln!(out, r#"<text class="title {class}" x="{x:.1}" y="{:.1}">{title}</text>"#, y + 13.0)?;
            let end = if vertex.link.is_some() { "a" } else { "g" };
            writeln!(out, r#"<text class="small {class}" x="{x:.1}" y="{:.1}">{subtitle}</text></{end}>"#, y + 25.0)?;
        }
        Ok(())
    }

    /// The kinds of edges and the actions that occur.
    fn legend(&self, y: f64, out: &mut String) -> std::fmt::Result {
        let (mut x, y) = (MARGIN, y + LEGEND / 2.0);
        for kind in EDGES.into_iter().filter(|kind| self.drawing.links.iter().any(|link| link.kind == *kind)) {
            let name = edge_name(kind);
            let end = x + 26.0;
            writeln!(out, r#"<path class="edge {name}" marker-end="url(#{name})" d="M{x:.0} {y:.0}H{end:.0}"/>"#)?;
            writeln!(out, r#"<text class="small legend" x="{:.0}" y="{:.1}">{name}</text>"#, end + 6.0, y + 3.5)?;
            x = end + 14.0 + text_width(name, 6.0);
        }
        for mark in Mark::ALL {
            if self.drawing.vertices.iter().any(|vertex| vertex.mark == Some(mark)) {
                let name = mark.name();
                writeln!(
                    out,
                    r#"<rect class="box {name}" x="{x:.0}" y="{:.1}" width="16" height="12" rx="3"/>"#,
                    y - 6.0
                )?;
                writeln!(out, r#"<text class="small legend" x="{:.0}" y="{:.1}">{name}</text>"#, x + 22.0, y + 3.5)?;
                x += 32.0 + text_width(name, 6.0);
            }
        }
        Ok(())
    }

    /// The upper left corner of a vertex's box.
    fn corner(&self, layout: &Layout, vertex: usize) -> (f64, f64) {
        let (block, row) = self.place[vertex];
        let (x, y) = layout.corners[block];
        match self.groups[block].0 {
            Some(_) => (x + PADDING, y + HEADER + row as f64 * ROW),
            None => (x, y),
        }
    }

    fn top(&self, layout: &Layout, vertex: usize) -> f64 {
        self.corner(layout, vertex).1
    }

    fn bottom(&self, layout: &Layout, vertex: usize) -> f64 {
        self.corner(layout, vertex).1 + ROW - 2.0 * ROW_GAP
    }

    /// The middle of a vertex's box, from the top of its block.
    fn row_middle(&self, vertex: usize) -> f64 {
        let (block, row) = self.place[vertex];
        let header = if self.groups[block].0.is_some() { HEADER + row as f64 * ROW } else { 0.0 };
        header + ROW / 2.0 - ROW_GAP
    }
}

fn theme(
    page: &str,
    frame: &str,
    line: &str,
    dim: &str,
    plain: Colours,
    of: impl Fn(Mark) -> Colours,
    out: &mut String,
) -> std::fmt::Result {
    writeln!(out, ".page {{ fill: {page}; }} .frame {{ fill: {frame}; stroke: {line}; }} .legend {{ fill: {dim}; }}")?;
    writeln!(out, ".name {{ fill: {}; }}", plain.text)?;
    let named = Mark::ALL.into_iter().map(|mark| (mark.name(), of(mark)));
    for (name, Colours { fill, line, text }) in std::iter::once(("plain", plain)).chain(named) {
        writeln!(out, "rect.{name} {{ fill: {fill}; stroke: {line}; }} text.{name} {{ fill: {text}; }}")?;
    }
    Ok(())
}

fn dark_colours(mark: Mark) -> Colours {
    let (fill, line, text) = match mark {
        Mark::Failed => ("#471a1a", "#ff8a80", "#ffdad6"),
        Mark::Run => ("#3b2a0a", "#e0a030", "#ffe3b0"),
        Mark::NotStarted => ("#161a21", "#8d8264", "#b8ae92"),
        Mark::Fetch => ("#10294a", "#5a9ae6", "#d3e6ff"),
        Mark::Cached => ("#12331d", "#4fb872", "#cdf2d8"),
        Mark::Shared => ("#2a1f45", "#9f7ee0", "#e6dcff"),
        Mark::Unneeded => ("#1a1e26", "#3d4452", "#7d8696"),
    };
    Colours { fill, line, text }
}

/// A line through points that leaves and arrives level.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = match index.checked_sub(1).map(|previous| points[previous]) {
            None => write!(path, "M{x:.1} {y:.1}"),
            Some((_, from_y)) if from_y == *y => write!(path, "H{x:.1}"),
            Some((from_x, from_y)) => {
                let middle = f64::midpoint(from_x, *x);
                write!(path, "C{middle:.1} {from_y:.1} {middle:.1} {y:.1} {x:.1} {y:.1}")
            }
        };
    }
    path
}

/// About how wide a text is, given a usual width of a letter.
fn text_width(text: &str, letter: f64) -> f64 {
    text.chars().map(|char| if char.is_ascii() { letter } else { 1.6 * letter }).sum()
}
