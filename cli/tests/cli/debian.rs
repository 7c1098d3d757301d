//! Debian packages in the sandbox: made by the tests with dpkg-deb, fetched over loopback, installed by the tree's own dpkg.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use osbc_fixtures::deb::{Deb, base, can_install};
use predicates::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::{Place, checksum, leftovers, respond, serve};

/// A manifest that installs the content of these packages.
fn installing(place: &Place, packages: &[Vec<u8>]) -> std::path::PathBuf {
    let served: Vec<Vec<u8>> = packages.to_vec();
    let url = serve(Arc::new(move |path, stream| {
        let index: usize = path.trim_start_matches('/').parse().expect("the manifest's own address");
        respond(stream, "200 OK", &served[index]);
    }));
    let address = |(index, package): (usize, &Vec<u8>)| (checksum(package), json!(format!("{url}/{index}")));
    let items: Map<String, Value> = packages.iter().enumerate().map(address).collect();
    let references: Vec<&String> = items.keys().collect();
    let packages = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references});
    let stage = json!({"type": "org.osbc.deb", "inputs": {"packages": packages}});
    place.manifest(&json!({
        "version": "2",
        "sources": {"org.osbuild.curl": {"items": items}},
        "pipelines": [{"name": "tree", "source-epoch": 1_700_000_000, "stages": [stage]}]
    }))
}

fn content(deb: &Deb, folder: &Path) -> Vec<u8> {
    fs::read(deb.write(folder)).expect("it was made")
}

#[test]
fn root_debian_packages_are_installed_by_the_dpkg_of_the_tree() {
    if !can_install() {
        return;
    }
    let place = Place::new();
    let one = Deb::new("one").file("etc/one.conf", "one\n").control("conffiles", "/etc/one.conf\n");
    let one = one.script("postinst", "echo \"$DPKG_MAINTSCRIPT_PACKAGE $1\" >/etc/said; sleep 0.1 & wait");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = installing(&place, &[content(&base(), folder.path()), content(&one, folder.path())]);
    place.build(&manifest).assert().success();
    let tree = place.output().join("tree");
    assert_eq!(fs::read_to_string(tree.join("etc/said")).expect("the script ran"), "one configure\n");
    for question in ["--audit", "--verify"] {
        let output = Command::new("dpkg").arg("--root").arg(&tree).arg(question).output().expect("dpkg starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{question}");
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_debian_packages_that_misbehave_fail_their_stage_and_leave_nothing() {
    if !can_install() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = content(&base(), folder.path());
    let script = |commands: &str| content(&Deb::new("one").script("postinst", commands), folder.path());
    let whole = script("true");
    for (package, said) in [
        (script("echo this is why; exit 7"), "this is why"),
        (
            script("busybox setsid sleep 1000 >/dev/null 2>&1 </dev/null &"),
            "left processes running, which it may not: `sleep 1000`",
        ),
        (whole[..whole.len() - 20].to_vec(), "it is cut off: data.tar.gz should have"),
    ] {
        let place = Place::new();
        let manifest = installing(&place, &[base.clone(), package]);
        place.build(&manifest).assert().code(1).stderr(predicate::str::contains(said));
        assert!(!place.output().join("tree").exists());
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    }
}
