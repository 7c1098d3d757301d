//! A short, repeatable run of what the fuzz targets do without end: manifests damaged as text and as JSON are compiled,
//! sealed and described, or refused with a report that renders. Nothing panics, and what is refused has a place.

use std::fs;

use miette::{GraphicalReportHandler, GraphicalTheme};
use osbc_compiler::{IdScheme, SourceText, compile, describe};
use osbc_ir::{Runner, Value};
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::runners::{BUILT_IN, for_host};
use osbc_pytext::json;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use serde_json::json;

/// The manifests that are damaged: the good fixtures and the broken ones.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for folder in ["", "broken"] {
        for entry in fs::read_dir(osbc_fixtures::manifest(folder)).expect("the fixtures") {
            let path = entry.expect("a readable folder").path();
            if path.extension().is_some_and(|extension| extension == "json") {
                seeds.push(fs::read(path).expect("readable"));
            }
        }
    }
    assert!(seeds.len() > 30, "only {} seeds", seeds.len());
    seeds.sort();
    seeds
}

/// Compiles bytes as far as they go.
fn exercise(bytes: Vec<u8>, catalog: &Catalog, host: &Runner) {
    let Ok(text) = SourceText::from_bytes("m.json", bytes) else { return };
    match compile(&text, catalog, host) {
        Ok(manifest) => {
            let graph = manifest.seal();
            for ids in [IdScheme::Osbuild, IdScheme::Blake3] {
                assert!(json::to_string(&describe(&graph, ids)).starts_with("{\""));
            }
        }
        Err(report) => {
            assert!(!report.problems().is_empty());
            for located in report.problems() {
                assert!(located.line > 0 && located.column > 0 && located.span.end <= text.as_str().len());
            }
            let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
            assert!(report.render(&handler, 3).contains("osbc::"));
            assert!(report.to_json()["errors"][0]["path"].is_array());
        }
    }
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

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value, &Catalog, &Runner)) {
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let (catalog, host) = (Catalog::new(libraries), for_host("", BUILT_IN));
    let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&strategy, |value| {
        test(value, &catalog, &host);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn damaged_text_is_compiled_or_refused() {
    let seeds = seeds();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    let strategy = (prop::sample::select(seeds), edits);
    run(1_000, strategy, |(mut bytes, edits), catalog, host| {
        for (at, byte, how) in edits {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
        exercise(bytes, catalog, host);
    });
}

#[test]
fn damaged_manifests_are_compiled_or_refused() {
    let seeds: Vec<Value> = seeds().iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect();
    let edits = prop::collection::vec((any::<usize>(), 0..17_usize), 1..5);
    run(2_000, (prop::sample::select(seeds), edits), |(mut manifest, edits), catalog, host| {
        for (place, how) in edits {
            damage(&mut manifest, place, how);
        }
        exercise(manifest.to_string().into_bytes(), catalog, host);
    });
}
