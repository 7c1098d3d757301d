//! Modules that do what none should: a clear failure of what needs them, everything else is built, and nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::hostile::FAILING_SERVICES;
use osbc_fixtures::{has_root, hostile_libdir, libdir};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers, osbc};

/// The kinds of modules that are services of a stage.
const SERVICES: [&str; 3] = ["input", "device", "mount"];

/// The modules of `fixtures/libdir` and those that do what none should: a stage, and every kind of service.
pub(crate) fn hostile(place: &Place) -> PathBuf {
    let directory = place.path("libdir");
    let copied = std::process::Command::new("cp").arg("-a").arg(libdir()).arg(&directory).status();
    assert!(copied.expect("cp is there").success());
    let any = json!({"additionalProperties": true});
    let of_stage = json!({"options": any, "inputs": any, "devices": any, "mounts": any});
    let of_source = json!({"properties": {"items": any, "options": any}});
    for (kind, script, schema) in [
        ("stages", "stages", of_stage),
        ("inputs", "inputs", any.clone()),
        ("devices", "inputs", any.clone()),
        ("mounts", "inputs", any),
        ("sources", "inputs", of_source),
    ] {
        let to = directory.join(kind).join("org.example.hostile");
        fs::copy(hostile_libdir().join(script).join("org.example.hostile"), &to).expect("copies");
        let meta = json!({"summary": "-", "description": [], "schema_2": schema}).to_string();
        fs::write(to.with_file_name("org.example.hostile.meta.json"), meta).expect("writes");
    }
    directory
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

/// Whether there is a process with an argument that begins with this path.
pub(crate) fn runs(path: &Path) -> bool {
    let arguments = |process: fs::DirEntry| fs::read(process.path().join("cmdline")).unwrap_or_default();
    let path = path.to_str().expect("text").as_bytes();
    let mut processes = fs::read_dir("/proc").expect("is mounted").flatten();
    processes.any(|process| arguments(process).split(|byte| *byte == 0).any(|argument| argument.starts_with(path)))
}

#[test]
fn root_a_hostile_source_fails_what_needs_it_and_nothing_else() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
    for (how, reason) in [
        ("closes", "it closed its socket without an answer"),
        ("garbage", "it sent something that is no JSON"),
        ("nonsense", "which is no message of the protocol"),
        ("large", "more than 67108864 are not read"),
        ("pipe", "a document by a descriptor that is no file"),
        ("group", "it ended with signal: 9 (SIGKILL)"),
        ("raises", "KeyError: 'x'"),
        ("elsewhere", "the source says nothing about this item"),
        ("descriptors", "the source says nothing about this item"),
        ("daemon", "the source says nothing about this item"),
    ] {
        let output = build(&place, &libdir, how).output().expect("starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{how}: {message}");
        assert!(message.contains(reason), "{how}: {message}");
        assert_eq!(fs::read_to_string(place.output().join("other/greeting")).expect("built"), "hello, you\n");
        fs::remove_dir_all(place.output()).expect("removes");
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new(), "{how}");
        assert!(!runs(&libdir), "{how}: something that it started still runs");
    }
    osbc().args(["store", "verify", "--store"]).arg(place.store()).assert().success();
}

#[test]
fn root_a_source_that_never_answers_or_floods_ends_with_the_build() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
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

/// A pipeline with a stage that is hostile, by how.
fn with_stage(how: &str) -> Value {
    json!({"name": format!("stage-{how}"), "stages": [{"type": "org.example.hostile", "options": {"how": how}}]})
}

/// A pipeline with a stage that is not, and that has a service of a kind that is.
fn with_service(kind: &str, how: &str) -> Value {
    let mut service = json!({"type": "org.example.hostile", "options": {"how": how}});
    let mut stage = json!({"type": "org.example.hostile", "options": {"how": "nothing"}});
    match kind {
        "input" => {
            service["origin"] = json!("org.osbuild.pipeline");
            service["references"] = json!({"name:other": {}});
            stage["inputs"] = json!({"it": service});
        }
        "device" => stage["devices"] = json!({"it": service}),
        _ => {
            service["name"] = json!("it");
            service["target"] = json!("/");
            stage["mounts"] = json!([service]);
        }
    }
    json!({"name": format!("{kind}-{how}"), "stages": [stage]})
}

