//! How osbc ends when it is killed, interrupted, or short of threads or of room for its output: nothing that it started
//! or made stays, and it says what was in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::{TESTER, has_root, has_tester, has_tool, libdir, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, checksum, fetching, one_pipeline, osbc, serve};
use crate::hostile::{hostile, runs};
use crate::rootless::place_of_tester;

const TIMEOUT: Duration = Duration::from_secs(60);
const ENVIRONMENT: i32 = 3;
const INTERRUPTED: i32 = 130;

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "not so: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
}

fn kill_at_once(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("osbc"));
    command.args(words).arg("--store").arg(place.store());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The names in a directory that begin with these characters.
fn names(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("is there").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

/// A manifest with one stage that never ends.
fn endless() -> Value {
    one_pipeline(json!([{"type": "org.example.hostile", "options": {"how": "silent"}}]))
}

#[test]
fn root_a_daemon_of_a_source_ends_with_a_build_that_is_killed() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
    let item = checksum(b"never");
    let manifest = place.manifest(&json!({
        "version": "2",
        "sources": {"org.example.hostile": {"items": {&item: {}}, "options": {"how": "daemon-silent"}}},
        "pipelines": [{"name": "tree", "stages": [{"type": "org.example.write", "inputs": {"files": {
            "type": "org.example.files", "origin": "org.osbuild.source", "references": {&item: {}}
        }}}]}],
    }));
    for means in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut command = command(&place, &["build"]);
        let mut child = command.arg(&manifest).arg("--libdir").arg(&libdir).spawn().expect("starts");
        let there = place.path("libdir/there");
        wait_until("the daemon runs", || there.exists());
        send(&child, means);
        child.wait().expect("ends");
        wait_until("nothing of the source runs", || !runs(&libdir));
        fs::remove_file(there).expect("removes");
    }
}

/// The loop devices on files of this name, wherever those are or were.
fn loops(name: &str) -> usize {
    let entries = fs::read_dir("/sys/block").expect("/sys is mounted").flatten();
    let files = entries.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    files.filter(|file| file.contains(name)).count()
}

#[test]
fn root_a_loop_device_of_a_module_that_lets_it_stay_goes_with_a_build_that_is_killed() {
    if !has_root() || !has_tool("losetup") {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
    let module = libdir.join("devices/org.example.loop");
    let text =
        fs::read_to_string(&module).expect("is there").replace("LO_FLAGS_AUTOCLEAR = 4", "LO_FLAGS_AUTOCLEAR = 0");
    let detach = "        subprocess.run([\"losetup\", \"--detach\", device.name], check=True)\n";
    let text = text.replace("import traceback\n", "import subprocess\nimport traceback\n");
    let stays = text.replace("        os.fsync(device)\n", &format!("        os.fsync(device)\n{detach}"));
    assert!(stays.contains(detach) && stays.contains("AUTOCLEAR = 0"), "the module is another one now");
    fs::write(&module, stays).expect("writes");
    let disk = format!("disk-{}.img", std::process::id());
    let with = |how: &str| {
        one_pipeline(json!([
            {"type": "org.osbuild.truncate", "options": {"filename": &disk, "size": "1048576"}},
            {"type": "org.example.hostile", "options": {"how": how}, "devices": {
                "disk": {"type": "org.example.loop", "options": {"filename": &disk}}
            }}
        ]))
    };
    for _ in 0..4 {
        let mut command = command(&place, &["build"]);
        let child = command.arg(place.manifest(&with("silent"))).arg("--libdir").arg(&libdir).spawn().expect("starts");
        wait_until("the device is there", || loops(&disk) > 0);
        kill_at_once(child);
        wait_until("no loop device is left", || loops(&disk) == 0);
    }
    // Where nothing is killed the module takes it down itself.
    place.build(&place.manifest(&with("nothing"))).arg("--libdir").arg(&libdir).assert().success();
    assert_eq!(loops(&disk), 0);
}

#[test]
fn root_what_a_killed_check_leaves_is_known_to_the_doctor_and_swept_by_the_next_build() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
    let manifest = place.manifest(&endless());
    let check = || {
        let mut command = command(&place, &["build", "--check"]);
        let child = command.arg(&manifest).arg("--libdir").arg(&libdir).spawn().expect("starts");
        wait_until("the stage runs", || !names(&place.path(""), ".osbc-check-").is_empty() && runs_stage(&place));
        let left = names(&place.path(""), ".osbc-check-");
        let doctor = osbc().arg("doctor").arg("--store").arg(place.store()).assert();
        doctor.stdout(contains(".osbc-check-").not());
        kill_at_once(child);
        assert_eq!(names(&place.path(""), ".osbc-check-"), left);
        left[0].clone()
    };
    let left = check();
    let doctor = |arguments: &[&str]| osbc().arg("doctor").args(arguments).arg("--store").arg(place.store()).assert();
    doctor(&[]).stdout(contains(format!("left over: the directory {}", left.display())));
    doctor(&["--clean"]);
    assert!(!left.exists());
    let left = check();
    let other = one_pipeline(json!([{"type": "org.osbuild.noop"}]));
    place.build(&place.manifest(&other)).assert().success();
    assert!(!left.exists());
}

