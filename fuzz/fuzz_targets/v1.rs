//! Manifests as they are: without a `version`, format 1.

#![no_main]

mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::exercise(data.to_vec()));
