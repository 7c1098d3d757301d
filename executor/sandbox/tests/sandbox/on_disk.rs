//! On-disk modules at work: those of `fixtures/libdir`, one of each kind.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use osbc_fixtures::libdir;
use osbc_module_api::{InputOrigin, Kind, Value, json};
use osbc_sandbox::client::shell::{Shell, ShellRunner, ShellUi, When};
use osbc_sandbox::client::{StageIo, StageRunner};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::request::{DeviceRequest, InputRequest, MountRequest, ReferenceFrom, ReferenceRequest, StageFailure};
use osbc_store::TreeStack;

use crate::harness::tests;
use crate::place::{Place, module, on_disk, runner};

tests![
    root_on_disk_stages_change_the_tree_and_leave_metadata,
    root_a_runner_that_is_no_built_in_one_starts_the_stage,
    root_on_disk_inputs_show_items_and_files_of_trees,
    root_on_disk_devices_and_mounts_live_as_long_as_the_stage,
    root_on_disk_devices_serve_built_in_stages_too,
    root_what_services_write_is_no_output_of_the_stage,
    root_a_stage_gets_loop_devices_while_it_runs,
    root_a_shell_finds_the_arguments_that_a_stage_is_given,
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
    let directory = tempfile::tempdir().expect("a directory");
    let stages = directory.path().join("stages");
    fs::create_dir(&stages).expect("a directory");
    let stage = stages.join("look");
    fs::write(&stage, "#!/bin/sh\ncat /etc/prepared\n").expect("a stage");
    Command::new("chmod").arg("+x").arg(&stage).status().expect("chmod is there");
    let mut place = Place::on_disk(directory.path(), "look", json!({}));
    place.request.runner = "org.osbuild.example".into();
    place.request.runner_file = Some(libdir().join("runners/org.osbuild.example"));
    let (reply, output) = place.run();
    assert_eq!((reply.failure, output.as_str()), (None, "prepared by the example runner\n"));
}

/// A stage that asks for two loop devices: it writes through one, which begins within the file, and reads through the
/// other.
const LOOPS: &str = r#"#!/usr/bin/python3
import json, os, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("/run/osbuild/api/remoteloop")
nodes = os.open("/dev", os.O_PATH | os.O_DIRECTORY)
def device(**options):
    image = os.open("/run/osbuild/tree/image", os.O_RDWR)
    request = {"fd": 0, "dir_fd": 1, "lock": False, "partscan": False, "read_only": False, "sector_size": 512, **options}
    socket.send_fds(sock, [json.dumps(request).encode()], [image, nodes])
    os.close(image)
    return "/dev/" + json.loads(sock.recv(4096))["devname"]
inner = device(offset=4096, sizelimit=8192)
with open(inner, "r+b") as file:
    assert file.seek(0, 2) == 8192
    file.seek(512)
    file.write(b"through the device")
    file.flush()
    os.fsync(file.fileno())
# As osbuild's client does.
os.unlink(inner)
try:
    with open(device(read_only=True), "r+b", buffering=0) as file:
        file.write(b"x" * 512)
    print("it could be written to")
except PermissionError:
    print("read-only")
"#;

fn root_a_stage_gets_loop_devices_while_it_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = directory.path().join("stages/loops");
    fs::create_dir(directory.path().join("stages")).expect("a directory");
    fs::write(&stage, LOOPS).expect("a stage");
    assert!(Command::new("chmod").arg("+x").arg(&stage).status().expect("chmod is there").success());
    let place = Place::on_disk(directory.path(), "loops", json!({}));
    let image = place.tree().join("image");
    fs::File::create(&image).expect("a file").set_len(1 << 20).expect("a size");
    let (reply, output) = place.run();
    assert_eq!((reply.failure, output.as_str()), (None, "read-only\n"));
    let content = fs::read(&image).expect("is there");
    assert_eq!(&content[4096 + 512..][..18], b"through the device");
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 18);
    let attached = Command::new("losetup").arg("--all").output().expect("losetup is there").stdout;
    let attached = String::from_utf8_lossy(&attached).into_owned();
    assert!(!attached.contains(image.to_str().expect("text")), "{attached}");
}

fn root_what_services_write_is_no_output_of_the_stage() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("devices")).expect("a directory");
    let module = directory.path().join("devices/talks");
    let device = fs::read_to_string(libdir().join("devices/org.example.loop")).expect("reads");
    let talks = device.replace("    return {\"path\"", "    print(\"opened\", flush=True)\n    return {\"path\"");
    assert_ne!(talks, device);
    fs::write(&module, talks).expect("writes");
    assert!(Command::new("chmod").arg("+x").arg(&module).status().expect("chmod is there").success());
    let mut place = with_image("org.example.greet", json!({"name": "you"}));
    place.request.mounts.clear();
    place.request.devices[0].module = on_disk(directory.path(), Kind::Device, "talks");
    let (output, aside) = (RefCell::new(String::new()), RefCell::new(String::new()));
    let io = StageIo {
        output: &|text| output.borrow_mut().push_str(text),
        service_output: &|text| aside.borrow_mut().push_str(text),
        interrupt: &Interrupt::new().expect("an eventfd"),
    };
    assert_eq!(runner().run(&place.request, &io).failure, None);
    assert_eq!(output.into_inner(), "greeted you\n");
    assert_eq!(aside.into_inner(), "device/disk (talks): opened\n");
}

