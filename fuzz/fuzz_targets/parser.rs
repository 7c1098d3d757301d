//! Any parser of outside bytes, by its name in `OSBC_FUZZ_TARGET`.

#![no_main]

use std::env;
use std::sync::LazyLock;

#[path = "../../compiler/tests/mutations/exercise.rs"]
mod exercise;

/// Those of the compiler; the other crates list theirs.
const MANIFESTS: [(&str, fn(&[u8])); 2] = [("v1", exercise::v1), ("v2", exercise::v2)];

static PARSER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = env::var("OSBC_FUZZ_TARGET").unwrap_or_default();
    let libraries = || {
        osbc_modules::fuzz::PARSERS
            .iter()
            .chain(osbc_executor::fuzz::PARSERS)
            .chain(osbc_sandbox::fuzz::PARSERS)
            .chain(osbc_store::fuzz::PARSERS)
    };
    let parsers = || MANIFESTS.iter().chain(libraries());
    let found = parsers().find(|(name, _)| *name == wanted);
    found.map(|(_, parser)| *parser).unwrap_or_else(|| {
        let names: Vec<&str> = parsers().map(|(name, _)| *name).collect();
        panic!("OSBC_FUZZ_TARGET is one of {}", names.join(", "))
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| PARSER(data));
