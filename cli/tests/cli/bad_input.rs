//! Bad input of every kind: a clear error that names the place, the right exit code, nothing half-written.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use osbc_fixtures::{has_root, has_tool, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_match};
use serde_json::json;

use crate::harness::{Place, checksum, fetching, leftovers, one_pipeline, osbc, respond, serve};

#[test]
fn texts_that_are_no_manifest_are_refused_with_line_and_column() {
    let place = Place::new();
    let deep = [b"{\"a\":".repeat(10_000), b"1".to_vec(), b"}".repeat(10_000)].concat();
    let cases: [(&str, &[u8], &str); 8] = [
        ("empty", b"", "empty"),
        ("truncated", br#"{"version": "2", "pipelines": [{"name""#, ":1:"),
        ("trailing", b"{\"version\": \"2\"}\n}", ":2:"),
        ("not UTF-8", b"{\"version\": \"2\", \"x\": \"\xff\"}", "UTF-8"),
        ("unknown version", br#"{"version": "3"}"#, "version"),
        ("too deep", &deep, "deep"),
        ("overflow", br#"{"version": "2", "metadata": {"a": 1e400}}"#, "1e400"),
        ("a list", b"[]", "object"),
    ];
    for (name, text, expected) in cases {
        let path = place.file("bad.json", text);
        let assert = osbc().arg("inspect").arg(&path).assert();
        let output = assert.code(2).get_output().stderr.clone();
        let output = String::from_utf8_lossy(&output);
        assert!(output.contains(expected) && output.contains("bad.json"), "{name}: {output}");
    }
}

#[test]
fn a_manifest_that_is_not_there_is_named() {
    osbc().args(["plan", "no/such.json"]).assert().code(2).stderr(contains("no/such.json"));
}

#[test]
fn a_hundred_megabytes_of_manifest_are_no_trouble() {
    let place = Place::new();
    let filler = "x".repeat(100 << 20);
    let path = place.file("big.json", format!(r#"{{"version": "2", "nonsense": "{filler}"}}"#).as_bytes());
    let assert = osbc().arg("inspect").arg(&path).assert().code(2).stderr(contains("nonsense"));
    assert!(assert.get_output().stderr.len() < 100_000, "the message shows a window, not the line");
}

#[test]
fn problems_come_as_data_too() {
    let place = Place::new();
    let path = place.manifest(&one_pipeline(
        json!([{"type": "org.osbuild.hostnam"}, {"type": "org.osbuild.hostname", "options": {"hostname": 1}}]),
    ));
    let output = osbc().args(["inspect", "--json"]).arg(path).assert().code(2).get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&output).expect("the report is JSON");
    assert_eq!(report["success"], false);
    let errors = report["errors"].as_array().expect("a list of errors");
    assert_eq!(errors[0]["path"], json!(["pipelines", 0, "stages", 0]));
    assert_eq!(errors[1]["path"], json!(["pipelines", 0, "stages", 1, "options", "hostname"]));
}

#[test]
fn root_a_failed_stage_shows_its_options_its_output_and_its_log() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&one_pipeline(json!([
        {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/a"}]}},
        {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/no/parent"}]}},
    ])));
    place
        .build(&path)
        .assert()
        .code(1)
        .stderr(contains("org.osbuild.mkdir").and(contains("/no/parent")).and(is_match(r"\.log").expect("a pattern")));
    assert!(!place.output().join("tree").exists(), "nothing half-written is exported");
    let plan = place.plan(&path);
    assert_eq!(plan["pipelines"][0]["stages"][0]["action"], "cached", "what succeeded is kept: {plan:#}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_a_symlink_to_the_host_does_not_lead_a_stage_out_of_its_tree() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let canary = place.path("canary");
    std::fs::create_dir(&canary).expect("the directory is writable");
    for target in ["/", canary.to_str().expect("test paths are UTF-8")] {
        let path = place.manifest(&one_pipeline(json!([
            {"type": "org.osbuild.ln", "options": {"paths": [
                {"target": target, "link_name": "tree:///etc", "symbolic": true}]}},
            {"type": "org.osbuild.hostname", "options": {"hostname": "escaped"}},
        ])));
        // Whether the stage finds a place inside the tree or fails: nothing outside changes.
        let code = place.build(&path).assert().get_output().status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        assert_ne!(std::fs::read_to_string("/etc/hostname").unwrap_or_default(), "escaped\n");
        assert_eq!(std::fs::read_dir(&canary).expect("it is there").count(), 0);
    }
}

#[test]
fn root_a_checksum_that_does_not_match_is_refused() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let url = serve(Arc::new(|_, stream| respond(stream, "200 OK", b"something else")));
    let wanted = checksum(b"what was wanted");
    let path = place.manifest(&fetching(&wanted, &format!("{url}/item")));
    place.build(&path).assert().code(1).stderr(contains(&wanted).and(contains(checksum(b"something else"))));
    assert!(!place.store().join("sources/org.osbuild.files").join(&wanted).exists());
}

#[test]
fn root_what_is_not_there_is_asked_for_once() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let url = serve(Arc::new(move |_, stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        respond(stream, "404 Not Found", b"");
    }));
    let path = place.manifest(&fetching(&checksum(b""), &format!("{url}/missing.rpm")));
    place.build(&path).assert().code(1).stderr(contains("404").and(contains("missing.rpm")));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn root_a_download_that_is_cut_off_is_taken_up_again() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    let wanted = checksum(&body);
    let tries = AtomicUsize::new(0);
    let url = serve(Arc::new(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let sent = if tries.fetch_add(1, Ordering::SeqCst) == 0 { body.len() / 2 } else { body.len() };
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent])).ok();
    }));
    let path = place.manifest(&fetching(&wanted, &format!("{url}/item")));
    place.build(&path).assert().success();
    let content = std::fs::read(place.output().join("tree/item")).expect("the item is exported");
    assert_eq!(checksum(&content), wanted);
}