fn input(name: &str, origin: InputOrigin, references: Vec<ReferenceRequest>) -> InputRequest {
    let module = on_disk(&libdir(), Kind::Input, "org.example.files");
    InputRequest { name: name.into(), module, origin, references, options: json!({}) }
}

fn root_on_disk_inputs_show_items_and_files_of_trees() {
    let mut place = Place::on_disk(&libdir(), "org.example.write", json!({}));
    let items = place.path("sources/org.example.text");
    fs::create_dir_all(&items).expect("a directory");
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
    fs::create_dir_all(tree.join("etc")).expect("a directory");
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
    fs::remove_dir_all(&place.request.scratch).expect("removes the scratch directory");
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

/// Types a command into a shell, whose output goes to a file.
struct Typist<'a> {
    output: &'a Path,
}

impl ShellUi for Typist<'_> {
    fn attend(&self, shell: Shell) -> io::Result<()> {
        let (commands, mut typed) = io::pipe()?;
        typed.write_all(b"cat /run/osbuild/api/arguments\n")?;
        drop(typed);
        let (output, rest) = (fs::File::create(self.output)?, fs::File::create("/dev/null")?);
        shell.connect([commands.as_fd(), output.as_fd(), rest.as_fd()])?;
        shell.wait().map(drop)
    }
}

fn root_a_shell_finds_the_arguments_that_a_stage_is_given() {
    if !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let module = directory.path().join("stages/reports");
    fs::create_dir(directory.path().join("stages")).expect("a directory");
    fs::write(&module, "#!/bin/sh\ncat /run/osbuild/api/arguments\n").expect("writes");
    assert!(Command::new("chmod").arg("+x").arg(&module).status().expect("chmod is there").success());
    // What a stage has apart from its module: options, an input with data, a device, a mount, an epoch.
    let place = |stage| {
        let mut place = with_image("reports", json!({"path": "file", "text": "x"}));
        place.request.module = stage;
        let tree = place.path("other");
        fs::create_dir(&tree).expect("a directory");
        fs::write(tree.join("name"), "a name").expect("a file");
        let reference = ReferenceRequest {
            id: "id-1".into(),
            options: json!({"file": "name", "name": "it"}),
            from: ReferenceFrom::Tree(TreeStack { lower: vec![tree], upper: None }),
        };
        place.request.inputs = vec![input("files", InputOrigin::Pipeline, vec![reference])];
        place.request.source_epoch = Some(7);
        place
    };
    let on_disk = || on_disk(directory.path(), Kind::Stage, "reports");
    let (reply, given) = place(on_disk()).run();
    assert_eq!(reply.failure, None, "{given}");
    // Each run has a loop device of its own.
    let parsed = |text: &str| {
        let mut arguments: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        for what in ["path", "node"] {
            let value = &mut arguments["devices"]["disk"][what];
            assert!(!value.is_null(), "{text}");
            *value = Value::Null;
        }
        arguments
    };
    for stage in [on_disk(), crate::place::module(Kind::Stage, "write")] {
        let place = place(stage);
        let output = place.path("seen");
        let (inner, typist) = (runner(), Typist { output: &output });
        let runner = ShellRunner::new(&inner, When::Before("*".into()), &typist);
        let io =
            StageIo { output: &|_| (), service_output: &|_| (), interrupt: &Interrupt::new().expect("an eventfd") };
        assert_eq!(runner.run(&place.request, &io).failure, None);
        let seen = fs::read_to_string(output).expect("the shell wrote it");
        assert_eq!(parsed(&seen), parsed(&given));
        assert_eq!(seen.lines().count(), given.lines().count(), "in the same form");
    }
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
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("stages")).expect("a directory");
    let reason = |name: &str, text: &str, mode: &str| {
        let path = directory.path().join("stages").join(name);
        fs::write(&path, text).expect("a file");
        Command::new("chmod").arg(mode).arg(&path).status().expect("chmod is there");
        match Place::on_disk(directory.path(), name, json!({})).fail() {
            StageFailure::Environment(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason("a", "#!/usr/bin/python9 -s\n", "755").contains("the build root has no /usr/bin/python9"));
    assert!(reason("b", "#!/bin/sh\n", "644").contains("may not be executable"));
}
