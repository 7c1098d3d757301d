//! The parsers of outside bytes in this crate as functions of bytes: what fuzzers and the tests feed.
//!
//! None may panic, take long, or take much memory, whatever it is fed.

use std::io::Write as _;

use nix::unistd::Uid;

use crate::history::History;
use crate::objects::object;
use crate::osbuild::info::Info;
use crate::{digest, user_namespace};

/// A parser by its name, and what feeds it.
pub type Parser = (&'static str, fn(&[u8]));

/// The parsers.
pub const PARSERS: &[Parser] = &[
    ("digests", |data| {
        let checked = [data, blake3::hash(data).as_bytes()].concat();
        for bytes in [data, &checked] {
            if let Some(record) = digest::TreeRecord::decode(bytes) {
                record.encode().expect("it has a form");
            }
        }
    }),
    ("history", |data| {
        let file = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(data).map(|()| file));
        let Ok(history) = file.and_then(|file| History::read(file.path())) else { return };
        history.bytes(osbc_ir::StageId::from_bytes([0; 32]), "org.osbuild.mkdir");
    }),
    ("objects", |data| {
        // With the hash that it must have, as that of a description that was written.
        let text = String::from_utf8_lossy(data);
        let checked = format!(r#"{{"blake3":"{}","object":{text}}}"#, blake3::hash(text.as_bytes()).to_hex());
        for text in [data, checked.as_bytes()] {
            object::decode(text);
        }
    }),
    ("osbuild-info", |data| {
        if let Ok(document) = serde_json::from_slice(data) {
            Info::of(&document);
        }
    }),
    ("subordinate-ids", |data| {
        user_namespace::ranges(&String::from_utf8_lossy(data), "user", Uid::from_raw(1000));
    }),
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_parser_survives_what_it_is_fed() {
        osbc_fixtures::fuzz::survive(super::PARSERS);
    }
}
