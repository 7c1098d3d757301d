//! What remains after failures, kills and interrupts: nothing but what was finished.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::{has_root, has_tool, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::json;

use crate::harness::{Place, leftovers};

#[test]
fn root_keep_going_builds_what_does_not_depend_on_the_failure() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let error = json!({"type": "org.osbuild.error", "options": {"returncode": 42}});
    let hostname = |name: &str| json!({"type": "org.osbuild.hostname", "options": {"hostname": name}});
    let mkdir = json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/etc"}]}});
    let path = place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "bad", "stages": [error, hostname("never")]},
        {"name": "worse", "stages": [mkdir, error]},
        {"name": "good", "stages": [mkdir, hostname("good")]},
    ]}));
    place
        .build(&path)
        .args(["-j", "1", "--keep-going"])
        .assert()
        .code(1)
        .stderr(contains("bad").and(contains("worse")));
    assert_eq!(
        std::fs::read_to_string(place.output().join("good/etc/hostname")).expect("it does not depend on them"),
        "good\n"
    );
    assert!(!place.output().join("bad").exists());
}

#[test]
fn root_builds_killed_at_any_moment_leave_nothing_and_go_on_later() {
    if !has_root() || !["mke2fs", "debugfs"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let program = assert_cmd::cargo::cargo_bin("osbc");
    for round in 0..12u64 {
        let mut child = std::process::Command::new(&program)
            .arg("build")
            .arg(manifest("quickstart.json"))
            .arg("--store")
            .arg(place.store())
            .args(["-j", "4"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("osbc starts");
        std::thread::sleep(Duration::from_millis(15 + 45 * round));
        child.kill().ok();
        child.wait().expect("it ends");
    }
    place.build(&manifest("quickstart.json")).assert().success();
    let work = std::fs::read_dir(place.store().join("work")).expect("the store has its directories");
    assert_eq!(work.count(), 0, "what dead builds left is swept");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

/// Starts a build whose second stage takes longer than anybody waits, interrupts it when that one runs, and gives the
/// exit code and what it said.
fn interrupt(place: &Place, times: usize) -> (Option<i32>, String) {
    let large = json!({"type": "org.osbuild.truncate", "options": {"filename": "large", "size": "256G"}});
    let input = json!({
        "type": "org.osbuild.files", "origin": "org.osbuild.pipeline", "references": {"name:file": {"file": "large"}}
    });
    let compress = json!({"type": "org.osbuild.xz", "inputs": {"file": input}, "options": {"filename": "large.xz"}});
    let manifest = place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "file", "stages": [large]}, {"name": "compressed", "stages": [compress]}
    ]}));
    let mut build = std::process::Command::new(assert_cmd::cargo::cargo_bin("osbc"));
    build.arg("build").arg(&manifest).arg("--store").arg(place.store());
    let mut build = build.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("osbc starts");
    let mut lines = BufReader::new(build.stderr.take().expect("a pipe")).lines();
    assert!(lines.next().expect("a line").expect("text").contains("truncate"));
    // Whether the second one is in the middle of its work or just begins: both must end.
    let pid = Pid::from_raw(build.id().cast_signed());
    for _ in 0..times {
        kill(pid, Signal::SIGINT).expect("it runs");
    }
    let output = build.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn root_an_interrupt_keeps_what_was_finished_and_leaves_nothing() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let (code, said) = interrupt(&place, 1);
    assert_eq!(code, Some(130));
    assert!(said.contains("interrupted in") && said.contains("1 stage finished and kept in the store"), "{said}");
    assert!(!said.contains("FAILED"), "{said}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    let work = std::fs::read_dir(place.store().join("work")).expect("the store has its directories");
    assert_eq!(work.count(), 0);
    let plan = place.plan(&place.path("manifest.json"));
    assert_eq!(plan["pipelines"][0]["stages"][0]["action"], "cached", "{plan:#}");
}

#[test]
fn root_a_second_interrupt_ends_at_once_and_leaves_nothing() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    assert_eq!(interrupt(&place, 2).0, Some(130));
    // Nobody is there to wait for the stage, which is killed with its parent.
    let end = Instant::now() + Duration::from_secs(10);
    while !leftovers(&place.path("")).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_two_builds_of_one_store_at_a_time_get_the_same_result() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let builds: Vec<_> = (0..4)
        .map(|number| {
            let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("osbc"));
            command.arg("build").arg(manifest("variants.json")).arg("--store").arg(place.store());
            command.arg("-o").arg(place.path(&format!("out-{number}")));
            command.spawn().expect("osbc starts")
        })
        .collect();
    for mut build in builds {
        assert!(build.wait().expect("it ends").success());
    }
    for number in 0..4 {
        let path = place.path(&format!("out-{number}/variant-07/etc/hostname"));
        assert_eq!(std::fs::read_to_string(path).expect("every build exports"), "variant-07\n");
    }
}
