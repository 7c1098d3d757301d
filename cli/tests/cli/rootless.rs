//! Building as an ordinary user: the same results as root's, and words on what stands in the way.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use assert_cmd::Command;
use osbc_fixtures::{TESTER, has_tester, has_tool, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, leftovers, one_pipeline, osbc};

/// A place that belongs to the ordinary user, with the command in it: where it was built may be out of their reach.
pub(crate) fn place_of_tester() -> Place {
    let place = Place::new();
    fs::copy(osbc().get_program(), place.path("osbc")).expect("there is room");
    // For those users too that nothing belongs to.
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let status = std::process::Command::new("chown").arg(TESTER).arg(place.path("")).status();
    assert!(status.expect("chown starts").success());
    place
}

/// The command, run as a user, by name or number.
pub(crate) fn osbc_as(user: &str, place: &Place) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(place.path("osbc"));
    command.env("HOME", place.path("home")).env_remove("XDG_CACHE_HOME").timeout(std::time::Duration::from_secs(300));
    command
}

/// `osbc build MANIFEST --store … -o …` as the ordinary user.
pub(crate) fn build_as_tester(place: &Place, manifest: &Path) -> Command {
    let mut command = osbc_as(TESTER, place);
    command.arg("build").arg(manifest).arg("--store").arg(place.store()).arg("-o").arg(place.output());
    command
}

/// A fixture where the ordinary user can read it.
fn fixture(place: &Place, name: &str) -> std::path::PathBuf {
    place.file(name, &fs::read(manifest(name)).expect("it is there"))
}

#[test]
fn tester_a_user_builds_what_root_builds() {
    if !has_tester() || !["mke2fs", "debugfs"].into_iter().all(has_tool) {
        return;
    }
    let (roots, users) = (Place::new(), place_of_tester());
    roots.build(&manifest("quickstart.json")).assert().success();
    build_as_tester(&users, &fixture(&users, "quickstart.json")).assert().success();
    for artifact in ["tar/root.tar.zst", "oci/quickstart.oci.tar", "disk/disk.raw", "qcow2/disk.qcow2"] {
        let read = |place: &Place| fs::read(place.output().join(artifact)).expect("it was exported");
        assert!(read(&roots) == read(&users), "{artifact} differs");
    }
    let owner = fs::metadata(users.output().join("tar/root.tar.zst")).expect("it was exported").uid();
    assert_eq!(owner, fs::metadata(users.path("")).expect("it is there").uid(), "artifacts are the user's");
    assert_eq!(leftovers(&users.path("")), Vec::<String>::new());
}

/// A tree whose stages change what lies in layers below: owners, modes, files with several names, links.
fn changing_layers() -> Value {
    json!({"version": "2", "pipelines": [
        {"name": "tree", "source-epoch": 1_700_000_000, "stages": [
            {"type": "org.osbuild.mkdir", "options": {"paths": [
                {"path": "/a", "mode": 448}, {"path": "/a/b"}, {"path": "/a/b/c"}, {"path": "/etc"}
            ]}},
            {"type": "org.osbuild.hostname", "options": {"hostname": "one"}},
            {"type": "org.osbuild.chown", "options": {"items": {"/a/b": {"user": 65534, "group": 12}}}},
            {"type": "org.osbuild.hostname", "options": {"hostname": "three"}},
            {"type": "org.osbuild.ln", "options": {"paths": [
                {"target": "/etc/hostname", "link_name": "tree:///a/b/second-name"}
            ]}},
            {"type": "org.osbuild.chmod", "options": {"items": {"/a/b/c": {"mode": "2755"}}}},
            {"type": "org.osbuild.chmod", "options": {"items": {"/a/b/second-name": {"mode": "0600"}}}}
        ]},
        {"name": "tar", "source-epoch": 1_700_000_000, "stages": [{
            "type": "org.osbuild.tar",
            "inputs": {"tree": {
                "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:tree"]
            }},
            "options": {"filename": "tree.tar", "paths": ["."]}
        }]}
    ]})
}

