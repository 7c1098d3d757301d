//! Control characters from manifests, servers and tools reach no terminal: not one is in what any command prints.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use osbc_fixtures::{has_root, libdir};
use serde_json::{Value, json};

use super::dropin::osbuild;
use crate::harness::{Place, checksum, osbc, serve};

/// Clears the screen and sets the title of a window; the same in one character; and writes backwards.
const CONTROL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{9b}2J\u{7f}\u{202e}";

/// A manifest with control characters wherever a name or a text may be.
fn manifest(url: &str) -> Value {
    let item = checksum(b"hello");
    let files = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [item]});
    json!({
        "version": "2",
        "metadata": {"generators": [{"name": CONTROL}]},
        "sources": {"org.osbuild.curl": {"items": {&item: format!("{url}/{CONTROL}")}}},
        "pipelines": [
            {"name": format!("says{CONTROL}\nfailed: other"), "stages": [
                {"type": "org.example.says", "options": {"text": CONTROL}},
            ]},
            {"name": "fetches", "stages": [{"type": "org.osbuild.copy", "inputs": {"files": files}, "options": {
                "paths": [{"from": format!("input://files/{item}"), "to": format!("tree:///{CONTROL}")}]
            }}]},
        ],
    })
}

/// Modules with a stage that writes control characters and fails.
fn modules(place: &Place) -> PathBuf {
    let directory = place.path("libdir");
    let copied = std::process::Command::new("cp").arg("-a").arg(libdir()).arg(&directory).status();
    assert!(copied.expect("cp is there").success());
    let says = directory.join("stages/org.example.says");
    let script = r#"#!/bin/sh
printf '\033[2Jon output\r\302\2332J\n'
printf '\033]0;owned\007at the end\n' >&2
exit 1
"#;
    std::fs::write(&says, script).expect("writes");
    std::fs::set_permissions(&says, std::fs::Permissions::from_mode(0o755)).expect("sets");
    let meta = json!({"summary": "-", "description": [], "schema_2": {"options": {"additionalProperties": true}}});
    std::fs::write(says.with_file_name("org.example.says.meta.json"), meta.to_string()).expect("writes");
    directory
}

/// What was printed, after a look for control characters.
fn plain(output: Output) -> String {
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    let control = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
    assert!(!text.contains(control), "{text:?}");
    text
}

fn run(place: &Place, arguments: &[&str], files: &[&Path]) -> String {
    plain(osbc().args(arguments).args(files).current_dir(place.path("")).output().expect("runs"))
}

#[test]
fn no_command_prints_control_characters() {
    if !has_root() {
        return;
    }
    let answer = |_: &str, stream: &mut std::net::TcpStream| {
        use std::io::Write as _;
        stream.write_all(b"HTTP/1.1 404 \x1b[2Jno\r\nContent-Length: 2\r\n\r\nno").ok();
    };
    let url = serve(Arc::new(answer));
    let place = Place::new();
    modules(&place);
    let first = place.manifest(&manifest(&url));
    let build = ["build", "--keep-going", "--libdir", "libdir", "--store", "store"];
    let said = run(&place, &build, &[&first]);
    assert!(said.contains("\\u001b[2Jon output\\u000d\\u009b2J\n"), "{said}");
    assert!(said.contains("failed: says\\u001b[2J"), "{said}");
    assert!(!said.contains("\nfailed: other"), "a name is a part of its line: {said}");
    for json in [&[][..], &["--json"]] {
        for command in ["build", "plan", "explain"] {
            let arguments = [&[command, "--libdir", "libdir", "--store", "store"][..], json].concat();
            run(&place, &arguments, &[&first]);
        }
        run(&place, &[&["log", "--store", "store"], json].concat(), &[]);
        run(&place, &[&["log", "--list", "--store", "store"], json].concat(), &[]);
    }
    for format in ["dot", "mermaid", "svg", "json"] {
        run(&place, &["graph", "--libdir", "libdir", "--store", "store", "--format", format], &[&first]);
    }
    run(&place, &["report", "--store", "store", "-o", "-"], &[]);
    run(&place, &["inspect", "--libdir", "libdir"], &[&first]);

    let mut changed = manifest(&url);
    changed["pipelines"][0]["stages"][0]["options"]["text"] = json!(format!("other{CONTROL}"));
    let other = place.file("other.json", changed.to_string().as_bytes());
    run(&place, &["diff", "--libdir", "libdir"], &[&first, &other]);
    run(&place, &["plan", "--libdir", "libdir", "--store", "store", "-e", CONTROL], &[&first]);
    run(&place, &["plan"], &[Path::new(CONTROL)]);
}

#[test]
fn a_manifest_that_is_refused_prints_no_control_characters() {
    let place = Place::new();
    let unknown = json!({"version": "2", "pipelines": [
        {"name": CONTROL, "build": format!("name:{CONTROL}"), "stages": [{"type": format!("org.{CONTROL}")}]},
    ]});
    let refused = place.manifest(&unknown);
    for arguments in [&["plan"][..], &["plan", "--json"]] {
        assert!(run(&place, arguments, &[&refused]).contains("\\u001b"), "it is named");
    }
    // No JSON, whose text is shown.
    let raw = place.file("raw.json", format!("{{\"version\": \"2\",\n {CONTROL} }}").as_bytes());
    assert!(run(&place, &["plan"], &[&raw]).contains("raw.json:2:"));
    for manifest in [&refused, &raw] {
        let store = ["--store", "ostore", "--output-directory", "oout"];
        plain(osbuild(&place).args(store).arg(manifest).output().expect("runs"));
    }
}
