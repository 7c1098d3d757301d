//! What is exported comes when it is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use osbc_fixtures::has_root;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::json;

use crate::harness::{Place, checksum, fetching, respond, serve};

/// The item of one pipeline is served once the result of the other is exported.
#[test]
fn root_a_result_is_exported_while_others_are_made() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let early = place.output().join("early/made");
    let exported = early.clone();
    let url = serve(Arc::new(move |_, stream| {
        let end = Instant::now() + Duration::from_secs(60);
        while !exported.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = if exported.exists() { "200 OK" } else { "404 Not Found" };
        respond(stream, status, b"late");
    }));
    let mut manifest = fetching(&checksum(b"late"), &format!("{url}/item"));
    let stages = json!([{"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/made"}]}}]);
    let pipelines = manifest["pipelines"].as_array_mut().expect("it has some");
    pipelines.push(json!({"name": "early", "stages": stages}));
    let path = place.manifest(&manifest);
    place.build(&path).args(["-e", "tree", "-e", "early"]).assert().success();
    assert!(early.is_dir() && place.output().join("tree/item").is_file());
    // What is there from the beginning is exported too.
    std::fs::remove_dir_all(place.output()).expect("they are the test's");
    place.build(&path).args(["-e", "tree", "-e", "early"]).assert().success();
    assert!(early.is_dir() && place.output().join("tree/item").is_file());
}

#[test]
fn root_an_export_that_fails_hides_nothing_else() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let pipeline = |name: &str, path: &str| {
        let stages = json!([{"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}}]);
        json!({"name": name, "stages": stages})
    };
    let pipelines = json!([pipeline("first", "/a"), pipeline("second", "/b"), pipeline("third", "/no/parent")]);
    let path = place.manifest(&json!({"version": "2", "pipelines": pipelines}));
    std::fs::create_dir(place.output()).and_then(|()| std::fs::write(place.output().join("first"), "")).expect("new");
    let told = contains("first: it is there already and not a folder");
    let exported = contains(place.output().join("second").display().to_string());
    let mut build = place.build(&path);
    build.args(["-e", "first", "-e", "second"]).assert().code(3).stderr(told.clone()).stdout(exported.clone());
    assert!(place.output().join("second/b").is_dir());
    // A build that fails says so by its code, and both are told.
    let mut build = place.build(&path);
    build.args(["--keep-going", "-e", "first", "-e", "second", "-e", "third"]);
    build.assert().code(1).stderr(told.and(contains("org.osbuild.mkdir"))).stdout(exported);
}
