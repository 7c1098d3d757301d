//! What remains after failures, kills and interrupts: nothing but what was finished.

use std::time::Duration;

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
    if !has_root() || !["tar", "sfdisk", "mkfs.ext4", "qemu-img"].into_iter().all(has_tool) {
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
    let work = std::fs::read_dir(place.store().join("work")).expect("the store has its folders");
    assert_eq!(work.count(), 0, "what dead builds left is swept");
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
