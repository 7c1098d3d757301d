//! `osbc store`, and what a build does about the room in its store.

use base64::Engine as _;
use osbc_fixtures::mounted::Mounted;
use osbc_fixtures::{has_root, has_tool, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, checksum, fetching, one_pipeline, osbc, respond, serve};

fn store(place: &Place, arguments: &[&str]) -> assert_cmd::Command {
    let mut command = osbc();
    command.arg("store").args(arguments).arg("--store").arg(place.store());
    command
}

fn as_json(place: &Place, arguments: &[&str]) -> Value {
    let output = store(place, arguments).arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).expect("it is JSON")
}

/// Builds two stages, `mkdir` and `hostname`.
fn built(place: &Place) -> std::path::PathBuf {
    let path = place.manifest(&one_pipeline(json!([
        {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/etc"}]}},
        {"type": "org.osbuild.hostname", "options": {"hostname": "sound"}},
    ])));
    place.build(&path).assert().success();
    path
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let place = Place::new();
    store(&place, &["info"]).assert().code(2).stderr(contains("there is no store at"));
    assert!(!place.store().exists());
}

#[test]
fn a_size_without_a_full_unit_is_refused() {
    let place = Place::new();
    store(&place, &["gc", "--store-size", "20G"]).assert().code(2).stderr(contains("GiB").and(contains("unlimited")));
}

#[test]
fn root_what_is_there_is_listed_exported_and_removed() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = built(&place);
    let list = as_json(&place, &["ls"]);
    let rows = list.as_array().expect("a list");
    assert_eq!(rows.len(), 2);
    let row = |stage: &str| rows.iter().find(|row| row["stage"] == stage).expect("it ran").clone();
    let (below, above) = (row("org.osbuild.mkdir"), row("org.osbuild.hostname"));
    assert_eq!((&above["base"], &above["lowers"]), (&below["id"], &json!([below["id"]])));
    store(&place, &["ls"]).assert().success().stdout(contains("org.osbuild.hostname").and(contains("LAYERS")));

    let info = as_json(&place, &["info"]);
    assert_eq!((&info["results"]["count"], &info["way"], &info["builds"]), (&json!(2), &json!("overlay"), &json!(0)));
    store(&place, &["info", "--store-size", "1GiB"])
        .assert()
        .success()
        .stdout(contains("overlayfs layers: its file system can hold").and(contains("limit    1.0 GiB")));

    let id = &above["id"].as_str().expect("a text")[..8];
    let out = place.path("exported");
    store(&place, &["export", id]).arg(&out).assert().success();
    assert_eq!(std::fs::read_to_string(out.join("etc/hostname")).expect("is there"), "sound\n");

    store(&place, &["rm", "0123456789"]).assert().code(3).stderr(contains("no result `0123456789`"));
    store(&place, &["rm", below["id"].as_str().expect("a text")])
        .assert()
        .success()
        .stdout(contains("removed 2 results"));
    assert_eq!(place.plan(&path)["totals"]["run"], 2);
}

#[test]
fn root_damage_is_found_and_the_next_build_repairs_it() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = built(&place);
    store(&place, &["verify"]).assert().success().stdout(contains("2 results").and(contains("sound")));
    let list = as_json(&place, &["ls"]);
    let id = list[0]["id"].as_str().expect("a text");
    let files = std::fs::read_dir(place.store().join("objects").join(id)).expect("is there").flatten();
    let tree = files.map(|entry| entry.path()).find(|path| path.is_dir()).expect("an object has a tree");
    let hostname = tree.join("etc/hostname");
    let target = if hostname.exists() { hostname } else { tree.join("etc") };
    std::fs::rename(&target, tree.join("elsewhere")).expect("moves it");

    store(&place, &["verify"]).assert().code(1).stdout(contains(id).and(contains("--repair")));
    place.build(&path).assert().success().stderr(contains("was damaged").and(contains("set aside and made again")));
    assert_eq!(std::fs::read_to_string(place.output().join("tree/etc/hostname")).expect("is there"), "sound\n");
    store(&place, &["verify"]).assert().success();
    store(&place, &["gc"]).assert().success();
    assert_eq!(as_json(&place, &["info"])["damaged"]["count"], 0);
}

