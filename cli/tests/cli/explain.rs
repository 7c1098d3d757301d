//! `osbc explain`, `osbc diff`, the reasons of `osbc plan`, and `osbc build --check`, in real builds.

use std::path::{Path, PathBuf};

use osbc_fixtures::{has_root, has_tool};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, osbc};

/// Two pipelines: `tree` with a host name and a folder, `archive` of it.
fn manifest(hostname: &str) -> Value {
    json!({"version": "2", "pipelines": [
        {"name": "tree", "stages": [
            {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/etc"}]}},
            {"type": "org.osbuild.hostname", "options": {"hostname": hostname}},
            {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/srv"}]}},
        ]},
        {"name": "archive", "stages": [{
            "type": "org.osbuild.tar",
            "inputs": {"tree": {
                "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:tree"]
            }},
            "options": {"filename": "root.tar"}
        }]},
    ]})
}

fn with_store(place: &Place, command: &str, manifests: &[&Path]) -> assert_cmd::Command {
    let mut osbc = osbc();
    osbc.arg(command).args(manifests).arg("--store").arg(place.store());
    osbc
}

fn output(mut command: assert_cmd::Command) -> Value {
    let output = command.arg("--json").assert().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("JSON")
}

#[test]
fn root_a_stage_that_runs_again_says_why() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&manifest("one"));
    let explain = |arguments: &[&str]| {
        let mut command = with_store(&place, "explain", &[&path]);
        command.args(arguments);
        command
    };
    explain(&[]).assert().success().stdout(contains("no earlier build").and(contains("4 stages to run")));
    assert!(!place.store().exists(), "explaining touches nothing");
    place.build(&path).assert().success();
    explain(&[]).assert().success().stdout(contains("which succeeded").and(contains("0 stages to run, 1 cached")));
    explain(&["archive"]).assert().success().stdout(contains("cached: in the store"));

    place.manifest(&manifest("two"));
    explain(&[]).assert().success().stdout(contains(
        "tree: org.osbuild.hostname: options changed: hostname; 2 stages follow\n  /options/hostname: \"one\" → \"two\"\n",
    ));
    explain(&["archive:tar"]).assert().success().stdout(contains("follows from tree: org.osbuild.hostname"));
    explain(&["tree:0"]).assert().success().stdout(contains("cached: in the store"));
    explain(&["tree:9"]).assert().code(2).stderr(contains("there is no stage `tree:9`"));
    let json = output(explain(&["tree:hostname"]));
    assert_eq!(
        json["stages"][0]["cause"]["cause"]["changes"][0],
        json!({
            "path": "/options/hostname", "old": "one", "new": "two"
        })
    );
    assert_eq!(json["first_causes"][0]["follow"], 2);

    with_store(&place, "plan", &[&path])
        .assert()
        .success()
        .stdout(contains("options changed: hostname").and(contains("follows from tree: org.osbuild.hostname")));
    let plan = output(with_store(&place, "plan", &[&path]));
    assert_eq!(plan["pipelines"][1]["stages"][0]["cause"]["kind"], "follows");
}

#[test]
fn root_what_is_gone_from_the_store_is_told() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&manifest("one"));
    place.build(&path).assert().success();
    let plan = place.plan(&path);
    let id = plan["pipelines"][1]["stages"][0]["id"].as_str().expect("an id").to_owned();
    std::fs::remove_dir_all(place.store().join("objects").join(&id)).expect("removes");
    with_store(&place, "explain", &[&path])
        .arg(&id[..12])
        .assert()
        .success()
        .stdout(contains("evicted from the store"));
}

#[test]
fn manifests_are_compared_by_what_they_mean() {
    let place = Place::new();
    let write = |name: &str, manifest: &Value| -> PathBuf { place.file(name, manifest.to_string().as_bytes()) };
    let one = write("one.json", &manifest("one"));
    let spaced = place.file("spaced.json", format!("{:#}", manifest("one")).as_bytes());
    with_store(&place, "diff", &[&one, &spaced]).assert().success().stdout("0 stages to build anew, 4 the same\n");

    let mut other = manifest("two");
    other["pipelines"][0]["source-epoch"] = json!(7);
    let stages = other["pipelines"][0]["stages"].as_array_mut().expect("stages");
    stages.insert(0, json!({"type": "org.osbuild.noop"}));
    stages.pop();
    let other = write("other.json", &other);
    let expected = "  tree  (3 stages anew)\n      /source-epoch: added 7\n  + org.osbuild.noop\n  ~ org.osbuild.hostname\n      \
                    /options/hostname: \"one\" → \"two\"\n  - org.osbuild.mkdir\n  archive  (1 stage anew)\n\n4 stages to build \
                    anew, 0 the same\n";
    with_store(&place, "diff", &[&one, &other]).assert().code(1).stdout(expected);
    let json = output(with_store(&place, "diff", &[&one, &other]));
    assert_eq!((&json["equal"], &json["totals"]["rebuilt"]), (&json!(false), &json!(4)));
    assert_eq!(json["pipelines"][1]["change"], "follows");
    with_store(&place, "diff", &[&one, Path::new("nowhere.json")]).assert().code(2);
}