#[test]
fn root_an_interrupt_ends_a_stalled_download() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let url = serve(Arc::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc").ok();
        std::thread::sleep(Duration::from_secs(600));
    }));
    let path = place.manifest(&fetching(&checksum(b"never"), &format!("{url}/stalled")));
    let program = assert_cmd::cargo::cargo_bin("osbc");
    let mut child = std::process::Command::new(program)
        .arg("build")
        .arg(&path)
        .arg("--store")
        .arg(place.store())
        .spawn()
        .expect("osbc starts");
    std::thread::sleep(Duration::from_millis(700));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it still runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn root_no_space_left_is_said_and_nothing_half_written_stays() {
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&one_pipeline(json!([
        {"type": "org.osbuild.truncate", "options": {"filename": "big", "size": "64M"}},
        {"type": "org.osbuild.mkfs.ext4", "options": {"uuid": "6c1f5bd4-3f5e-4c43-9c5a-7a6bd0a5a0e1"},
         "devices": {"device": {"type": "org.osbuild.loopback", "options": {"filename": "big"}}}},
    ])));
    // A store of its own file system with 3 MB, in a mount namespace of its own.
    let script = format!(
        "mkdir {store} && mount -t tmpfs -o size=3m none {store} && exec {osbc} build {manifest} --store {store}",
        store = place.store().display(),
        osbc = assert_cmd::cargo::cargo_bin("osbc").display(),
        manifest = path.display(),
    );
    let output =
        std::process::Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().expect("unshare starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 3)), "{errors}");
    assert!(errors.contains("o space left") || errors.contains("no space"), "{errors}");
}

#[test]
fn root_a_read_only_store_is_an_environment_failure() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let script = format!(
        "mkdir {store} && mount -t tmpfs -o ro none {store} && exec {osbc} build {manifest} --store {store}",
        store = place.store().display(),
        osbc = assert_cmd::cargo::cargo_bin("osbc").display(),
        manifest = manifest("diamond.json").display(),
    );
    let output =
        std::process::Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().expect("unshare starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("read-only") || errors.contains("Read-only"), "{errors}");
}
