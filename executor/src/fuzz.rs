//! The parsers of outside bytes in this crate as functions of bytes: what fuzzers and the tests feed. None may panic, take
//! long, or take much memory, whatever it is fed.

use osbc_ir::Graph;
use osbc_ir::content::{own_facts, own_key};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use serde_json::Value;

use crate::event::line;
use crate::request::StageReply;
use crate::service::lines::Lines;
use crate::service::protocol;
use crate::{cutoff, record, sandbox, vm};

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
                own_key(&graph, &[node]);
                own_facts(&graph, node, |pipeline| &graph.manifest.pipeline(pipeline).name);
            }
        }
    }),
    ("kernel-module", |data| {
        if let Ok(module) = vm::kernel::decompressed(data.to_vec()) {
            vm::kernel::needs(&module);
        }
    }),
    ("lines", |data| {
        let (mut lines, mut said) = (Lines::new("p: "), 0);
        data.chunks(7).for_each(|piece| lines.push(piece, &mut |line| said += line.len()));
        lines.finish(&mut |line| said += line.len());
    }),
    ("record", |data| drop(serde_json::from_slice::<record::Header>(data))),
    ("service", |data| {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let Ok((ours, theirs)) = pair else { return };
        if send(&ours, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
            && let Ok(Some(message)) = protocol::receive(&theirs)
        {
            let _ = protocol::send(&ours, &message.value);
        }
    }),
    ("stage-reply", |data| {
        let mut bytes = (data.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(data);
        for bytes in [data, &bytes] {
            let _ = sandbox::message::decode::<StageReply>(bytes);
            let _ = sandbox::message::receive::<Value>(bytes);
        }
    }),
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_parser_survives_what_it_is_fed() {
        osbc_fixtures::fuzz::survive(super::PARSERS);
    }
}
