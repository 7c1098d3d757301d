//! `osbc explain`, `osbc diff`, the reasons of `osbc plan`, and `osbc build --check`, in real builds.

use std::path::{Path, PathBuf};

use osbc_fixtures::{has_root, has_tool};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, osbc};

/// Two pipelines: `tree` with a host name and a directory, `archive` of it.
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
fn root_what_is_gone_from_the_store_is_reported() {
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
    with_store(&place, "diff", &[&one, &spaced]).assert().success().stdout("0 stages to rebuild, 4 unchanged\n");

    let mut other = manifest("two");
    other["pipelines"][0]["source-epoch"] = json!(7);
    let stages = other["pipelines"][0]["stages"].as_array_mut().expect("stages");
    stages.insert(0, json!({"type": "org.osbuild.noop"}));
    stages.pop();
    let other = write("other.json", &other);
    let expected = "  tree  (3 stages to rebuild)\n      /source-epoch: added 7\n  + org.osbuild.noop\n  ~ org.osbuild.hostname\n      \
                    /options/hostname: \"one\" → \"two\"\n  - org.osbuild.mkdir\n  archive  (1 stage to rebuild)\n\n4 stages to \
                    rebuild, 0 unchanged\n";
    with_store(&place, "diff", &[&one, &other]).assert().code(1).stdout(expected);
    let json = output(with_store(&place, "diff", &[&one, &other]));
    assert_eq!((&json["equal"], &json["totals"]["rebuilt"]), (&json!(false), &json!(4)));
    assert_eq!(json["pipelines"][1]["change"], "follows");
    with_store(&place, "diff", &[&one, Path::new("nowhere.json")]).assert().code(2);
}

#[test]
fn root_a_reproducible_build_is_distinguished_from_one_that_is_not() {
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
    check(&image).assert().code(1).stdout(
        contains("/disk.img  content from byte")
            .and(contains("the first stage that differs: disk: org.osbuild.mkfs.ext4")),
    );
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

/// The pointers to all numbers of a JSON value.
fn numbers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| numbers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(entries) => entries.iter().for_each(|(key, item)| numbers(item, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

/// A JSON text with each of its numbers changed to others, one at a time.
fn damaged(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let mut found = Vec::new();
    numbers(&value, "", &mut found);
    let changed = |at: &String, number: u64| {
        let mut value = value.clone();
        *value.pointer_mut(at).expect("it was found there") = json!(number);
        value.to_string()
    };
    found.iter().flat_map(|at| [0, 2, u64::MAX].map(|number| changed(at, number))).collect()
}

#[test]
fn root_a_record_with_a_changed_number_is_refused_by_name_or_does_no_harm() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let stage = |from: &str| {
        json!({
            "type": "org.osbuild.noop",
            "inputs": {"tree": {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [from]}}
        })
    };
    let noop = json!({"type": "org.osbuild.noop"});
    let with = |last: &Value| {
        json!({"version": "2", "pipelines": [
            {"name": "one", "stages": [noop]},
            {"name": "two", "stages": [noop, stage("name:one")]},
            {"name": "three", "stages": [stage("name:two"), last]},
        ]})
    };
    let path = place.manifest(&with(&noop));
    place.build(&path).assert().success();
    place.manifest(&with(&json!({"type": "org.osbuild.noop", "options": {"changed": true}})));
    let record =
        std::fs::read_dir(place.store().join("logs")).expect("reads").next().expect("a record").expect("reads");
    let (page, store) = (place.path("page.html"), place.store());
    let commands: [&[&std::ffi::OsStr]; 2] = [
        &["explain".as_ref(), path.as_ref(), "--store".as_ref(), store.as_ref()],
        &["report".as_ref(), "--store".as_ref(), store.as_ref(), "-o".as_ref(), page.as_ref()],
    ];
    let (mut refused, mut read) = (0, 0);
    let mut try_with = |file: &Path, text: &str| {
        std::fs::write(file, text).expect("writes");
        for arguments in commands {
            let output = osbc().args(arguments).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            let names = said.contains(&*record.path().to_string_lossy());
            match (output.status.code(), said.contains("cannot read the record in ")) {
                (Some(0 | 3), true) if names => refused += 1,
                (Some(0), false) => read += 1,
                other => panic!("{arguments:?}: {other:?}: {said}\n{text}"),
            }
        }
    };
    let graph = record.path().join("graph.json");
    let whole = std::fs::read_to_string(&graph).expect("reads");
    damaged(&whole).iter().for_each(|text| try_with(&graph, text));
    std::fs::write(&graph, &whole).expect("writes");
    let events = record.path().join("events.jsonl");
    let whole = std::fs::read_to_string(&events).expect("reads");
    let lines: Vec<&str> = whole.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for changed in damaged(line) {
            let mut lines = lines.clone();
            lines[index] = &changed;
            try_with(&events, &(lines.join("\n") + "\n"));
        }
    }
    assert!(refused > 50 && read > 50, "{refused} refused, {read} read");
}