/// Whether the hostile stage runs, for a build in this place.
fn runs_stage(place: &Place) -> bool {
    let (stage, path) = (b"/run/osbuild/bin/org.example.hostile", place.path("").display().to_string());
    let mut processes = fs::read_dir("/proc").expect("is mounted").flatten();
    processes.any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        arguments.windows(stage.len()).any(|part| part == stage) && mounts.contains(&path)
    })
}

#[test]
fn a_resolve_that_is_ended_leaves_no_directory_and_one_that_is_killed_leaves_it_to_the_next() {
    let place = Place::new();
    let temporary = place.path("tmp");
    fs::create_dir_all(place.path("bin")).expect("makes");
    fs::create_dir(&temporary).expect("makes");
    for (name, text) in [
        ("dpkg", "#!/bin/sh\necho amd64\n".to_owned()),
        ("apt-get", format!("#!/bin/sh\ntrap '' TERM INT\ntouch {}\nsleep 1000\n", place.path("waits").display())),
    ] {
        let path = place.file(&format!("bin/{name}"), text.as_bytes());
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let spec = place.file(
        "spec.toml",
        b"name = \"demo\"\nrelease = \"demo\"\nkernel = \"linux-demo\"\nformats = [\"tar\"]\nbuild = \"host\"\n",
    );
    let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
    let start = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("osbc"));
        command
            .args(["resolve", "debian"])
            .arg(&spec)
            .arg("-o")
            .arg(place.path("out.json"))
            .env("PATH", &path)
            .env("TMPDIR", &temporary);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        wait_until("apt waits", || place.path("waits").exists());
        fs::remove_file(place.path("waits")).expect("removes");
        child
    };
    let is_apt_there = || runs(&place.path("bin/apt-get"));
    let killed = start();
    kill_at_once(killed);
    wait_until("apt has ended", || !is_apt_there());
    let left = names(&temporary, ".osbc-command-");
    assert_eq!(left.len(), 1);
    let doctor = osbc().arg("doctor").arg("--store").arg(place.store()).env("TMPDIR", &temporary).assert();
    doctor.stdout(contains(format!("left over: the directory {}", left[0].display())));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut ended = start();
        assert!(!left[0].exists(), "the next one removes it");
        send(&ended, signal);
        assert_eq!(ended.wait().expect("ends").code(), Some(INTERRUPTED));
        assert!(!is_apt_there());
        assert_eq!(names(&temporary, ""), Vec::<PathBuf>::new());
    }
}

