//! A session of each program that drives osbuild, with the arguments as that program gives them and the modules of
//! `fixtures/libdir` where it has them looked for.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::has_root;
use serde_json::{Value, json};

use super::{
    Ran, greet, image_of_installed, installed, item, link, mkdir, names, osbuild, run, special_files, write_of_tree,
};
use crate::harness::{Place, checksum, leftovers, serve};

/// Runs osbuild as `osbuild/images` does: the manifest on standard input, the monitor on a descriptor of its own.
///
/// Gives what was printed and what the monitor wrote.
fn of_images(place: &Place, manifest: &Value) -> (Ran, String) {
    let monitor = place.path("monitor");
    let installed = installed(place, &link(place));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(r#"exec "$@" 3>"$MONITOR""#).arg("sh").arg(installed.get_program()).args(installed.get_args());
    shell.env_clear().envs(installed.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("MONITOR", &monitor);
    shell.arg("--store").arg(place.store()).arg("--output-directory").arg(place.output());
    shell.args(["--cache-max-size=21474836480", "-", "--export", "image", "--checkpoint", "tree"]);
    shell.args(["--monitor=JSONSeqMonitor", "--monitor-fd=3", "--json"]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut input = child.stdin.take().expect("is piped");
    input.write_all(manifest.to_string().as_bytes()).expect("reads it");
    drop(input);
    let ran = Ran::from(child.wait_with_output().expect("ends"));
    (ran, fs::read_to_string(monitor).expect("is text"))
}

#[test]
fn image_builder_gets_one_document_and_takes_the_image_away() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    assert_eq!(run(osbuild(&place), ["--version"]).with(0), "osbuild 190\n");
    for _ in 0..2 {
        let (ran, monitor) = of_images(&place, &image_of_installed());
        let document = ran.document(0);
        assert_eq!((&document["type"], &document["success"]), (&json!("result"), &json!(true)));
        for line in monitor.lines() {
            assert!(line.len() < 64_000);
            let entry: Value = serde_json::from_str(line.trim_start_matches('\u{1e}')).expect("JSON");
            assert!(entry["timestamp"].is_f64(), "{entry}");
        }
        assert!(monitor.contains("Finished pipeline image"), "{monitor}");
        let exported = place.output().join("image");
        fs::rename(exported.join("disk.img"), place.path("disk.img")).expect("is there");
        fs::remove_dir(&exported).expect("nothing else is there");
        assert_eq!(fs::read(place.path("disk.img")).expect("reads"), b"hello");
    }
    let within_a_file = json!({"type": "org.example.write", "options": {"texts": {"/x": "", "/x/y": ""}}});
    let failing = json!({"version": "2", "pipelines": [
        {"name": "tree", "stages": [greet(), within_a_file]},
        {"name": "image", "stages": [write_of_tree("tree", "/greeting", "disk.img")]},
    ]});
    let error = &of_images(&place, &failing).0.document(1)["error"];
    assert_eq!(error["type"], "org.osbuild.error.stage");
    let exception = &error["details"]["stage"]["error"];
    assert_eq!((&exception["type"], &exception["data"]["type"]), (&json!("exception"), &json!("FileExistsError")));
    let invalid = json!({"version": "2", "pipelines": [{"name": "image", "stages": [{"type": "no"}]}]});
    assert_eq!(of_images(&place, &invalid).0.document(2)["type"], "https://osbuild.org/validation-error");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn the_remote_executor_packs_the_sources_alone() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let path = place.manifest(&image_of_installed());
    let mut command = installed(&place, &link(&place));
    command.arg("--store").arg(place.store()).args(["--output-directory", "", "--cache-max-size=21474836480"]);
    command.args(["--json", "-"]).stdin(fs::File::open(path).expect("opens"));
    let document = Ran::from(command.output().expect("runs")).document(0);
    assert_eq!(document["sources"]["org.example.text"][0]["checksum"], item());
    assert_eq!(document["log"], json!({}), "nothing is built");
    assert_eq!(fs::read(place.store().join("sources/org.example.text").join(item())).expect("is there"), b"hello");
    assert_eq!(special_files(&place.store()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn coreos_assembler_fans_images_out_of_one_and_keeps_the_trees() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let mut pipelines = vec![
        json!({"name": "tree", "build": "", "stages": [greet()]}),
        json!({"name": "raw-image", "build": "", "stages": [write_of_tree("tree", "/greeting", "a")]}),
    ];
    let mut arguments: Vec<String> = "--out o --checkpoint deployed-tree --checkpoint tree --checkpoint raw-image \
                                      --cache-max-size 1GiB"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for number in 0..20 {
        let name = format!("platform{number}");
        let stages = [write_of_tree("raw-image", "/a", &name), greet()];
        pipelines.push(json!({"name": name, "build": "", "stages": stages}));
        arguments.push(format!("--export={name}"));
    }
    place.manifest(&json!({"version": "2", "pipelines": pipelines}));
    arguments.push("manifest.json".to_owned());
    for round in 0..2 {
        let out = run(installed(&place, &link(&place)), &arguments).with(0);
        assert_eq!(out.matches(": cached").count(), 2, "{out}");
        assert_eq!(out.contains("Pipeline tree: "), round == 0, "the second round starts from the checkpoints: {out}");
        for number in 0..20 {
            assert_eq!(names(&place.path(&format!("o/platform{number}"))), ["greeting", &format!("platform{number}")]);
        }
    }
    assert_eq!(special_files(&place.path(".osbuild")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn automotive_image_builder_reads_the_monitor_from_standard_output() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "empty"}, {"name": "image", "stages": [greet()]},
    ]}));
    let arguments =
        "--store s --output-directory o --export image --export empty --monitor JSONSeqMonitor manifest.json";
    let out = run(installed(&place, &link(&place)), arguments.split(' ')).with(0);
    let mut entries = 0;
    for line in out.lines().filter_map(|line| line.strip_prefix('\u{1e}')) {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        if let Some(inner) = entry["progress"].get("progress") {
            assert!(inner["total"].as_u64() > Some(0), "it divides by that: {entry}");
        }
        entries += 1;
    }
    assert!(entries > 5, "{out}");
}

#[test]
fn koji_reads_what_cached_pipelines_said() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&image_of_installed());
    let keep = "--cache-max-size=unlimited --checkpoint tree --checkpoint image";
    let common = format!("--out o --export image --json {keep} manifest.json");
    let of_tree = json!({"org.example.greet": {"greeted": "you"}, "org.example.write": {
        "written": {"hello": 5}, "epoch": 1_659_397_331,
    }});
    let of_image = json!({"org.example.write": {"written": {"disk.img": 5}, "epoch": null}});
    for round in 0..2 {
        let document = run(installed(&place, &link(&place)), common.split(' ')).document(0);
        assert_eq!(document["log"] == json!({}), round == 1, "the second time everything is cached");
        assert_eq!(document["metadata"], json!({"tree": of_tree, "image": of_image}));
    }
}