#[test]
fn tester_trees_that_change_layers_below_are_the_same() {
    if !has_tester() || !has_tool("tar") {
        return;
    }
    let (roots, users) = (Place::new(), place_of_tester());
    roots.build(&roots.manifest(&changing_layers())).args(["-e", "tar"]).assert().success();
    build_as_tester(&users, &users.manifest(&changing_layers())).args(["-e", "tar"]).assert().success();
    let listing = |place: &Place| {
        let mut tar = Command::new("tar");
        let listing = tar.args(["--numeric-owner", "-tvf"]).arg(place.output().join("tar/tree.tar")).assert().success();
        String::from_utf8_lossy(&listing.get_output().stdout).into_owned()
    };
    assert_eq!(listing(&users), listing(&roots));
    assert!(listing(&roots).contains("65534/12"), "{}", listing(&roots));
    let read = |place: &Place| fs::read(place.output().join("tar/tree.tar")).expect("it was exported");
    assert!(read(&roots) == read(&users), "the archives differ");
}

#[test]
fn tester_a_user_without_ids_learns_how_to_get_some() {
    if !has_tester() {
        return;
    }
    let place = place_of_tester();
    let manifest = place.manifest(&one_pipeline(json!([{"type": "org.osbuild.noop"}])));
    // Nobody that the system knows.
    let stranger = "61234";
    let advice = || contains("/etc/subuid has no ids for the user 61234").and(contains("usermod --add-subuids "));
    let mut build = osbc_as(stranger, &place);
    build.arg("build").arg(&manifest).arg("--store").arg(place.store());
    build.assert().code(3).stderr(advice());
    osbc_as(stranger, &place).arg("doctor").assert().code(3).stdout(advice());
    // What does not build needs none.
    osbc_as(stranger, &place).arg("plan").arg(&manifest).assert().success();
    osbc_as(TESTER, &place).arg("doctor").assert().success().stdout(contains("in a user namespace, users 0:"));
}

#[test]
fn tester_stages_on_devices_are_named_before_anything_runs() {
    if !has_tester() {
        return;
    }
    let place = place_of_tester();
    let said = || contains("org.osbuild.mkfs.ext4 of the pipeline `disk`").and(contains("org.osbc.disk"));
    let on_devices = fixture(&place, "loop-disk.json");
    build_as_tester(&place, &on_devices).assert().code(3).stderr(said());
    let results = fs::read_dir(place.store().join("objects")).expect("a store").count();
    assert!(!place.output().exists() && results == 0, "nothing ran");
    osbc_as(TESTER, &place).arg("plan").arg(&on_devices).assert().success().stderr(said());
    let mut osbuild = osbc_as(TESTER, &place);
    osbuild.args(["osbuild", "--export", "disk", "--libdir", "/nowhere", "--store"]).arg(place.path("theirs"));
    osbuild.arg("--output-directory").arg(place.output()).arg(&on_devices).assert().code(1).stdout(said());
}

#[test]
fn tester_in_drop_in_mode_users_build_too() {
    if !has_tester() || !has_tool("tar") {
        return;
    }
    let place = place_of_tester();
    let quickstart = fixture(&place, "quickstart.json");
    let mut osbuild = osbc_as(TESTER, &place);
    osbuild.args(["osbuild", "--export", "tar", "--checkpoint", "tree", "--libdir", "/nowhere", "--store"]);
    osbuild.arg(place.path("theirs")).arg("--output-directory").arg(place.output()).arg(&quickstart);
    osbuild.assert().success().stdout(contains(": cached"));
    assert!(place.output().join("tar/root.tar.zst").is_file());
}

#[test]
fn tester_a_store_is_for_those_who_made_it() {
    if !has_tester() {
        return;
    }
    let place = place_of_tester();
    let manifest = place.manifest(&one_pipeline(json!([{"type": "org.osbuild.noop"}])));
    build_as_tester(&place, &manifest).assert().success();
    place
        .build(&manifest)
        .assert()
        .code(3)
        .stderr(contains("was made without root").and(contains("name another store")));
    let roots = place_of_tester();
    let manifest = roots.manifest(&one_pipeline(json!([{"type": "org.osbuild.noop"}])));
    roots.build(&manifest).assert().success();
    fs::remove_dir_all(roots.output()).expect("it is root's");
    build_as_tester(&roots, &manifest)
        .assert()
        .code(3)
        .stderr(contains("was made as root, this osbc runs without root"));
    osbc_as(TESTER, &roots).arg("plan").arg(&manifest).arg("--store").arg(roots.store()).assert().success();
}

#[test]
fn tester_the_usual_store_is_among_the_user_s_caches() {
    if !has_tester() {
        return;
    }
    let place = place_of_tester();
    let manifest = place.manifest(&one_pipeline(json!([{"type": "org.osbuild.noop"}])));
    osbc_as(TESTER, &place).arg("build").arg(&manifest).assert().success();
    assert!(place.path("home/.cache/osbc/format").is_file());
}
