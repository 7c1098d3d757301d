//! A source that does what none should: a clear failure of what needs it, and everything else is built.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::{has_root, hostile_libdir, libdir};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers, osbc};

/// The modules of `fixtures/libdir` and, as a source, the hostile service.
fn hostile_source(place: &Place) -> std::path::PathBuf {
    let folder = place.path("libdir");
    let copied = std::process::Command::new("cp").arg("-a").arg(libdir()).arg(&folder).status();
    assert!(copied.expect("cp is there").success());
    let sources = folder.join("sources");
    fs::copy(hostile_libdir().join("inputs/org.example.hostile"), sources.join("org.example.hostile")).expect("copies");
    let meta = json!({"summary": "-", "description": [], "schema_2": {"properties": {"items": {}, "options": {}}}});
    fs::write(sources.join("org.example.hostile.meta.json"), meta.to_string()).expect("writes");
    folder
}

/// A pipeline that reads an item of the hostile source, and one that has nothing to do with it.
fn two_pipelines(how: &str) -> Value {
    let item = checksum(b"never");
    let files = json!({"type": "org.example.files", "origin": "org.osbuild.source", "references": {&item: {}}});
    json!({
        "version": "2",
        "sources": {"org.example.hostile": {"items": {item: {}}, "options": {"how": how}}},
        "pipelines": [
            {"name": "reads", "stages": [{"type": "org.example.write", "inputs": {"files": files}}]},
            {"name": "other", "stages": [{"type": "org.example.greet", "options": {"name": "you"}}]},
        ],
    })
}

fn build(place: &Place, libdir: &Path, how: &str) -> std::process::Command {
    let manifest = place.manifest(&two_pipelines(how));
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("osbc"));
    command.arg("build").arg(manifest).arg("--store").arg(place.store()).arg("-o").arg(place.output());
    command.args(["-e", "reads", "-e", "other", "--keep-going", "--libdir"]).arg(libdir);
    command
}

/// Whether there is a process that runs this script.
fn runs(script: &Path) -> bool {
    let arguments = |process: fs::DirEntry| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
    let script = script.to_str().expect("text");
    let mut processes = fs::read_dir("/proc").expect("is mounted").flatten();
    processes.any(|process| arguments(process).split('\0').any(|argument| argument == script))
}

#[test]
fn root_a_hostile_source_fails_what_needs_it_and_nothing_else() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile_source(&place);
    for (how, reason) in [
        ("closes", "it closed its socket without an answer"),
        ("garbage", "it sent something that is no JSON"),
        ("nonsense", "which is no message of the protocol"),
        ("large", "more than 67108864 are not read"),
        ("pipe", "a document by a descriptor that is no file"),
        ("group", "it ended with signal: 9 (SIGKILL)"),
        ("raises", "KeyError: 'x'"),
        ("elsewhere", "the source says nothing about this item"),
    ] {
        let output = build(&place, &libdir, how).output().expect("starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{how}: {told}");
        assert!(told.contains(reason), "{how}: {told}");
        assert_eq!(fs::read_to_string(place.output().join("other/greeting")).expect("built"), "hello, you\n");
        fs::remove_dir_all(place.output()).expect("removes");
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new(), "{how}");
    }
    osbc().args(["store", "verify", "--store"]).arg(place.store()).assert().success();
}

#[test]
fn root_a_source_that_never_answers_or_floods_ends_with_the_build() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile_source(&place);
    for how in ["silent", "floods"] {
        let mut child = build(&place, &libdir, how).stderr(std::process::Stdio::null()).spawn().expect("starts");
        let start = Instant::now();
        while !runs(&libdir.join("sources/org.example.hostile")) {
            assert!(start.elapsed() < Duration::from_secs(60), "{how}: it is started");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("runs");
        assert_eq!(child.wait().expect("ends").code(), Some(130), "{how}");
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new(), "{how}");
    }
}
