//! Every exit code that `docs/exit-codes.md` lists for a command is one that the command ends with.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use osbc_fixtures::has_root;
use serde_json::{Value, json};

use crate::endings::{send, wait_until};
use crate::harness::{Place, one_pipeline};

/// What the document lists: commands and codes.
fn listed() -> BTreeSet<(String, i32)> {
    let text = include_str!("../../../docs/exit-codes.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?))
    });
    rows.flat_map(|(command, codes)| {
        codes.split(", ").map(move |code| (command.clone(), code.parse().expect("a number"))).collect::<Vec<_>>()
    })
    .collect()
}

/// Commands in a place of their own, with what they ended with.
struct Provoked {
    place: Place,
    seen: BTreeSet<(String, i32)>,
}

impl Provoked {
    fn path(&self, name: &str) -> String {
        self.place.path(name).to_str().expect("is UTF-8").to_owned()
    }

    /// Writes a manifest of one pipeline under a name of its own.
    fn manifest(&self, name: &str, manifest: &Value) -> String {
        self.place.file(name, manifest.to_string().as_bytes()).to_str().expect("is UTF-8").to_owned()
    }

    /// Writes a program.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.place.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("makes");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changes");
        path
    }

    fn command(words: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("osbc"));
        command.args(words).stdin(Stdio::null());
        command
    }

    fn note(&mut self, name: &str, code: i32, command: &mut Command) {
        let output = command.stderr(Stdio::piped()).spawn().and_then(std::process::Child::wait_with_output);
        let output = output.expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        self.seen.insert((name.to_owned(), code));
    }

    /// Runs a command whose first words are its name.
    fn ends(&mut self, name: &str, code: i32, words: &[&str]) {
        let all: Vec<&str> = name.split(' ').chain(words.iter().copied()).collect();
        self.note(name, code, Self::command(&all).stdout(Stdio::null()));
    }

    /// Interrupts a command when a program with this argument runs.
    fn is_interrupted(&mut self, name: &str, argument: &str, command: &mut Command) {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        wait_until("it is at work", || runs_with(argument));
        send(&child, Signal::SIGINT);
        let status = { child }.wait().expect("ends");
        assert_eq!(status.code(), Some(130), "{command:?}");
        self.seen.insert((name.to_owned(), 130));
    }
}

/// Whether a process has this as one of its arguments.
fn runs_with(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("is mounted").flatten();
    let arguments = |process: fs::DirEntry| fs::read(process.path().join("cmdline")).unwrap_or_default();
    processes.map(arguments).any(|all| all.split(|byte| *byte == 0).any(|one| one == argument.as_bytes()))
}

/// On-disk modules: a stage that never ends, with `seconds` as its program's argument.
fn endless(provoked: &Provoked, seconds: &str) -> String {
    let meta = json!({"summary": "-", "description": [], "schema_2": {"options": {}}});
    provoked.program("libdir/stages/org.example.endless", &format!("exec sleep {seconds}"));
    fs::write(provoked.place.path("libdir/stages/org.example.endless.meta.json"), meta.to_string()).expect("writes");
    provoked.path("libdir")
}