#[test]
fn root_a_damaged_item_is_fetched_again() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let content = b"an item";
    let name = checksum(content);
    let server =
        serve(std::sync::Arc::new(|_: &str, stream: &mut std::net::TcpStream| respond(stream, "200 OK", b"an item")));
    let path = place.manifest(&fetching(&name, &format!("{server}/item")));
    place.build(&path).assert().success();
    let item = place.store().join("sources/org.osbuild.files").join(&name);
    std::fs::write(&item, b"an itex").expect("writes");
    let found = store(&place, &["verify", "--repair", "--json"]).assert().success().get_output().stdout.clone();
    let found: Value = serde_json::from_slice(&found).expect("JSON");
    assert_eq!(found["damages"][0]["fate"], "set aside");
    assert!(!item.exists());
    store(&place, &["gc", "--store-size", "0"]).assert().success();
    place.build(&path).assert().success();
    assert_eq!(std::fs::read(&item).expect("is there again"), content);
}

#[test]
fn root_a_build_beyond_the_limit_evicts_others_results() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    for _ in 0..2 {
        place.build(&manifest("variants.json")).args(["--store-size", "100kB"]).assert().success();
    }
    built(&place);
    let left = as_json(&place, &["gc", "--store-size", "100kB"])["left"].as_u64().expect("a number");
    assert!(left <= 100_000, "{left}");
    store(&place, &["verify"]).assert().success();
}

/// Half a megabyte that no file system keeps as a hole.
fn noise() -> String {
    (0..40_000).map(|line| format!("{:x}", line * 2_654_435_761u64)).collect::<Vec<_>>().join("\n")
}

/// A manifest with a stage that writes half a megabyte so many times.
fn filling(times: usize) -> Value {
    let noise = noise();
    let item = checksum(noise.as_bytes());
    let data = base64::engine::general_purpose::STANDARD.encode(&noise);
    let paths: Vec<Value> = (0..times)
        .map(|copy| json!({"from": format!("input://files/{item}"), "to": format!("tree:///{copy}")}))
        .collect();
    let mut manifest = one_pipeline(json!([{
        "type": "org.osbuild.copy",
        "inputs": {"files": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [item]}},
        "options": {"paths": paths}
    }]));
    manifest["sources"] = json!({"org.osbuild.inline": {"items": {item: {"encoding": "base64", "data": data}}}});
    manifest
}

#[test]
fn root_a_stage_without_room_gets_some_or_an_error_with_how_much_it_needs() {
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let disk = Mounted::new(&place.path(""), 64);
    let path = disk.0.join("store");
    let build = |times: usize| {
        let mut command = osbc();
        command.arg("build").arg(place.manifest(&filling(times))).args(["--store-size", "unlimited"]);
        command.arg("--store").arg(&path).assert()
    };
    let results = || std::fs::read_dir(path.join("objects")).expect("is there").count();
    let forget = || std::fs::remove_file(path.join("history.jsonl")).expect("there is a history");
    build(60).success();
    // Nobody knows how much it takes, so it begins, finds the disk full, and begins anew when there is room.
    forget();
    build(61).success().stdout(contains("FAILED").not());
    assert_eq!(results(), 1, "what nobody needs had to go");

    let mut gc = osbc();
    gc.args(["store", "gc", "--store-size", "0", "--store"]).arg(&path).assert().success();
    assert_eq!(results(), 0);
    std::fs::write(disk.0.join("others"), vec![1; 35 << 20]).expect("writes");
    let needs = contains("expected to need").and(contains("no space left for the stage"));
    build(61).code(3).stderr(needs.and(contains("it needs about").and(contains("as before, and has"))));
    forget();
    build(61).code(3).stderr(contains("expected to need").not().and(contains("it needs more than the")));
    assert_eq!((results(), std::fs::read_dir(path.join("work")).expect("is there").count()), (0, 0));
}

