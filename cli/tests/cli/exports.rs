//! What is exported comes when it is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use osbc_fixtures::has_root;
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