#[test]
fn root_every_listed_exit_code_is_what_a_command_ends_with() {
    if !has_root() {
        return;
    }
    let mut all = Provoked { place: Place::new(), seen: BTreeSet::new() };
    let noop = json!({"type": "org.osbuild.noop"});
    let good = all.manifest("good.json", &one_pipeline(json!([noop])));
    let other = all.manifest("other.json", &one_pipeline(json!([noop, noop])));
    let bad = all.manifest("bad.json", &one_pipeline(json!([{"type": "org.osbuild.hostname", "options": {}}])));
    let mkdir = json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/not/there"}]}});
    let failing = all.manifest("failing.json", &one_pipeline(json!([mkdir, noop])));
    let sleep = json!({"type": "org.example.endless", "options": {}});
    let endless_manifest = all.manifest("endless.json", &one_pipeline(json!([sleep, noop])));
    // No other test's process sleeps as long.
    let seconds = (1_000_000 + u64::from(std::process::id())).to_string();
    let libdir = endless(&all, &seconds);
    let (store, output) = (all.path("store"), all.path("out"));
    let (store, output) = (store.as_str(), output.as_str());
    // No store: it holds something else.
    let no_store = all.path("libdir");

    for name in ["build", "build --check"] {
        all.ends(name, 0, &[&good, "--store", store]);
        all.ends(name, 1, &[&failing, "--store", store]);
        all.ends(name, 2, &[&bad, "--store", store]);
        all.ends(name, 3, &[&good, "--store", "/dev/null/store"]);
        let words: Vec<&str> = name.split(' ').collect();
        let mut command = Provoked::command(&words);
        command.arg(&endless_manifest).args(["--libdir", &libdir, "--store", store]);
        all.is_interrupted(name, &seconds, &mut command);
    }

    all.ends("plan", 0, &[&good, "--store", store]);
    all.ends("plan", 2, &[&bad, "--store", store]);
    all.ends("plan", 3, &[&good, "--store", &no_store]);

    all.ends("shell", 0, &[&good, "noop", "--store", store]);
    all.ends("shell", 1, &[&failing, "noop", "--store", store]);
    all.ends("shell", 2, &[&good, "nonsense", "--store", store]);
    all.ends("shell", 3, &[&good, "noop", "--store", &no_store]);
    let empty = json!({"version": "2", "pipelines": [
        {"name": "build", "stages": [noop]}, {"name": "tree", "build": "name:build", "stages": [noop]}
    ]});
    let empty = all.manifest("empty.json", &empty);
    all.ends("shell", 127, &[&empty, "tree/noop", "--store", store]);
    let mut command = Provoked::command(&["shell", &endless_manifest, "noop", "--libdir", &libdir, "--store", store]);
    all.is_interrupted("shell", &seconds, &mut command);

    boot(&mut all, &seconds);

    all.ends("diff", 0, &[&good, &good]);
    all.ends("diff", 1, &[&good, &other]);
    all.ends("diff", 2, &[&good, &bad]);
    let full = fs::File::options().write(true).open("/dev/full").expect("opens");
    let mut command = Provoked::command(&["diff", &good, &other]);
    all.note("diff", 3, command.stdout(full));

    let on_disk = ["--libdir", &libdir, "--store", store, "--output-directory", output];
    let with = |manifest| [&[manifest][..], &on_disk, &["--export", "tree"]].concat();
    all.ends("osbuild", 0, &with(good.as_str()));
    all.ends("osbuild", 1, &with(failing.as_str()));
    all.ends("osbuild", 2, &with(bad.as_str()));
    let mut command = Provoked::command(&["osbuild"]);
    command.args(with(endless_manifest.as_str()));
    all.is_interrupted("osbuild", &seconds, &mut command);

    let osbc = assert_cmd::cargo::cargo_bin("osbc");
    let same = all.program("same", &format!("exec {} osbuild \"$@\"", osbc.display()));
    let silent = all.program("silent", "exit 9");
    let (same, silent) = (same.to_str().expect("is UTF-8"), silent.to_str().expect("is UTF-8"));
    all.ends("compat", 0, &[&good, "--osbuild", same, "--libdir", &libdir]);
    all.ends("compat", 1, &[&good, "--osbuild", silent, "--libdir", &libdir]);
    all.ends("compat", 2, &[&good, "--nonsense"]);
    all.ends("compat", 3, &[&good, "--osbuild", "/nowhere/osbuild", "--libdir", &libdir]);

    all.ends("store verify", 0, &["--store", store]);
    all.ends("store verify", 2, &["--nonsense"]);
    all.ends("store verify", 3, &["--store", &no_store]);
    let objects = fs::read_dir(Path::new(store).join("objects")).expect("reads").flatten();
    let mut entries = objects.flat_map(|object| fs::read_dir(object.path()).expect("reads").flatten());
    let is_tree = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("tree-");
    let tree = entries.find(is_tree).expect("a result").path();
    fs::write(tree.join("more"), "added after the commit").expect("writes");
    all.ends("store verify", 1, &["--store", store]);

    assert_eq!(all.seen, listed());
}

/// With a program in QEMU's place.
fn boot(all: &mut Provoked, seconds: &str) {
    let image = all.place.file("image", &[1; 512]).to_str().expect("is UTF-8").to_owned();
    let path = std::env::var("PATH").expect("is set");
    let qemu = |all: &Provoked, script: &str| {
        all.program("programs/qemu-system-x86_64", script);
        format!("{}:{path}", all.path("programs"))
    };
    let words = ["boot", &image, "--until", "up", "--timeout", "1"];
    for (script, code) in [("echo it is up", 0), ("echo it is down", 1), ("exit 1", 3), ("exec sleep 60", 124)] {
        let path = qemu(all, script);
        all.note("boot", code, Provoked::command(&words).env("PATH", path).stdout(Stdio::null()));
    }
    all.ends("boot", 2, &["/nowhere/image"]);
    let path = qemu(all, &format!("exec sleep {seconds}"));
    let mut command = Provoked::command(&["boot", &image, "--until", "up", "--timeout", "60"]);
    all.is_interrupted("boot", seconds, command.env("PATH", path));
}
