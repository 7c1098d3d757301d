//! The parsers of outside bytes in this crate as functions of bytes: what fuzzers and the tests feed.
//!
//! None may panic, take long, or take much memory, whatever it is fed.

use osbc_ir::Graph;
use osbc_ir::content::{own_facts, stage_key};

use crate::event::line;
use crate::{cutoff, record};

/// A parser by its name, and what feeds it.
pub type Parser = (&'static str, fn(&[u8]));

/// The parsers.
pub const PARSERS: &[Parser] = &[
    ("cutoff", |data| String::from_utf8_lossy(data).lines().for_each(|line| drop(cutoff::parse(line)))),
    ("events", |data| drop(line::read(data))),
    ("graph", |data| {
        let Ok(graph) = serde_json::from_slice::<Graph>(data) else { return };
        for node in graph.dag.node_indices() {
            if graph.stage_node(node).is_some() {
                stage_key(&graph, &[node]);
                own_facts(&graph, node, |pipeline| &graph.manifest.pipeline(pipeline).name);
            }
        }
    }),
    ("record", |data| drop(serde_json::from_slice::<record::Header>(data))),
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_parser_survives_what_it_is_fed() {
        osbc_fixtures::fuzz::survive(super::PARSERS);
    }
}