#[test]
fn root_a_build_that_repeats_itself_is_told_from_one_that_does_not() {
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let check = |manifest: &Value| {
        let mut command = with_store(&place, "build", &[&place.manifest(manifest)]);
        command.arg("--check");
        command
    };
    let mut same = manifest("one");
    same["pipelines"][0]["source-epoch"] = json!(1);
    check(&same).assert().success().stdout("1 pipeline built twice: all equal\n");

    let image = json!({"version": "2", "pipelines": [{"name": "disk", "stages": [
        {"type": "org.osbuild.truncate", "options": {"filename": "disk.img", "size": "8388608"}},
        {"type": "org.osbuild.mkfs.ext4",
         "options": {"uuid": "35178ac7-1ee7-4dcf-8a3c-b8cb4c45ac77"},
         "devices": {"device": {"type": "org.osbuild.loopback", "options": {"filename": "disk.img"}}}},
    ]}]});
    check(&image)
        .assert()
        .code(1)
        .stdout(contains("/disk.img  content from byte").and(contains("it begins with disk: org.osbuild.mkfs.ext4")));
    let json = output(check(&image));
    assert_eq!(json["different"][0]["entries"][0]["differences"][0]["what"], "content");
    let left: Vec<_> =
        std::fs::read_dir(place.path("")).expect("reads").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["manifest.json"], "both builds are gone");
}

/// A stage that writes files, or down what it notices of its surroundings.
const PECULIAR: &str = r#"#!/usr/bin/python3
import json, os, socket, time

with open("/run/osbuild/api/arguments") as file:
    arguments = json.load(file)
tree, of = arguments["tree"], arguments["options"]["of"]
if of == "files":
    os.mkdir(f"{tree}/d")
    for number in range(8):
        open(f"{tree}/d/{number}", "w").close()
else:
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    said = {
        "nothing": lambda: "always the same",
        "time": lambda: int(time.time()),
        "host": socket.gethostname,
        "place": lambda: [mount[3] for mount in mounts if mount[4] == tree],
        "order": lambda: os.listdir(f"{tree}/d"),
        "order of an input": lambda: os.listdir(arguments["inputs"]["tree"]["path"] + "/d"),
    }
    with open(f"{tree}/said", "w") as file:
        print(said[of](), file=file)
"#;

#[test]
fn root_each_of_the_surroundings_of_a_check_shows() {
    if !has_root() || !has_tool("python3") {
        return;
    }
    let place = Place::new();
    let stages = place.path("libdir/stages");
    std::fs::create_dir_all(&stages).expect("makes");
    let module = place.file("libdir/stages/org.example.peculiar", PECULIAR.as_bytes());
    std::fs::set_permissions(module, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("sets");
    let any = json!({"type": "object", "additionalProperties": true});
    let meta = json!({"summary": "Notices", "description": [""], "schema_2": {"options": any, "inputs": any}});
    place.file("libdir/stages/org.example.peculiar.meta.json", meta.to_string().as_bytes());
    let peculiar = |of: &str| json!({"type": "org.example.peculiar", "options": {"of": of}});
    let mut reading = peculiar("order of an input");
    reading["inputs"] = json!({"tree": {
        "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:nothing"]
    }});
    let pipeline = |name: &str, stages: Value| json!({"name": name, "source-epoch": 1, "stages": stages});
    let manifest = place.manifest(&json!({"version": "2", "pipelines": [
        pipeline("nothing", json!([peculiar("files"), peculiar("nothing")])),
        pipeline("host", json!([peculiar("host")])),
        pipeline("time", json!([peculiar("time")])),
        pipeline("place", json!([peculiar("place")])),
        pipeline("order", json!([peculiar("files"), peculiar("order")])),
        pipeline("input", json!([reading])),
    ]}));
    let mut check = with_store(&place, "build", &[&manifest]);
    check.arg("--check").arg("--libdir").arg(place.path("libdir"));
    // Whatever the host is called, a stage's own name is always the same.
    let exports = ["nothing", "host", "time", "place", "order", "input"];
    let json = output(exports.iter().fold(check, |mut check, name| {
        check.args(["-e", name]);
        check
    }));
    let different = json["different"].as_array().expect("a list");
    let names: Vec<&str> = different.iter().map(|pipeline| pipeline["name"].as_str().expect("a name")).collect();
    assert_eq!(names, exports[2..], "{json:#}");
    assert!(different.iter().all(|pipeline| pipeline["entries"][0]["path"] == "/said"), "{json:#}");
}