#[test]
fn root_after_an_interrupt_nothing_is_called_failed() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let libdir = hostile(&place);
    // Neither the server nor the stage ever comes to its end.
    let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let url = serve(Arc::new(move |_, _| {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(TIMEOUT * 2);
    }));
    let mut document = fetching(&checksum(b"never"), &format!("{url}/file"));
    document["pipelines"].as_array_mut().expect("a list").push(json!({
        "name": "endless", "stages": [{"type": "org.example.hostile", "options": {"how": "silent"}}]
    }));
    let manifest = place.manifest(&document);
    for json in [false, true] {
        asked.store(false, std::sync::atomic::Ordering::SeqCst);
        let mut command = command(&place, &["build", "-e", "tree", "-e", "endless"]);
        if json {
            command.arg("--json");
        }
        let child = command.arg(&manifest).arg("--libdir").arg(&libdir).spawn().expect("starts");
        wait_until("both wait", || asked.load(std::sync::atomic::Ordering::SeqCst) && runs_stage(&place));
        send(&child, Signal::SIGINT);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(INTERRUPTED));
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!stderr.to_lowercase().contains("failed"), "{stderr}");
        if json {
            let document: Value = serde_json::from_str(&stdout).expect("JSON");
            assert_eq!(document["failures"], json!([]));
        } else {
            assert!(!stdout.to_lowercase().contains("failed"), "{stdout}");
        }
    }
    let log = osbc().arg("log").arg("--store").arg(place.store()).assert().success();
    let log = String::from_utf8_lossy(&log.get_output().stdout).into_owned();
    assert!(!log.to_lowercase().contains("failed"), "{log}");
}

#[test]
fn root_full_outputs_are_an_error_and_no_panic() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let (good, bad) = (manifest("diamond.json"), place.file("bad.json", b"{\"version\": \"2\", \"pipelines\": 1}"));
    let store = place.store();
    let link = place.path("osbuild");
    std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin("osbc"), &link).expect("links");
    let program = assert_cmd::cargo::cargo_bin("osbc");
    for (program, words, manifest, codes) in [
        (&program, &["build", "-e", "top"][..], &good, &[ENVIRONMENT, 2][..]),
        (&program, &["build"], &good, &[ENVIRONMENT]),
        (&program, &["build", "--json"], &good, &[ENVIRONMENT]),
        (&program, &["build", "--check"], &good, &[ENVIRONMENT]),
        (&program, &["plan"], &good, &[ENVIRONMENT]),
        (&program, &["plan", "--json"], &good, &[ENVIRONMENT]),
        (&program, &["graph"], &good, &[ENVIRONMENT]),
        (&program, &["inspect"], &good, &[ENVIRONMENT]),
        (&program, &["build"], &bad, &[2]),
        (&program, &["plan", "--json"], &bad, &[2]),
        (&link, &["--inspect"], &good, &[1, ENVIRONMENT]),
        (&link, &["--export", "nothing", "--output-directory", "out"], &good, &[1]),
        (&link, &["--json", "--checkpoint", "nothing"], &bad, &[2, 1]),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >/dev/full 2>/dev/full"]).arg(program).args(words);
        if !matches!(words[0], "graph" | "inspect") {
            command.arg("--store").arg(&store);
        }
        let status = command.arg(manifest).current_dir(place.path("")).status().expect("sh starts");
        assert!(status.code().is_some_and(|code| codes.contains(&code)), "{words:?}: {status}");
    }
}

#[test]
fn tester_with_few_tasks_every_command_ends_and_says_why_it_cannot_go_on() {
    if !has_tester() || !has_tool("prlimit") {
        return;
    }
    let place = place_of_tester();
    let source = manifest("variants.json");
    let run = |limit: u32, words: &[&str]| {
        let mut command = assert_cmd::Command::new("setpriv");
        command.args(["--reuid", TESTER, "--regid", TESTER, "--clear-groups", "--"]);
        command.arg("prlimit").arg(format!("--nproc={limit}")).arg(place.path("osbc")).args(words).arg(&source);
        command.arg("--store").arg(place.path(&format!("store-{limit}"))).arg("--libdir").arg(libdir());
        command.env("HOME", place.path("home")).timeout(TIMEOUT).output().expect("it ends in time")
    };
    for words in [&["plan"][..], &["build"]] {
        let mut refused = 0;
        for limit in [1, 2, 3, 4, 5, 7, 9, 11, 13, 16, 20] {
            let output = run(limit, words);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("panicked"), "{words:?}, {limit} tasks: {stderr}");
            match output.status.code() {
                Some(0) => {}
                Some(ENVIRONMENT) => {
                    refused += 1;
                    assert!(
                        stderr.contains("limit") || stderr.contains("os error 11"),
                        "{words:?}, {limit} tasks: {stderr}"
                    );
                }
                code => panic!("{words:?}, {limit} tasks: {code:?}: {stderr}"),
            }
        }
        assert!(refused > 0, "{words:?}: the limit is none");
    }
}
