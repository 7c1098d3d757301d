//! Devices and mounts: what a stage writes through them is in the image when the next stage starts.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use osbc_fixtures::has_tool;
use osbc_module_api::json;
use osbc_sandbox::request::StageFailure;

use crate::harness::tests;
use crate::place::Place;

tests![
    root_what_is_written_through_a_mount_is_in_the_image_at_once,
    root_what_is_written_to_a_device_is_in_the_image_at_once,
    root_devices_in_parallel_stages_keep_apart,
    root_what_a_stage_leaves_mounted_or_in_use_goes,
    root_failing_devices_and_mounts_leave_nothing,
    root_a_failure_says_which_mount_is_full,
    root_the_disk_is_waited_for_where_there_is_more_than_a_tree,
];

const TREE: &str = "/run/osbuild/tree";
const MOUNT: &str = "/run/osbuild/mounts/data";

/// A stage with an ext4 image, its loop device and its mount; nothing where there is no mkfs.ext4.
fn with_image(stage: &str, script: &str) -> Option<Place> {
    has_tool("mkfs.ext4").then(|| {
        let place = Place::new(stage, json!({"script": script}));
        make_image(&place.tree().join("image"));
        attach(place)
    })
}

fn make_image(image: &Path) {
    File::create(image).and_then(|file| file.set_len(16 << 20)).expect("an image");
    let made = Command::new("mkfs.ext4").arg("-q").arg(image).status().expect("it starts");
    assert!(made.success());
}

fn attach(mut place: Place) -> Place {
    place.device("disk", "loop", json!({"filename": "image"}));
    place.mount("ext4", "/data");
    place
}

/// What debugfs finds in the image, which is not mounted any more.
fn file_in_image(image: &Path, path: &str) -> String {
    let output = Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(image).output().expect("debugfs");
    String::from_utf8(output.stdout).expect("text")
}

fn root_what_is_written_through_a_mount_is_in_the_image_at_once() {
    let Some(mut place) = with_image("shell", "") else { return };
    let image = place.tree().join("image");
    for round in 0..5 {
        // Nothing syncs but the one who unmounts.
        let script = format!("echo {round} > {MOUNT}/file; test -b /dev/loop*; mountpoint -q {MOUNT}");
        place.request.options = json!({"script": script});
        place.succeed();
        assert_eq!(file_in_image(&image, "/file"), format!("{round}\n"));
    }
    let check = Command::new("e2fsck").args(["-f", "-n"]).arg(&image).output().expect("e2fsck");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

fn root_what_is_written_to_a_device_is_in_the_image_at_once() {
    let mut place = Place::new(
        "shell",
        json!({"script": "dd if=/dev/zero bs=1M count=8 status=none | tr '\\0' x > $(ls /dev/loop*)"}),
    );
    let image = place.tree().join("image");
    File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("an image");
    place.device("disk", "loop", json!({"filename": "image"}));
    place.succeed();
    assert!(fs::read(&image).expect("the image").iter().all(|byte| *byte == b'x'));
}

fn root_devices_in_parallel_stages_keep_apart() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let Some(mut place) = with_image("shell", "") else { return };
                for round in 0..5 {
                    let text = format!("{thread} {round}");
                    place.request.options = json!({"script": format!("echo {text} > {MOUNT}/file")});
                    place.succeed();
                    assert_eq!(file_in_image(&place.tree().join("image"), "/file"), text + "\n");
                }
            });
        }
    });
}

fn root_what_a_stage_leaves_mounted_or_in_use_goes() {
    let script = format!(
        "exec 9> {MOUNT}/open; setsid sleep 1000 9>&9 & \
         mkdir {MOUNT}/sub {TREE}/sub; mount -t tmpfs none {MOUNT}/sub; mount --bind {MOUNT} {TREE}/sub; \
         cd {MOUNT}; setsid sleep 1000 & \
         umount -l {MOUNT}; echo done > {TREE}/ran"
    );
    let Some(place) = with_image("shell", &script) else { return };
    place.succeed();
    assert!(place.tree().join("ran").exists());
    assert!(fs::read_dir(place.tree().join("sub")).expect("a directory").next().is_none());
}

fn root_failing_devices_and_mounts_leave_nothing() {
    type Failing = (fn(&mut Place), &'static str);
    let failing: [Failing; 4] = [
        (|place| place.device("second", "bad-device", json!({})), "device `second`: there is no such device"),
        (|place| place.mount("bad-mount", "/"), "mount `-`: there is no such file system"),
        (|place| place.mount("panic", "/"), "a bug in the preparation of the stage; see its output"),
        (|place| place.device("second", "loop", json!({"filename": "../../missing"})), "device `second`: cannot open"),
    ];
    for (add, reason) in failing {
        let Some(mut place) = with_image("shell", "exit 1") else { return };
        add(&mut place);
        match place.fail() {
            StageFailure::Environment(found) => assert!(found.starts_with(reason), "{found}"),
            other => panic!("{other:?}"),
        }
    }
}

fn root_a_failure_says_which_mount_is_full() {
    let hint = |script: &str| {
        let place = with_image("shell", script)?;
        let (reply, _) = place.run();
        assert!(reply.failure.is_some());
        reply.hint
    };
    let fill = format!("cat /dev/zero >{MOUNT}/all");
    let Some(full) = hint(&fill) else { return };
    assert!(full.starts_with("; the file system of the mount `-` is full: 0 B of 1"), "{full}");
    assert_eq!(hint("exit 1"), None, "one with room is not named");
}

fn root_the_disk_is_waited_for_where_there_is_more_than_a_tree() {
    // A pipe is no file that could be on a disk: the kernel refuses where the call gets to it.
    const SYNC: &str = "true | sync /proc/self/fd/0 2>/dev/null";
    Place::new("shell", json!({"script": SYNC})).succeed();
    let Some(place) = with_image("shell", &format!("if {SYNC}; then exit 1; fi")) else { return };
    place.succeed();
}
