//! Formats names, times, sizes and tables for people.

use std::fmt::Write as _;
use std::time::Duration;

use osbc_ir::graph::{Node, NodeIndex};
pub(crate) use osbc_ir::size as bytes;
use osbc_ir::{Graph, printable};

/// The pipeline and module of a stage, or the checksum and source of an item.
pub(crate) fn node_name(graph: &Graph, node: NodeIndex) -> (&str, &str) {
    match &graph.dag[node] {
        Node::Stage(stage) => {
            let (pipeline, stage) = graph.stage(stage);
            (&pipeline.name, &stage.module.name)
        }
        Node::Item(item) => {
            let (source, item) = graph.item(item);
            (&source.module.name, &item.key.checksum)
        }
    }
}

/// A duration in the unit that reads best: `3 ms`, `1.24 s`, `2 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_millis() {
        0 => format!("{} µs", duration.as_micros()),
        millis @ 1..1000 => format!("{millis} ms"),
        _ if seconds < 60 => format!("{:.2} s", duration.as_secs_f64()),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A count with its noun: `1 stage`, `3 stages`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Rows with aligned columns, two spaces apart; a header row comes first.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| printable::line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("a string grows");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_micros(120)), "120 µs");
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(duration(Duration::from_millis(1240)), "1.24 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn columns_line_up_without_trailing_spaces() {
        let rows = [vec!["pipeline".into(), "ran".into()], vec!["tr\nee".into(), "9".into()]];
        assert_eq!(table(&rows), "pipeline    ran\ntr\\u000aee  9\n");
    }
}
