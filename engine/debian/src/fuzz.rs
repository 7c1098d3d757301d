//! What people and apt write, damaged: read or refused, without a panic.

use std::io::Write as _;
use std::path::Path;

use osbc_fixtures::fuzz::{Target, survive};

use crate::apt::{indexes, package, unknown_package};
use crate::lock::Lock;
use crate::spec::Spec;

const TARGETS: &[Target] = &[
    ("apt", |data| {
        let text = String::from_utf8_lossy(data);
        let repositories = indexes(&text);
        for line in text.lines() {
            let _ = package(line, &repositories);
            unknown_package(line);
        }
    }),
    ("description", |data| {
        with_file(data, |path| {
            if let Ok(spec) = Spec::read(path) {
                let _ = spec.check_boot("amd64");
                spec.wanted("amd64");
                spec.tools();
                spec.more_wanted();
            }
        });
    }),
    ("lock", |data| {
        with_file(data, |path| {
            if let Ok(Some(lock)) = Lock::read(path) {
                lock.changes(&lock);
            }
        });
    }),
];

fn with_file(data: &[u8], parser: impl FnOnce(&Path)) {
    let mut file = tempfile::NamedTempFile::new().expect("there is room");
    file.write_all(data).expect("there is room");
    parser(file.path());
}

#[test]
fn every_parser_survives_what_it_is_fed() {
    survive(TARGETS);
}
