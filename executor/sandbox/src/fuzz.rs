//! The parsers of outside bytes in this crate as functions of bytes: what fuzzers and the tests feed.
//!
//! None may panic, take long, or take much memory, whatever it is fed.

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use serde_json::Value;

use crate::request::StageReply;
use crate::service::lines::Lines;
use crate::service::protocol;
use crate::stage::message;
use crate::vm;

/// A parser by its name, and what feeds it.
pub type Parser = (&'static str, fn(&[u8]));

/// The parsers.
pub const PARSERS: &[Parser] = &[
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
            let _ = message::decode::<StageReply>(bytes);
            let _ = message::receive::<Value>(bytes);
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
