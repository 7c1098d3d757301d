//! What does not fit or is not there is named with its size or place and a way out.

use assert_cmd::Command;
use osbc_fixtures::{TESTER, has_root, has_tester, has_tool};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers, one_pipeline, osbc};

const UUID: &str = "9c6ae55b-cf88-45b8-84e8-64990759f39d";
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/// A manifest with a file of 6 MiB in the pipeline `big`, and these stages in the pipeline `image`.
fn with_big_file(stages: &Value) -> Value {
    let noise: Vec<u8> = (0..6u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let item = checksum(&noise);
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &noise);
    json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {&item: {"encoding": "base64", "data": data}}}},
        "pipelines": [
            {"name": "big", "stages": [{
                "type": "org.osbuild.copy",
                "inputs": {"files": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [&item]}},
                "options": {"paths": [{"from": format!("input://files/{item}"), "to": "tree:///big"}]}
            }]},
            {"name": "image", "stages": stages}
        ]
    })
}

fn big() -> Value {
    json!({"big": {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:big"]}})
}

fn image(size: &str) -> Value {
    json!({"type": "org.osbuild.truncate", "options": {"filename": "disk.img", "size": size}})
}

fn loop_device() -> Value {
    json!({"type": "org.osbuild.loopback", "options": {"filename": "disk.img"}})
}

#[test]
fn root_a_file_system_that_is_full_is_named_with_what_is_missing() {
    if !has_root() || !has_tool("mkfs.ext4") {
        return;
    }
    let place = Place::new();
    let mkfs =
        json!({"type": "org.osbuild.mkfs.ext4", "devices": {"device": loop_device()}, "options": {"uuid": UUID}});
    let copy = json!({
        "type": "org.osbuild.copy",
        "inputs": big(),
        "devices": {"disk": loop_device()},
        "mounts": [{"name": "root", "type": "org.osbuild.ext4", "source": "disk", "target": "/"}],
        "options": {"paths": [{"from": "input://big/", "to": "mount://root/"}]}
    });
    let path = place.manifest(&with_big_file(&json!([image("5M"), mkfs, copy])));
    let message = contains("cannot copy /big: No space left on device")
        .and(contains("what is copied takes 6.0 MiB, at least "))
        .and(contains("the file system of the mount `root` is full: "))
        .and(contains("raise the `size` of its image or partition"))
        .and(contains("no space left for the stage in the store").not());
    place.build(&path).args(["-e", "image"]).assert().code(1).stderr(message);
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_partitions_that_are_too_small_are_named_with_what_is_missing() {
    if !has_root() || !["mke2fs", "mkfs.fat", "mcopy", "sfdisk"].into_iter().all(has_tool) {
        return;
    }
    let ext4 = json!({"type": "ext4", "uuid": UUID, "from": "input://big/"});
    let fat = json!({"type": "fat", "volid": "7b7795e7", "paths": [{"from": "input://big/big", "to": "/big"}]});
    let disk = |size: u64, partition: Value| {
        json!([{
            "type": "org.osbc.disk", "inputs": big(),
            "options": {"filename": "disk.img", "size": size, "uuid": UUID, "partitions": [partition]}
        }])
    };
    let filled = |filesystem: &Value| disk(7 << 20, json!({"type": LINUX, "name": "root", "filesystem": filesystem}));
    let sfdisk = json!({
        "type": "org.osbuild.sfdisk",
        "devices": {"device": loop_device()},
        "options": {"label": "gpt", "uuid": UUID, "partitions": [{"name": "root", "start": 2048, "size": 204_800}]}
    });
    for (stages, message) in [
        (
            filled(&ext4),
            "partition 1 (`root`): the ext4 file system is too small: what it is to hold takes 6.0 MiB, and",
        ),
        (filled(&fat), "partition 1 (`root`): the FAT file system is too small: what it is to hold takes 6.0 MiB, and"),
        (
            disk(4 << 20, json!({"type": LINUX, "size": 8 << 20})),
            "4194304 bytes: 6291456 are missing; raise the disk's `size`",
        ),
        (json!([image("16M"), sfdisk]), "ends at sector 206848, and the disk has 32768 sectors"),
    ] {
        let place = Place::new();
        let path = place.manifest(&with_big_file(&stages));
        place.build(&path).args(["-e", "image"]).assert().code(1).stderr(contains(message).and(contains("raise ")));
    }
}

#[test]
fn root_a_partition_that_is_not_there_is_named() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let mkdir = json!({
        "type": "org.osbuild.mkdir",
        "devices": {"disk": {"type": "org.osbuild.loopback", "options": {"filename": "disk.img", "partscan": true}}},
        "mounts": [{"name": "root", "type": "org.osbuild.ext4", "source": "disk", "target": "/", "partition": 7}],
        "options": {"paths": [{"path": "mount://root/a"}]}
    });
    let path = place.manifest(&one_pipeline(json!([image("1M"), mkdir])));
    place.build(&path).assert().code(1).stderr(contains("mount `root`: its device has no partition 7"));
}

#[test]
fn tester_owners_beyond_the_subordinate_ids_are_named_with_the_way_out() {
    if !has_tester() || !has_tool("tar") {
        return;
    }
    let archive = std::process::Command::new("tar")
        .args(["--owner=ann:1000710000", "--group=ann:5", "-c", "-C", "/etc", "hostname"])
        .output()
        .expect("tar starts");
    assert!(archive.status.success());
    let item = checksum(&archive.stdout);
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &archive.stdout);
    let file = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [&item]});
    let pipeline = |name: &str, stages: Value| json!({"name": name, "stages": stages});
    let chown = json!({"type": "org.osbuild.chown", "options": {"items": {"/a": {"user": 70_000}}}});
    let mkdir = json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/a"}]}});
    let untar = json!({"type": "org.osbuild.untar", "inputs": {"file": file}, "options": {}});
    let manifest = json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {&item: {"encoding": "base64", "data": data}}}},
        "pipelines": [pipeline("chown", json!([mkdir, chown])), pipeline("untar", json!([untar]))]
    });
    for (name, message) in [
        ("chown", "cannot set the owner of /a: the user id 70000 lies beyond the "),
        ("untar", "cannot extract hostname: the user id 1000710000 lies beyond the "),
    ] {
        let place = crate::rootless::place_of_tester();
        let path = place.manifest(&manifest);
        let mut build = crate::rootless::osbc_as(TESTER, &place);
        build.arg("build").arg(&path).args(["-e", name]).arg("--store").arg(place.store());
        build.assert().code(1).stderr(contains(message).and(contains("usermod --add-subuids ")));
    }
}

