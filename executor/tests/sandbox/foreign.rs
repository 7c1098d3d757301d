//! On-disk modules at work: those of `fixtures/libdir`, one of each kind.

use std::fs;
use std::process::Command;

use osbc_executor::request::{
    DeviceRequest, InputRequest, MountRequest, ReferenceFrom, ReferenceRequest, StageFailure, TreeStack,
};
use osbc_fixtures::libdir;
use osbc_module_api::{InputOrigin, Kind, Value, json};

use crate::harness::tests;
use crate::place::{Place, module, on_disk};

tests![
    root_on_disk_stages_change_the_tree_and_leave_metadata,
    root_a_runner_that_is_no_built_in_one_starts_the_stage,
    root_on_disk_inputs_show_items_and_files_of_trees,
    root_on_disk_devices_and_mounts_live_as_long_as_the_stage,
    root_on_disk_devices_serve_built_in_stages_too,
    root_an_exception_is_the_reason_of_a_failure,
    root_what_cannot_be_started_is_explained,
];

fn root_on_disk_stages_change_the_tree_and_leave_metadata() {
    let mut place = Place::on_disk(&libdir(), "org.example.write", json!({"texts": {"/etc/motd": "hello"}}));
    place.request.source_epoch = Some(7);
    assert_eq!(place.succeed(), json!({"written": {"/etc/motd": 5}, "epoch": 7}));
    assert_eq!(fs::read_to_string(place.tree().join("etc/motd")).expect("written"), "hello");

    let place = Place::on_disk(&libdir(), "org.example.greet", json!({"name": "you"}));
    let (reply, output) = place.run();
    assert_eq!((reply.failure, reply.metadata), (None, json!({"greeted": "you"})));
    assert_eq!(output, "greeted you\n");
    assert_eq!(fs::read_to_string(place.tree().join("greeting")).expect("written"), "hello, you\n");
}

fn root_a_runner_that_is_no_built_in_one_starts_the_stage() {
    let folder = tempfile::tempdir().expect("a folder");
    let stages = folder.path().join("stages");
    fs::create_dir(&stages).expect("a folder");
    let stage = stages.join("look");
    fs::write(&stage, "#!/bin/sh\ncat /etc/prepared\n").expect("a stage");
    Command::new("chmod").arg("+x").arg(&stage).status().expect("chmod is there");
    let mut place = Place::on_disk(folder.path(), "look", json!({}));
    place.request.runner = "org.osbuild.example".into();
    place.request.runner_file = Some(libdir().join("runners/org.osbuild.example"));
    let (reply, output) = place.run();
    assert_eq!((reply.failure, output.as_str()), (None, "prepared by the example runner\n"));
}

fn input(name: &str, origin: InputOrigin, references: Vec<ReferenceRequest>) -> InputRequest {
    let module = on_disk(&libdir(), Kind::Input, "org.example.files");
    InputRequest { name: name.into(), module, origin, references, options: json!({}) }
}

fn root_on_disk_inputs_show_items_and_files_of_trees() {
    let mut place = Place::on_disk(&libdir(), "org.example.write", json!({}));
    let items = place.path("sources/org.example.text");
    fs::create_dir_all(&items).expect("a folder");
    fs::write(items.join("sha256:1"), "an item").expect("an item");
    let item = ReferenceRequest {
        id: "sha256:1".into(),
        options: json!({"name": "item"}),
        from: ReferenceFrom::Item(items.join("sha256:1")),
    };
    place.request.inputs = vec![input("files", InputOrigin::Source, vec![item])];
    assert_eq!(place.succeed()["written"], json!({"item": 7}));
    assert_eq!(fs::read_to_string(place.tree().join("item")).expect("copied"), "an item");

    let mut place = Place::on_disk(&libdir(), "org.example.write", json!({}));
    let tree = place.path("other");
    fs::create_dir_all(tree.join("etc")).expect("a folder");
    fs::write(tree.join("etc/name"), "of the tree").expect("a file");
    // No link in a tree leads out of it.
    std::os::unix::fs::symlink("/etc/name", tree.join("link")).expect("a link");
    let file = |file: &str, name: &str, id: &str| ReferenceRequest {
        id: id.into(),
        options: json!({"file": file, "name": name}),
        from: ReferenceFrom::Tree(TreeStack { lower: vec![tree.clone()], upper: None }),
    };
    let references = vec![file("/etc/name", "one", "id-1"), file("link", "two", "id-2")];
    place.request.inputs = vec![input("files", InputOrigin::Pipeline, references)];
    assert_eq!(place.succeed()["written"], json!({"one": 11, "two": 11}));
    place.request.inputs = vec![input("files", InputOrigin::Pipeline, vec![file("/etc/none", "one", "id-1")])];
    fs::remove_dir_all(&place.request.scratch).expect("removes the scratch folder");
    fs::create_dir(&place.request.scratch).expect("makes it anew");
    let (reply, output) = place.run();
    let Some(StageFailure::Environment(reason)) = reply.failure else { panic!("{:?}", reply.failure) };
    assert!(reason.starts_with("input `files`: RuntimeError: cannot open /etc/none in the tree"), "{reason}");
    assert!(output.contains("input/files: Traceback (most recent call last):"), "{output}");
}

