//! `--break`: a shell before stages, with commands piped in.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use osbc_fixtures::{has_root, libdir};
use serde_json::json;

use super::{Ran, mkdir, osbuild};
use crate::harness::{Place, leftovers};

/// A tree of an on-disk and a built-in stage, in a file.
fn manifest(place: &Place) {
    let greet = json!({"type": "org.example.greet", "options": {"name": "you"}});
    let hostname = json!({"type": "org.osbuild.hostname", "options": {"hostname": "a"}});
    let stages = json!([mkdir("/etc"), greet, hostname]);
    let document = json!({"version": "2", "pipelines": [{"name": "tree", "stages": stages}]});
    fs::write(place.path("m.json"), document.to_string()).expect("writes");
}

/// Builds the tree; `commands` are standard input.
fn build(place: &Place, options: &[&str], commands: &str) -> Ran {
    let mut command: Command = osbuild(place);
    command.args(["--export", "tree", "--output-directory", "o", "m.json", "--libdir"]).arg(libdir()).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    child.stdin.take().expect("is piped").write_all(commands.as_bytes()).expect("somebody reads");
    Ran::from(child.wait_with_output().expect("ends"))
}

#[test]
fn root_a_shell_comes_before_the_stages_that_are_named() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    manifest(&place);
    let tree = place.path("o/tree");
    for (stage, seen) in [("org.example.greet", "etc\n"), ("org.osbuild.hostname", "etc\ngreeting\n")] {
        let ran = build(&place, &["--break", stage], "pwd; ls; cp /run/osbuild/api/arguments etc/seen\n");
        assert!(ran.err.contains(&format!("{stage} runs after this shell")), "{ran:?}");
        assert!(ran.with(0).contains(&format!("/run/osbuild/tree\n{seen}")));
        assert!(fs::read_to_string(tree.join("etc/seen")).expect("kept").contains("\"options\""));
        assert_eq!(fs::read_to_string(tree.join("greeting")).expect("the stage ran"), "hello, you\n");
        assert_eq!(fs::read_to_string(tree.join("etc/hostname")).expect("all ran"), "a\n");
    }

    // The first shell reads all that there is, and nothing is left for the others.
    let ran = build(&place, &["--break", "--json"], "echo once >&2\n");
    assert_eq!(
        (ran.err.matches("runs after this shell").count(), ran.err.matches("once\n").count()),
        (3, 1),
        "{ran:?}"
    );
    assert_eq!(ran.document(0)["success"], true);
    assert!(!build(&place, &["--break=org.osbuild"], "echo none\n").with(0).contains("none\n"));
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_a_shell_that_fails_stops_the_build() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    manifest(&place);
    let stopped = build(&place, &["--break=org.example.greet", "--json"], "exit 3\n").document(1);
    let details = &stopped["error"]["details"]["stage"];
    assert_eq!(details["type"], "org.example.greet");
    let reason = "not run: the shell before it ended with exit status 3";
    assert!(details["error"].to_string().contains(reason), "{details}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}