/// `osbc ARGUMENTS` after `mounts`, shell commands that change what this machine has, in a mount namespace of its own.
fn without(mounts: &str, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!("{mounts}; exec \"$@\"")).arg("sh").arg(osbc().get_program()).args(arguments);
    command
}

#[test]
fn root_what_the_machine_lacks_is_reported_before_anything_runs() {
    if !has_root() || !["mkswap", "mkfs.ext4"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    let on_device = |name: &str| json!({"type": name, "devices": {"device": loop_device()}, "options": {"uuid": UUID}});
    let stages = json!([image("8M"), on_device("org.osbuild.mkfs.ext4"), on_device("org.osbuild.mkswap")]);
    let path = place.manifest(&one_pipeline(stages));
    let store = place.store();
    let build = ["build".as_ref(), path.as_os_str(), "--store".as_ref(), store.as_os_str()];
    let plan = ["plan".as_ref(), path.as_os_str(), "--store".as_ref(), store.as_os_str()];

    let no_tools = "mount --bind /dev/null /usr/sbin/mkswap; mount --bind /dev/null /usr/sbin/mkfs.ext4";
    let message = || {
        contains("this machine lacks what the build needs:")
            .and(contains("the tool `mkfs.ext4`, for org.osbuild.mkfs.ext4 of the pipeline `tree`: install the package `e2fsprogs`"))
            .and(contains("the tool `mkswap`, for org.osbuild.mkswap of the pipeline `tree`: install the package `util-linux`"))
    };
    without(no_tools, &build).assert().code(3).stderr(message());
    without(no_tools, &plan).assert().success().stderr(message());
    let results = std::fs::read_dir(store.join("objects")).expect("a store").count();
    assert_eq!(results, 0, "nothing ran");

    let no_nodes = "mount -t tmpfs none /dev";
    let message =
        contains("a /dev with the usual nodes: /dev/null: No such file").and(contains("loop devices, for org.osbuild"));
    without(no_nodes, &build).assert().code(3).stderr(message);

    let nothing_missing = || contains("lacks").not();
    without(":", &plan).assert().success().stderr(nothing_missing());
    without(":", &build).assert().success().stderr(nothing_missing());
}