/// Builds pipelines side by side with one that is none of theirs, which must come out; gives for each that failed its
/// name and why.
fn build_beside(place: &Place, mut pipelines: Vec<Value>, timeout: &str) -> Vec<(String, String)> {
    pipelines
        .insert(0, json!({"name": "other", "stages": [{"type": "org.example.greet", "options": {"name": "you"}}]}));
    let manifest = place.manifest(&json!({"version": "2", "pipelines": &pipelines}));
    let mut command = place.build(&manifest);
    for pipeline in &pipelines {
        command.arg("-e").arg(pipeline["name"].as_str().expect("a name"));
    }
    let libdir = hostile(place);
    command.arg("--libdir").arg(&libdir);
    command.args(["--json", "--keep-going", "-j", "8", "--stage-timeout", timeout]);
    let output = command.assert().code(1).get_output().stdout.clone();
    let document: Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!(fs::read_to_string(place.output().join("other/greeting")).expect("built"), "hello, you\n");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    assert_eq!(fs::read_dir(place.store().join("work")).map_or(0, Iterator::count), 0, "no tree in the making is left");
    assert!(!runs(&libdir), "something that a service started still runs");
    assert!(!Path::new("/tmp/much").exists(), "/tmp is the stage's own");
    osbc().args(["store", "verify", "--store"]).arg(place.store()).assert().success();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failures = document["failures"].as_array().expect("a list").iter();
    failures
        .map(|failure| {
            assert_eq!(failure["module"], "org.example.hostile", "{failure}");
            (text(&failure["pipeline"]), text(&failure["error"]))
        })
        .collect()
}

/// That each of these failed for its reason, and nothing else did. A message names the service that failed.
fn assert_failed(failures: &[(String, String)], expected: &[(String, &str)]) {
    for (pipeline, reason) in expected {
        let (kind, _) = pipeline.split_once('-').expect("a kind and what is done");
        let whose = if kind == "stage" || reason.contains("longer") { String::new() } else { format!("{kind} `it`: ") };
        let message = failures.iter().find(|(name, _)| name == pipeline);
        let is_so = message.is_some_and(|(_, message)| message.starts_with(&whose) && message.contains(reason));
        assert!(is_so, "{pipeline}: {reason}: {message:?}");
    }
    assert_eq!(failures.len(), expected.len(), "{failures:?}");
}

#[test]
fn root_hostile_stages_and_services_fail_alone_and_leave_nothing() {
    if !has_root() {
        return;
    }
    let mut pipelines = Vec::new();
    let mut expected = Vec::new();
    for (how, reason) in [
        ("closes", "it ended with exit status 1"),
        ("garbage", "Mess: made\nhere"),
        ("large", "it ended with exit status 1"),
        ("descriptors", "it ended with exit status 1"),
        ("connections", "it ended with exit status 1"),
        ("daemon", "it ended with exit status 1"),
        ("group", "its process was ended by SIGKILL"),
        ("tmp", "No space left on device"),
        ("meta", "cannot read the metadata that it wrote"),
        ("fifo", "it is no file any more"),
        ("no-json", "the metadata that it wrote is no JSON"),
        ("raises", "TypeError: no reason"),
    ] {
        pipelines.push(with_stage(how));
        expected.push((format!("stage-{how}"), reason));
    }
    for kind in SERVICES {
        for (how, reason) in FAILING_SERVICES {
            pipelines.push(with_service(kind, how));
            expected.push((format!("{kind}-{how}"), reason));
        }
        // Neither is forbidden; what it leaves is taken away all the same.
        pipelines.extend(["descriptors", "daemon"].map(|how| with_service(kind, how)));
    }
    let place = Place::new();
    let failures = build_beside(&place, pipelines, "100");
    assert_failed(&failures, &expected);
    for kind in SERVICES {
        for how in ["descriptors", "daemon"] {
            assert!(place.output().join(format!("{kind}-{how}")).is_dir(), "{kind} {how}");
        }
    }
}

#[test]
fn root_stages_and_services_that_never_end_end_with_the_time_out() {
    if !has_root() {
        return;
    }
    let mut pipelines = Vec::new();
    for how in ["silent", "floods"] {
        pipelines.push(with_stage(how));
        pipelines.extend(SERVICES.map(|kind| with_service(kind, how)));
    }
    let named = pipelines.iter().map(|pipeline| pipeline["name"].as_str().expect("a name").to_owned());
    let expected: Vec<_> = named.map(|name| (name, "it took longer than the 10s")).collect();
    let place = Place::new();
    let start = Instant::now();
    let failures = build_beside(&place, pipelines, "10");
    assert_failed(&failures, &expected);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
