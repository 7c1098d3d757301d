//! What is exported comes when it is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use osbc_fixtures::mounted::{Mounted, fill_up, run};
use osbc_fixtures::{has_root, has_tool};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::json;

use crate::harness::{Place, checksum, fetching, one_pipeline, osbc, respond, serve};

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
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let pipeline = |name: &str, path: &str| {
        let stages = json!([{"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}}]);
        json!({"name": name, "stages": stages})
    };
    let pipelines = json!([pipeline("mount", "/a"), pipeline("second", "/b"), pipeline("third", "/no/parent")]);
    let path = place.manifest(&json!({"version": "2", "pipelines": pipelines}));
    std::fs::create_dir(place.output()).expect("new");
    let full = Mounted::new(&place.output(), 4);
    fill_up(&full.0.join("all"));
    let message = contains("mount: no space left");
    let exported = contains(place.output().join("second").display().to_string());
    let mut build = place.build(&path);
    build.args(["-e", "mount", "-e", "second"]).assert().code(3).stderr(message.clone()).stdout(exported.clone());
    assert!(place.output().join("second/b").is_dir());
    // A build that fails says so by its code, and both are reported.
    let mut build = place.build(&path);
    build.args(["--keep-going", "-e", "mount", "-e", "second", "-e", "third"]);
    build.assert().code(1).stderr(message.and(contains("org.osbuild.mkdir"))).stdout(exported);
}

#[test]
fn root_a_destination_that_cannot_be_written_to_is_found_before_anything_runs() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&one_pipeline(json!([{"type": "org.osbuild.noop"}])));
    std::fs::write(place.path("file"), "in the way").expect("new");
    std::fs::create_dir_all(place.path("out")).expect("new");
    std::fs::write(place.path("out/tree"), "in the way").expect("new");
    std::os::unix::fs::symlink("nowhere", place.path("link")).expect("new");
    let read_only = Mounted::in_memory(&place.path(""));
    run(std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&read_only.0));
    for (output, message) in [
        ("file", "file: it is there already and not a directory"),
        ("file/deeper", "file: it is there already and not a directory"),
        ("link", "link: it is there already and not a directory"),
        ("out", "out/tree: it is there already and not a directory"),
        ("mount/out", "mount cannot be written to: Read-only file system"),
    ] {
        let mut build = osbc();
        build.arg("build").arg(&path).arg("--store").arg(place.store()).arg("-o").arg(place.path("").join(output));
        build.assert().code(3).stderr(contains(message));
        assert!(!place.store().exists(), "{output}: nothing ran");
    }
}
