//! OSTree systems: a repository on loopback, made by the tests, whose commit is fetched, pulled and deployed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use osbc_fixtures::{has_root, has_tool};
use serde_json::{Value, json};

use crate::harness::{Place, leftovers, respond, serve};

const BRANCH: &str = "test/os";

fn ostree(arguments: &[&str]) -> String {
    let output = Command::new("ostree").args(arguments).output().expect("ostree starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Commits a tree with a kernel to a repository; returns the commit's id.
fn make_repository(place: &Place) -> String {
    let tree = place.path("content");
    let modules = tree.join("usr/lib/modules/6.1.0");
    for directory in ["usr/etc", "usr/lib/tmpfiles.d", "var", "boot", "sysroot", "dev", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(tree.join(directory)).expect("writable");
    }
    fs::create_dir_all(&modules).expect("writable");
    let files = [
        (modules.join("vmlinuz"), "kernel"),
        (modules.join("initramfs.img"), "initrd"),
        (tree.join("usr/lib/os-release"), "ID=test\nPRETTY_NAME=\"Test OS\"\nVERSION_ID=1\n"),
        (tree.join("usr/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n"),
        (tree.join("usr/etc/group"), "root:x:0:\n"),
        (tree.join("usr/lib/tmpfiles.d/var.conf"), "d /var/home 0751 root root -\n"),
    ];
    files.iter().for_each(|(path, content)| fs::write(path, content).expect("writable"));
    symlink("../usr/lib/os-release", tree.join("usr/etc/os-release")).expect("writable");
    let repository = format!("--repo={}", place.path("repository").display());
    ostree(&["init", "--mode=archive", &repository]);
    let tree = format!("--tree=dir={}", tree.display());
    let branch = format!("--branch={BRANCH}");
    ostree(&["commit", &repository, &branch, "--add-metadata-string=version=1.0", &tree])
}

/// A manifest whose pipeline `tree` deploys the commit, and whose pipeline `inside` works in the deployment.
fn deploying(commit: &str, url: &str) -> Value {
    let deployment = json!({"osname": "test", "ref": format!("origin:{BRANCH}")});
    let stage = |kind: &str, options: Value| json!({"type": format!("org.osbuild.{kind}"), "options": options});
    let mut pull = stage("ostree.pull", json!({"repo": "/ostree/repo", "remote": "origin"}));
    pull["inputs"] = json!({"commits": {
        "type": "org.osbuild.ostree", "origin": "org.osbuild.source", "references": {commit: {"ref": BRANCH}}
    }});
    let mut inside = stage("mkdir", json!({"paths": [{"path": "/etc/made"}, {"path": "/var/made"}]}));
    inside["mounts"] = json!([{
        "name": "deployment", "type": "org.osbuild.ostree.deployment", "options": {"deployment": deployment}
    }]);
    json!({
        "version": "2",
        "sources": {"org.osbuild.ostree": {"items": {commit: {"remote": {"url": url}}}}},
        "pipelines": [
            {"name": "tree", "stages": [
                stage("ostree.init-fs", json!({})),
                stage("ostree.os-init", json!({"osname": "test"})),
                pull,
                stage("ostree.config", json!({"repo": "/ostree/repo", "config": {"sysroot": {"readonly": true}}})),
                stage("mkdir", json!({"paths": [{"path": "/boot/efi", "exist_ok": true}]})),
                stage("ostree.deploy", json!({
                    "osname": "test", "remote": "origin", "ref": BRANCH, "mounts": ["/boot", "/boot/efi"],
                    "rootfs": {"label": "root"}, "kernel_opts": ["rw"]
                })),
                stage("ostree.remotes", json!({"repo": "/ostree/repo", "remotes": [{"name": "origin", "url": url}]})),
                stage("ostree.fillvar", json!({"deployment": deployment})),
                stage("ostree.aleph", json!({"deployment": {"default": true}, "coreos_compat": true})),
                inside,
            ]},
            {"name": "files", "stages": [{
                "type": "org.osbuild.copy",
                "inputs": {"commit": {
                    "type": "org.osbuild.ostree.checkout", "origin": "org.osbuild.source", "references": [commit]
                }},
                "options": {"paths": [{
                    "from": format!("input://commit/{commit}/usr/lib/os-release"), "to": "tree:///os-release"
                }]}
            }]}
        ]
    })
}

#[test]
fn root_a_commit_is_fetched_pulled_and_deployed() {
    if !has_root() || !["ostree", "systemd-tmpfiles"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let commit = make_repository(&place);
    let directory = place.path("repository");
    let url = serve(Arc::new(move |path, stream| match fs::read(directory.join(path.trim_start_matches('/'))) {
        Ok(content) => respond(stream, "200 OK", &content),
        Err(_) => respond(stream, "404 Not Found", b""),
    }));
    let manifest = place.manifest(&deploying(&commit, &url));
    place.build(&manifest).args(["--export", "tree", "--export", "files"]).assert().success();

    let tree = place.output().join("tree");
    let text = |path: &str| fs::read_to_string(tree.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let deployment = format!("ostree/deploy/test/deploy/{commit}.0");
    assert!(text(&format!("{deployment}/usr/lib/os-release")).starts_with("ID=test"));
    assert!(text(&format!("{deployment}/etc/passwd")).starts_with("root:"), "configuration is merged");
    assert!(tree.join(&deployment).join("etc/made").is_dir(), "the mount leads into the deployment");
    assert!(tree.join("ostree/deploy/test/var/made").is_dir(), "and to the system's variable data");
    assert!(tree.join("ostree/deploy/test/var/home").is_dir());
    assert_eq!(text(&format!("{deployment}.origin")), format!("[origin]\nrefspec=origin:{BRANCH}\n"));
    let entry = text("boot/loader/entries/ostree-1-test.conf");
    assert!(entry.contains("root=LABEL=root") && entry.contains(" rw"), "{entry}");
    let aleph: Value = serde_json::from_str(&text(".aleph-version.json")).expect("it is JSON");
    assert_eq!((&aleph["ostree-commit"], &aleph["version"]), (&json!(commit), &json!("1.0")));
    assert_eq!(
        fs::read_link(tree.join(".coreos-aleph-version.json")).expect("a link"),
        Path::new(".aleph-version.json")
    );
    let config = text("ostree/repo/config");
    assert!(config.contains("readonly=true") && config.contains(&format!("url={url}")), "{config}");
    ostree(&["fsck", "-q", &format!("--repo={}", tree.join("ostree/repo").display())]);
    let release = fs::read_to_string(place.output().join("files/os-release")).expect("the checkout was there");
    assert!(release.starts_with("ID=test"));
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());

    // Now the store has the commit: nobody is asked again.
    let second = Place::new();
    let mut other = deploying(&commit, "http://127.0.0.1:1/nowhere");
    other["pipelines"][0]["stages"][0]["options"] = json!({});
    let manifest = second.manifest(&other);
    let mut build = crate::harness::osbc();
    build.arg("build").arg(manifest).arg("--store").arg(place.store()).arg("-o").arg(second.output());
    build.args(["--export", "files"]).assert().success();
}

#[test]
fn root_a_commit_that_the_remote_lacks_is_named() {
    if !has_root() || !has_tool("ostree") {
        return;
    }
    let place = Place::new();
    make_repository(&place);
    let url = format!("file://{}", place.path("repository").display());
    let manifest = place.manifest(&deploying(&"0".repeat(64), &url));
    let output = place.build(&manifest).assert().failure().get_output().clone();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&"0".repeat(64)) && said.contains("ostree pull"), "{said}");
}