/// The stages of a disk image: its file, its partitions, its file system, and three more that write into that.
#[test]
fn root_a_disk_image_is_stored_once_however_many_stages_work_on_it() {
    if !has_root() || !["sfdisk", "mkfs.ext4"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let fixture: Value =
        serde_json::from_str(&std::fs::read_to_string(manifest("loop-disk.json")).expect("is there")).expect("JSON");
    let pipeline = |name: &str| {
        let pipelines = fixture["pipelines"].as_array().expect("a list");
        pipelines.iter().find(|pipeline| pipeline["name"] == name).expect("it has one").clone()
    };
    let (mut payload, mut disk) = (pipeline("tree"), pipeline("disk"));
    let noise = noise();
    let item = checksum(noise.as_bytes());
    payload["stages"] = json!([{
        "type": "org.osbuild.copy",
        "inputs": {"files": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [item]}},
        "options": {"paths": [{"from": format!("input://files/{item}"), "to": "tree:///payload"}]}
    }]);
    let stages = disk["stages"].as_array_mut().expect("a list");
    for name in ["one", "two", "three"] {
        let mut more = stages[3].clone();
        more["options"]["paths"] = json!([{"from": "input://root/payload", "to": format!("mount://root/{name}")}]);
        stages.push(more);
    }
    let data = base64::engine::general_purpose::STANDARD.encode(&noise);
    let path = place.manifest(&json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {item: {"encoding": "base64", "data": data}}}},
        "pipelines": [payload, disk]
    }));
    place.build(&path).assert().success();
    let list = as_json(&place, &["ls"]);
    let sizes: Vec<u64> = list.as_array().expect("a list").iter().filter_map(|row| row["bytes"].as_u64()).collect();
    let largest = sizes.iter().copied().max().expect("there are results");
    // What else there is, the payload, is less than half an image.
    assert!(largest > 2 << 20, "the image is among them: {sizes:?}");
    assert!(sizes.iter().sum::<u64>() < largest + largest / 2, "and only once: {sizes:?}");
}

#[test]
fn root_a_store_may_have_any_path() {
    use std::os::unix::ffi::OsStrExt as _;
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = built(&place);
    let store = place.path("x").with_file_name(std::ffi::OsStr::from_bytes(b"st\xff\xfe"));
    let out = store.join("out");
    let run = |arguments: &[&str]| osbc().args(arguments).arg("--store").arg(&store).assert().success();
    let path = path.to_str().expect("is UTF-8");
    let build =
        || osbc().args(["build", "--json", path]).arg("--store").arg(&store).arg("-o").arg(&out).assert().success();
    build();
    assert_eq!(std::fs::read_to_string(out.join("tree/etc/hostname")).expect("is there"), "sound\n");
    for command in [&["store", "info"][..], &["store", "ls"], &["store", "verify"], &["store", "gc"], &["log"]] {
        run(command);
        run(&[command, &["--json"]].concat());
    }
    run(&["plan", path]).stdout(contains("0 stages to run"));
    let object = std::fs::read_dir(store.join("objects")).expect("reads").flatten().next().expect("has one").path();
    std::fs::write(object.join("meta.json"), "").expect("writes");
    osbc().args(["store", "verify", "--json", "--store"]).arg(&store).assert().code(1).stdout(contains("damages"));
    build();
}

#[test]
fn root_a_body_without_end_leaves_room_for_others() {
    use std::io::Write as _;
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    std::fs::create_dir(place.path("disk")).expect("makes");
    let disk = Mounted::new(&place.path("disk"), 48);
    let store = disk.0.join("store");
    let endless = |_: &str, stream: &mut std::net::TcpStream| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        let mut sent = stream.write_all(head);
        while sent.is_ok() {
            sent = stream.write_all(&[7; 1 << 16]);
        }
    };
    let url = serve(std::sync::Arc::new(endless));
    let manifest = place.manifest(&fetching(&checksum(b"never"), &format!("{url}/file")));
    osbc().arg("build").arg(&manifest).arg("--store").arg(&store).assert().failure();
    let parts = std::fs::read_dir(store.join("downloads")).expect("reads").count();
    assert_eq!(parts, 0, "what cannot become the item is not kept");
    let other = place.manifest(&one_pipeline(json!([{"type": "org.osbuild.hostname", "options": {"hostname": "x"}}])));
    osbc().arg("build").arg(&other).arg("--store").arg(&store).assert().success();
}
