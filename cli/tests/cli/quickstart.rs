//! The quickstart builds real artifacts, and builds nothing twice.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use osbc_fixtures::{has_root, has_tool, manifest};
use predicates::str::contains;

use crate::harness::{Place, leftovers, osbc};

/// Runs a tool and returns what it printed.
fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().expect("the tool starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

#[test]
fn root_the_quickstart_builds_what_other_tools_accept() {
    if !has_root() || !["tar", "zstd", "sfdisk", "mke2fs", "debugfs", "qemu-img", "skopeo"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    place.build(&manifest("quickstart.json")).assert().success().stdout(contains("qcow2"));

    let archive = place.output().join("tar/root.tar.zst");
    let listing = tool("tar", &["--zstd", "--numeric-owner", "-tvf", text(&archive)]);
    assert!(listing.contains("./etc/hostname"), "{listing}");
    assert!(listing.lines().any(|line| line.contains("1000/1000") && line.contains("srv/www/index.html")), "{listing}");

    let image = format!("oci-archive:{}", text(&place.output().join("oci/quickstart.oci.tar")));
    let config = tool("skopeo", &["inspect", "--config", &image]);
    assert!(config.contains("/usr/bin/hello"), "{config}");
    tool("skopeo", &["inspect", &image]);

    tool("qemu-img", &["check", text(&place.output().join("qcow2/disk.qcow2"))]);
    tool(
        "qemu-img",
        &["compare", text(&place.output().join("qcow2/disk.qcow2")), text(&place.output().join("disk/disk.raw"))],
    );

    mounted_disk_has_the_tree(&place);
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_the_quickstart_is_the_same_twice() {
    if !has_root() || !["mke2fs", "debugfs"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let mut check = osbc();
    check.args(["build", "--check", "--store"]).arg(place.store()).arg(manifest("quickstart.json"));
    check.assert().success();
}

#[test]
fn the_readme_shows_the_plan_that_is_made() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("it is there");
    let (_, shown) =
        readme.split_once("osbc plan -e qcow2 fixtures/manifests/quickstart.json\n").expect("it shows one");
    let (shown, _) = shown.split_once("sources\n").expect("it goes on with the items");
    // The locale is where this machine's systemd has it, so that its id and all that follow are the machine's.
    let (same, of_the_machine) = shown.split_once("org.osbuild.locale").expect("it sets the locale");
    let place = Place::new();
    let mut plan = osbc();
    plan.args(["plan", "-e", "qcow2", "--store"]).arg(place.store()).arg(manifest("quickstart.json"));
    let output = plan.assert().success().stdout(contains(same)).get_output().stdout.clone();
    let output = String::from_utf8(output).expect("UTF-8");
    let (_, rest) = output.split_once("org.osbuild.locale").expect("it is planned");
    let is_id = |word: &str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let without_ids = |text: &str| -> String {
        text.split_inclusive(' ').map(|word| if is_id(word.trim_end()) { "ID " } else { word }).collect()
    };
    assert!(without_ids(rest).starts_with(&without_ids(of_the_machine)), "{output}");
}

/// Mounts the root partition of the exported disk in a mount namespace of its own and looks inside.
fn mounted_disk_has_the_tree(place: &Place) {
    let disk = place.output().join("disk/disk.raw");
    let target = place.path("mnt");
    std::fs::create_dir(&target).expect("the directory is writable");
    let script = format!(
        "mount -o loop,ro,offset=$((2048*512)),sizelimit=$((126976*512)) {disk} {target} && cat {target}/etc/hostname && \
         stat -c '%u:%g %a' {target}/srv/www {target}/usr/bin/hello && readlink {target}/bin && umount {target}",
        disk = text(&disk),
        target = text(&target),
    );
    let seen = tool("unshare", &["--mount", "sh", "-ec", &script]);
    assert_eq!(seen, "quickstart\n1000:1000 750\n0:0 755\nusr/bin\n");
    tool("sfdisk", &["--verify", text(&disk)]);
}

#[test]
fn root_a_second_build_runs_nothing() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let variants = manifest("variants.json");
    let before = place.plan(&variants);
    assert_eq!(before["totals"]["run"], 3 + 20);
    assert!(!place.store().exists(), "a plan touches nothing");
    place.build(&variants).assert().success();
    let after = place.plan(&variants);
    assert_eq!(after["totals"]["run"], 0, "{after:#}");
    place.build(&variants).assert().success();
    for number in 1..=20 {
        let hostname = place.output().join(format!("variant-{number:02}/etc/hostname"));
        let content = std::fs::read_to_string(hostname).expect("each variant is exported");
        assert_eq!(content, format!("variant-{number:02}\n"));
    }
}

#[test]
fn root_a_version_1_manifest_builds_with_its_build_pipeline_and_assembler() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let place = Place::new();
    place.build(&manifest("v1.json")).assert().success();
    let listing = tool("tar", &["-tzf", text(&place.output().join("assembler/tree.tar.gz"))]);
    assert!(listing.contains("etc/hostname"), "{listing}");
}

#[test]
fn root_a_diamond_joins_what_was_built_side_by_side() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    place.build(&manifest("diamond.json")).args(["-j", "2"]).assert().success();
    for side in ["left", "right"] {
        let path = place.output().join("join/joined").join(side).join("etc/hostname");
        assert_eq!(std::fs::read_to_string(&path).expect("both sides are there"), "top\n");
        assert_eq!(std::fs::metadata(&path).expect("just read").uid(), 0);
    }
}
