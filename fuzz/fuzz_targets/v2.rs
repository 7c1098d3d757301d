//! Manifests of format 2: the input stands behind `"version": "2"`, so that the fuzzer need not find it.

#![no_main]

mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let inside = data.strip_prefix(b"{").unwrap_or(data);
    exercise::exercise([b"{\"version\": \"2\", ", inside].concat());
});
