//! The store that osbc shares with osbuild.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use osbc_fixtures::has_root;
use serde_json::{Value, json};

use super::{copy_item, copy_tree, image_of_tree, mkdir, names, osbuild, run, sources, special_files};
use crate::harness::{Place, leftovers};

/// osbuild's id of a stage.
fn id(place: &Place, pipeline: usize, stage: usize) -> String {
    let ids = run(osbuild(place), ["--inspect", "manifest.json"]).document(0);
    ids["pipelines"][pipeline]["stages"][stage]["id"].as_str().expect("an id").to_owned()
}

/// A store with one object, file by file as osbuild left it.
fn recorded(store: &Path, id: &str) {
    let object = store.join("objects").join(id);
    for directory in ["stage", "tmp", "sources"] {
        fs::create_dir_all(store.join(directory)).expect("makes");
    }
    fs::create_dir_all(object.join("data/meta")).expect("makes");
    fs::create_dir_all(object.join("data/tree/x")).expect("makes");
    for (path, content) in [
        (store.join("CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n"),
        (store.join("cache.info"), r#"{"version": 1, "maximum-size": 1073741824}"#),
        (store.join("cache.lock"), ""),
        (store.join("cache.size"), "24576"),
        (object.join("object.info"), r#"{"creation-boot-id": "214eabf2134e4304839f2d158bdafd47", "size": 24576}"#),
        (object.join("object.lock"), ""),
        (object.join("data/meta/info.json"), "{\n  \"created\": 1795567922\n}"),
        (object.join("data/tree/x/hello"), "made by osbuild"),
    ] {
        fs::write(path, content).expect("writes");
    }
}

#[test]
fn a_checkpoint_of_osbuilds_is_built_upon() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_tree());
    recorded(&place.path(".osbuild"), &id(&place, 0, 1));
    let out = run(osbuild(&place), ["--out", "o", "--export", "image", "manifest.json"]).with(0);
    assert!(!out.contains("Pipeline tree"), "{out}");
    assert_eq!(fs::read_to_string(place.path("o/image/disk.img")).expect("reads"), "made by osbuild");
    run(osbuild(&place), ["--out", "o", "--export", "tree", "-q", "manifest.json"]).with(0);
    assert_eq!(fs::read_to_string(place.path("o/tree/x/hello")).expect("reads"), "made by osbuild");
}

#[test]
fn a_pipeline_goes_on_from_a_checkpoint_in_its_middle() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(
        &json!({"version": "2", "pipelines": [{"name": "tree", "stages": [mkdir("/x"), mkdir("/y"), mkdir("/x/z")]}]}),
    );
    recorded(&place.path(".osbuild"), &id(&place, 0, 1));
    let keep = "--cache-max-size 1GB --checkpoint tree";
    let arguments = format!("--out o --export tree {keep} manifest.json");
    for auto_cache in ["0", "1", "1"] {
        let mut command = osbuild(&place);
        command.env("OSBC_AUTO_CACHE", auto_cache);
        run(command, arguments.split(' ')).with(0);
        assert_eq!(names(&place.path("o/tree")), ["x"], "/y is no part of what osbuild recorded");
        assert_eq!(names(&place.path("o/tree/x")), ["hello", "z"]);
    }
    let kept = place.path(".osbuild/objects").join(id(&place, 0, 2)).join("data");
    assert_eq!(names(&kept.join("tree/x")), ["hello", "z"]);
    assert_eq!(names(&kept), ["meta", "tree"]);
}

#[test]
fn without_checkpoints_nothing_is_kept_unless_the_environment_says_so() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_tree());
    let arguments = ["--out", "o", "--export", "image", "manifest.json"];
    for _ in 0..2 {
        assert!(run(osbuild(&place), arguments).with(0).contains("Pipeline tree"), "it is built again");
        assert_eq!(names(&place.path(".osbuild/objects")), Vec::<String>::new());
        assert_eq!(names(&place.path(".osbuild/osbc/objects")), Vec::<String>::new());
        assert_eq!(special_files(&place.path(".osbuild")), Vec::<PathBuf>::new());
    }
    for first in [true, false] {
        let mut command = osbuild(&place);
        command.env("OSBC_AUTO_CACHE", "1");
        assert_eq!(run(command, arguments).with(0).contains("Pipeline tree"), first);
    }
    assert_eq!(names(&place.path(".osbuild/objects")), Vec::<String>::new());
    let mut command = osbuild(&place);
    command.env("OSBC_AUTO_CACHE", "1");
    let keep = ["--cache-max-size=1GB", "--checkpoint", "image"];
    assert!(run(command, arguments.into_iter().chain(keep)).with(0).ends_with(": cached\n"), "also of what was there");
    assert_eq!(names(&place.path(".osbuild/objects")), [id(&place, 1, 0)]);
}

/// How many manifests there are whose trees are unlike, and of how many trees in all.
const MANIFESTS: usize = 12;
const TREES: usize = MANIFESTS + 3;
/// Room for one tree or two.
const SMALL: u64 = 200_000;
/// Room for a third of the trees: for what four builds read at a time, and for what osbuild evicts beyond need, twice
/// what it is about to store.
///
/// In less room builds of osbuild's alone fail each other too (`Unknown pipeline`): what osbuild found when it began,
/// it does not lock until a stage asks for it.
const SHARED: u64 = 800_000;

