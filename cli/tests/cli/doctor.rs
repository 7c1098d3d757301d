//! What `osbc doctor` says of the machine, and that it removes what dead builds left.

use std::process::Command;

use osbc_fixtures::{has_root, has_tool};
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, leftovers, osbc};

fn doctor(place: &Place, arguments: &[&str]) -> assert_cmd::assert::Assert {
    osbc().arg("doctor").args(arguments).arg("--store").arg(place.store()).assert()
}

#[test]
fn root_the_doctor_says_that_builds_can_run_and_what_is_here() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let place = Place::new();
    let report = doctor(&place, &["--json"]).success();
    let report: Value = serde_json::from_slice(&report.get_output().stdout).expect("it is JSON");
    assert_eq!(report["can_build"], true, "{report:#}");
    let state = |part: &str, name: &str| {
        let found = report[part].as_array().expect("a list").iter().find(|finding| finding["name"] == name);
        found.unwrap_or_else(|| panic!("{name} of {report:#}"))["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!((state("machine", "root"), state("machine", "namespaces")), ("ok".into(), "ok".into()));
    assert_eq!(state("tools", "tar"), "ok");
    doctor(&place, &[]).success().stdout(contains("builds can run here"));
    assert!(!place.store().exists(), "looking makes no store");
}

#[test]
fn root_the_doctor_lists_what_a_manifest_needs_here() {
    if !has_root() || !has_tool("mkswap") {
        return;
    }
    let place = Place::new();
    let manifest = |name: &str, stages: Value| {
        let manifest = json!({"version": "2", "pipelines": [{"name": "a", "stages": stages}]});
        place.file(name, manifest.to_string().as_bytes()).into_os_string().into_string().expect("a path")
    };
    let swap = manifest(
        "swap.json",
        json!([{
            "type": "org.osbuild.mkswap",
            "options": {"uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d"},
            "devices": {"device": {"type": "org.osbuild.loopback", "options": {"filename": "x"}}}
        }]),
    );
    let said = doctor(&place, &[&swap, "--json"]).success();
    let said: Value = serde_json::from_slice(&said.get_output().stdout).expect("it is JSON");
    let needs = |what: &str| {
        let name = format!("{what}, for org.osbuild.mkswap of the pipeline `a`");
        said["manifest"].as_array().expect("a list").iter().any(|need| need["name"] == *name && need["state"] == "ok")
    };
    assert!(needs("loop devices") && needs("the tool `mkswap`"), "{said:#}");
    doctor(&place, &[&swap]).success().stdout(contains("this manifest can be built here"));
    doctor(&place, &[&swap, "-e", "b"]).code(2).stderr(contains("`b`"));
    let foreign = manifest("foreign.json", json!([{"type": "org.osbuild.nothing"}]));
    doctor(&place, &[&foreign]).code(2).stderr(contains("org.osbuild.nothing"));
    doctor(&place, &["-e", "a"]).code(2);
}

#[test]
fn root_the_doctor_removes_a_loop_device_of_a_dead_build_and_no_other() {
    if !has_root() || !has_tool("losetup") {
        return;
    }
    let place = Place::new();
    let attach = |directory: &str| {
        let directory = place.path(directory);
        std::fs::create_dir_all(&directory).expect("makes");
        let file = directory.join("disk.raw");
        std::fs::write(&file, vec![0; 1 << 20]).expect("writes");
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().expect("losetup starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (dead, other) = (attach("store/work/dead"), attach("elsewhere"));
    std::fs::remove_dir_all(place.path("store/work/dead")).expect("removes");
    let name = dead.trim_start_matches("/dev/");
    doctor(&place, &[]).success().stdout(contains(format!("left over: {name} on")));
    doctor(&place, &["--clean"]).success();
    let left = leftovers(&place.path(""));
    Command::new("losetup").arg("--detach").arg(&other).status().expect("losetup starts");
    assert_eq!((left.len(), left.iter().any(|line| line.contains("elsewhere"))), (1, true), "{left:?}");
}