#[test]
fn a_copy_of_the_executable_works_anywhere() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let copy = place.path("elsewhere/osbuild");
    fs::create_dir_all(copy.parent().expect("has one")).expect("makes");
    fs::copy(assert_cmd::cargo::cargo_bin("osbc"), &copy).expect("copies");
    place.manifest(&image_of_installed());
    run(installed(&place, &copy), ["--out", "o", "--export", "image", "manifest.json"]).with(0);
    assert_eq!(names(&place.path("o/image")), ["disk.img"]);
}

/// A build that waits for a download that never ends.
fn waiting(place: &Place, mut command: Command) -> Child {
    let asked = place.path("asked");
    let note = asked.clone();
    let server = serve(Arc::new(move |_: &str, _: &mut _| {
        fs::write(&note, "").expect("writes");
        std::thread::sleep(Duration::from_secs(600));
    }));
    let never = checksum(b"never");
    place.manifest(&json!({
        "version": "2",
        "sources": {"org.osbuild.curl": {"items": {never: server}}},
        "pipelines": [{"name": "image", "stages": [mkdir("/x")]}],
    }));
    command.args(["--json", "manifest.json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    let start = Instant::now();
    while !asked.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "it asks for the item");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// A process's name, as `pgrep --exact` compares it.
fn name(child: &Child) -> String {
    fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("comm")).expect("runs").trim().to_owned()
}

#[test]
fn the_process_is_called_osbuild_and_an_interrupt_ends_it_cleanly() {
    let place = Place::new();
    let mut through_osbc = Command::new(assert_cmd::cargo::cargo_bin("osbc"));
    through_osbc.current_dir(place.path("")).env_clear().arg("osbuild");
    for command in [osbuild(&place), through_osbc] {
        fs::remove_file(place.path("asked")).ok();
        let child = waiting(&place, command);
        assert_eq!(name(&child), "osbuild");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("runs");
        let ran = Ran::from(child.wait_with_output().expect("ends"));
        assert!(ran.err.contains("Aborted"), "{ran:?}");
        assert_eq!(ran.document(130)["success"], false);
        assert_eq!(names(&place.path(".osbuild/osbc/work")), Vec::<String>::new());
    }
}

#[test]
fn owners_are_dropped_at_the_export_where_the_environment_says_so() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.manifest(&json!({"version": "2", "pipelines": [{"name": "image", "stages": [
        mkdir("/x"), {"type": "org.osbuild.chown", "options": {"items": {"/x": {"user": 7, "group": 7}}}},
    ]}]}));
    for (value, owner) in [("0", 7), ("1", nix::unistd::getuid().as_raw())] {
        let mut command = osbuild(&place);
        command.env("OSBUILD_EXPORT_FORCE_NO_PRESERVE_OWNER", value);
        run(command, ["--out", &format!("o{value}"), "--export", "image", "manifest.json"]).with(0);
        let exported = place.path(&format!("o{value}/image/x")).metadata().expect("is there");
        assert_eq!(exported.uid(), owner);
    }
}
