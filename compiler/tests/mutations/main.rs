//! A short, repeatable run of what the fuzz targets do without end: manifests damaged as text and as JSON are compiled,
//! finalized and described, or refused with a report that renders.
//!
//! Nothing panics, and what is refused has a place.

use std::fs;

use osbc_ir::Value;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use serde_json::json;

mod exercise;

/// The manifests that are damaged: the good fixtures and the broken ones.
fn seeds() -> Vec<Value> {
    let mut seeds = Vec::new();
    for directory in ["", "broken"] {
        for entry in fs::read_dir(osbc_fixtures::manifest(directory)).expect("the fixtures") {
            let path = entry.expect("a readable directory").path();
            if path.extension().is_some_and(|extension| extension == "json") {
                seeds.push(fs::read(path).expect("readable"));
            }
        }
    }
    assert!(seeds.len() > 30, "only {} seeds", seeds.len());
    seeds.sort();
    seeds.iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect()
}

/// All values inside a value, by pointer.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                pointers(item, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

/// What a value is replaced with.
fn strangers() -> Vec<Value> {
    let huge = serde_json::from_str("123456789012345678901234567890").expect("a number");
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        huge,
        json!(""),
        json!("name:tree"),
        json!("org.osbuild.noop"),
        json!("\u{0}😀"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"": {"a/b~": 1}}),
    ]
}

/// One replacement, removal or doubling in a value.
fn damage(value: &mut Value, place: usize, how: usize) {
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    let pointer = found[place % found.len()].clone();
    let strangers = strangers();
    if how < strangers.len() {
        if let Some(target) = value.pointer_mut(&pointer) {
            *target = strangers[how].clone();
        }
        return;
    }
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    match value.pointer_mut(parent) {
        Some(Value::Object(entries)) => {
            let key = key.replace("~1", "/").replace("~0", "~");
            let taken = entries.shift_remove(&key).unwrap_or_default();
            if how.is_multiple_of(2) {
                entries.insert(key + "x", taken);
            }
        }
        Some(Value::Array(items)) => {
            let index = key.parse().unwrap_or(0);
            let taken = items.remove(index);
            if how.is_multiple_of(2) {
                items.extend([taken.clone(), taken]);
            }
        }
        _ => {}
    }
}

#[test]
fn the_compiler_survives_what_it_is_fed() {
    osbc_fixtures::fuzz::survive(&[("v1", exercise::v1), ("v2", exercise::v2), ("broken-manifests", exercise::v1)]);
}

#[test]
fn damaged_manifests_are_compiled_or_refused() {
    let edits = prop::collection::vec((any::<usize>(), 0..17_usize), 1..5);
    let config = Config { cases: 2_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&(prop::sample::select(seeds()), edits), |(mut manifest, edits)| {
        for (place, how) in edits {
            damage(&mut manifest, place, how);
        }
        exercise::v1(manifest.to_string().as_bytes());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