/// A place whose tree has an ext4 file system in `/image`, opened and mounted by on-disk modules.
fn with_image(stage: &str, options: Value) -> Place {
    let mut place = Place::on_disk(&libdir(), stage, options);
    let image = place.tree().join("image");
    fs::File::create(&image).expect("a file").set_len(8 << 20).expect("a size");
    assert!(Command::new("mkfs.ext4").arg("-q").arg(&image).status().expect("mkfs.ext4 is there").success());
    place.request.devices = vec![DeviceRequest {
        name: "disk".into(),
        module: on_disk(&libdir(), Kind::Device, "org.example.loop"),
        parent: None,
        options: json!({"filename": "image"}),
    }];
    place.request.mounts = vec![MountRequest {
        name: "root".into(),
        module: on_disk(&libdir(), Kind::Mount, "org.example.ext4"),
        source: Some(0),
        partition: None,
        target: Some("/sub".into()),
        options: json!({}),
    }];
    place
}

fn file_in(place: &Place, path: &str) -> String {
    let output = Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(place.tree().join("image")).output();
    String::from_utf8_lossy(&output.expect("debugfs is there").stdout).into_owned()
}

fn root_on_disk_devices_and_mounts_live_as_long_as_the_stage() {
    if !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let place = with_image("org.example.write", json!({}));
    place.succeed();
    assert_eq!(file_in(&place, "/from-the-stage"), "root");
}

fn root_on_disk_devices_serve_built_in_stages_too() {
    if !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let script = "echo built-in > /run/osbuild/mounts/sub/file; test -b /dev/loop*; \
                  for process in /proc/[0-9]*; do ! grep -q [s]ervice-fd $process/cmdline; done";
    let mut place = with_image("shell", json!({"script": script}));
    place.request.module = module(Kind::Stage, "shell");
    place.succeed();
    assert_eq!(file_in(&place, "/file"), "built-in\n");
}

fn root_an_exception_is_the_reason_of_a_failure() {
    let place = Place::on_disk(&libdir(), "org.example.write", json!({"texts": {"/etc": "", "/etc/x": ""}}));
    let (reply, _) = place.run();
    let Some(StageFailure::Module(reason)) = reply.failure else { panic!("{:?}", reply.failure) };
    assert!(reason.starts_with("NotADirectoryError: ") || reason.starts_with("FileExistsError: "), "{reason}");
    let exception = reply.exception.expect("reported");
    assert!(exception["traceback"].as_str().expect("text").contains("org.example.write"), "{exception}");
}

fn root_what_cannot_be_started_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("stages")).expect("a folder");
    let reason = |name: &str, text: &str, mode: &str| {
        let path = folder.path().join("stages").join(name);
        fs::write(&path, text).expect("a file");
        Command::new("chmod").arg(mode).arg(&path).status().expect("chmod is there");
        match Place::on_disk(folder.path(), name, json!({})).fail() {
            StageFailure::Environment(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason("a", "#!/usr/bin/python9 -s\n", "755").contains("the build root has no /usr/bin/python9"));
    assert!(reason("b", "#!/bin/sh\n", "644").contains("may not be executable"));
}