/// Manifests whose trees are like and unlike each other, with many small files in each, which take a block a file.
fn manifest_of(number: usize) -> Value {
    let mut fill = copy_item("/0");
    let paths = &mut fill["options"]["paths"];
    let from = paths[0]["from"].clone();
    *paths = (0..20 + number).map(|copy| json!({"from": from, "to": format!("tree:///{copy}")})).collect();
    json!({"version": "2", "sources": sources(), "pipelines": [
        {"name": "base", "stages": [mkdir("/base"), mkdir(&format!("/base/{}", number % 3))]},
        {"name": "tree", "stages": [mkdir("/x"), mkdir(&format!("/x/{number}")), fill]},
        {"name": "image", "stages": [copy_tree("base", "/base", "/"), copy_tree("tree", "/x", "/")]},
    ]})
}

/// Starts a build of the manifest of that number, with checkpoints, in a store of that size.
fn start(mut command: Command, place: &Place, name: &str, number: usize, limit: u64) -> Child {
    let manifest = place.file(&format!("{name}.json"), manifest_of(number).to_string().as_bytes());
    let limit = format!("--cache-max-size={limit}");
    command.arg("--store").arg(place.store()).args(["--output-directory"]).arg(place.path(name));
    command.args(["--json", "--export", "image", "--checkpoint", "base", "--checkpoint", "tree", &limit]).arg(manifest);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Ends a build and looks at what it made; gives its document.
fn check(place: &Place, name: &str, number: usize, child: Child) -> Value {
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{name}: {stderr}\n{}", String::from_utf8_lossy(&output.stdout));
    let image = place.path(name).join("image");
    assert_eq!(names(&image.join("base")), [(number % 3).to_string()], "{name}");
    assert_eq!(names(&image.join("x")), [number.to_string()], "{name}");
    fs::remove_dir_all(place.path(name)).expect("is there");
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// What every object of the store is, and that the store's own count is right.
fn look_at(store: &Path, limit: u64) {
    let mut sum = 0;
    for name in names(&store.join("objects")) {
        let object = store.join("objects").join(&name);
        assert!(!name.starts_with("uuid-"), "{name} is unfinished");
        assert_eq!(names(&object), ["data", "object.info", "object.lock"]);
        assert_eq!(names(&object.join("data")), ["meta", "tree"]);
        let info: Value = serde_json::from_slice(&fs::read(object.join("object.info")).expect("reads")).expect("JSON");
        sum += info["size"].as_u64().expect("a size");
    }
    let size: u64 = fs::read_to_string(store.join("cache.size")).expect("reads").parse().expect("a number");
    // An object is removed with its lock and description, which are not counted when it is made.
    assert!(size <= sum && size <= limit, "{size} of {sum}");
}

/// That there was more to keep than there is room for.
fn some_were_evicted(store: &Path) {
    let objects = names(&store.join("objects")).len();
    assert!((1..TREES).contains(&objects), "there were {TREES} trees to keep, and room for fewer: {objects}");
}

#[test]
fn two_builds_at_a_time_share_a_store_that_is_too_small_for_both() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    for round in 0..MANIFESTS - 1 {
        let builds = [("a", round), ("b", round + 1)];
        let children = builds.map(|(name, number)| start(osbuild(&place), &place, name, number, SMALL));
        for ((name, number), child) in builds.into_iter().zip(children) {
            check(&place, name, number, child);
        }
        look_at(&place.store(), SMALL);
    }
    some_were_evicted(&place.store());
    assert_eq!(special_files(&place.store().join("osbc")), Vec::<PathBuf>::new());
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

/// What osbuild runs with: another Python on `PATH` may lack what the system's has.
const PYTHON: &str = "/usr/bin/python3";

/// osbuild itself, out of the checkout that `OSBUILD` names.
fn real(place: &Place) -> Command {
    let checkout = std::env::var("OSBUILD").expect("OSBUILD names a checkout of osbuild");
    let mut command = Command::new(PYTHON);
    command.args(["-m", "osbuild", "--libdir", &checkout]).env("PYTHONPATH", &checkout);
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(place.path(""));
    command
}

#[test]
#[ignore = "takes minutes, and a checkout of osbuild in OSBUILD"]
fn osbuild_and_osbc_alternate_on_one_store() {
    let place = Place::new();
    let mut found = [0, 0];
    for round in 0..25 {
        let numbers = [("a", round, 0), ("b", round / 2, 0), ("c", round, 1), ("d", round / 2, 1)];
        let numbers = numbers.map(|(name, number, whose)| (name, number % MANIFESTS, whose));
        let children = numbers.map(|(name, number, whose)| {
            let command = if whose == 0 { real(&place) } else { osbuild(&place) };
            start(command, &place, name, number, SHARED)
        });
        for ((name, number, whose), child) in numbers.into_iter().zip(children) {
            let document = check(&place, name, number, child);
            found[whose] += usize::from(document["log"].get("base").is_none());
        }
        look_at(&place.store(), SHARED);
    }
    assert!(found.iter().all(|found| *found > 0), "each finds the other's checkpoints: {found:?}");
    some_were_evicted(&place.store());
}
