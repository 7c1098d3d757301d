//! Options and variables that change how a build goes, not what it makes; and the result document of version 1.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use osbc_fixtures::has_root;
use serde_json::{Value, json};

use super::{HELLO, image_of_installed, image_of_tree, mkdir, names, osbuild, run};
use crate::harness::{Place, leftovers};

/// Makes an on-disk stage of a shell script.
fn stage(libdir: &Path, name: &str, script: &str) {
    let stages = libdir.join("stages");
    fs::create_dir_all(&stages).expect("makes");
    let file = stages.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("is ours");
    let meta = json!({"summary": "-", "description": [], "schema_2": {}});
    fs::write(stages.join(format!("{name}.meta.json")), meta.to_string()).expect("writes");
}

#[test]
fn a_stage_that_takes_longer_than_it_may_fails() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    stage(&place.path("lib"), "org.example.waits", "echo waiting; sleep 1000");
    place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "tree", "stages": [mkdir("/x"), {"type": "org.example.waits"}, mkdir("/y")]},
    ]}));
    let arguments = "--stage-timeout 2 --libdir lib --out o --export tree --json manifest.json".split(' ');
    let document = run(osbuild(&place), arguments).document(1);
    let failed = &document["error"]["details"]["stage"];
    assert_eq!(failed["type"], "org.example.waits");
    let output = failed["output"].as_str().expect("an output");
    assert!(output.starts_with("waiting\n") && output.contains("longer than the 2s"), "{failed}");
    assert_eq!(document["log"]["tree"].as_array().map(Vec::len), Some(2), "{document}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn a_run_may_have_a_directory_for_what_it_needs_meanwhile() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_installed());
    let libdir = osbc_fixtures::libdir().into_os_string().into_string().expect("text");
    let arguments = ["--rundir", "r", "--libdir", &libdir, "--out", "o", "--export", "tree", "manifest.json"];
    run(osbuild(&place), arguments).with(0);
    assert_eq!(fs::read(place.path("o/tree/hello")).expect("was written"), HELLO);
    assert!(!place.path("r").exists() || names(&place.path("r")).is_empty(), "something is left there");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn the_environment_asks_for_a_trace() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_tree());
    let mut command = osbuild(&place);
    command.env("OSBC_TRACE", "trace.json");
    run(command, ["--out", "o", "--export", "image", "manifest.json"]).with(0);
    let text = fs::read_to_string(place.path("trace.json")).expect("was written");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("is over, so it is whole");
    for stage in ["tree: mkdir", "tree: copy", "image: copy"] {
        assert!(entries.iter().any(|entry| entry["ph"] == "B" && entry["name"] == stage), "no {stage} in {text}");
    }
}

#[test]
fn results_of_version_1_are_nested_and_say_what_osbuild_says() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    stage(&place.path("lib"), "org.example.fails", "echo no; exit 3");
    stage(&place.path("lib"), "org.example.does", "echo yes");
    let (does, fails) = (json!({"name": "org.example.does"}), json!({"name": "org.example.fails"}));
    let build = |document: Value| {
        fs::write(place.path("manifest.json"), document.to_string()).expect("writes");
        let arguments = "--libdir lib --out o --export tree --json manifest.json".split(' ');
        run(osbuild(&place), arguments)
    };
    let document = build(json!({"pipeline": {"stages": [does, fails, does]}})).document(1);
    let ended: Vec<&Value> =
        document["stages"].as_array().expect("stages").iter().map(|stage| &stage["success"]).collect();
    assert_eq!((ended, &document["success"]), (vec![&json!(true), &json!(false)], &json!(false)));
    assert_eq!(document["stages"][1]["output"], "no\n");

    // What failed in the build pipeline failed for both.
    let inner = |stage: &Value| json!({"pipeline": {"stages": [stage]}, "runner": "org.osbuild.linux"});
    let document = build(json!({"pipeline": {"build": inner(&fails), "stages": [does]}})).document(1);
    assert_eq!((&document["success"], &document["build"]["success"]), (&json!(false), &json!(false)));
    assert_eq!(document["stages"], Value::Null);

    // Where only the main pipeline fails, osbuild says that of the build pipeline. Nothing runs in an empty tree.
    let document = build(json!({"pipeline": {"build": inner(&does), "stages": [does]}})).document(1);
    assert_eq!((&document["success"], &document["build"]["success"]), (&json!(true), &json!(true)));
    assert_eq!(document["stages"][0]["success"], false);
}
