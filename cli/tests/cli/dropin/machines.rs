//! `--in-vm`: stages in virtual machines, with a kernel of Debian's that stands for the host's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use osbc_fixtures::{has_root, has_tool, kernel};
use serde_json::{Value, json};

use super::{copy_tree, link, osbuild, run};
use crate::harness::{Place, leftovers};

/// All that a file system keeps of a tree, and two images with file systems.
const MAKE: &str = "\
cd /run/osbuild/tree
mkdir -p a/b; echo one > a/one; ln a/one a/b/same; ln -s ../a a/link; mkfifo a/pipe; mknod a/null c 1 3
chown 7:8 a/one; chmod 4750 a/one; touch -d @1000000000 a/b
setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= a/b/same
setfattr -n security.selinux -v system_u:object_r:etc_t:s0 a
setfattr -n user.x -v y a
truncate -s 4M disk1; mkfs.ext4 -q disk1; cp disk1 disk2
echo \"made by $(uname --kernel-release)\"
echo x > /usr/x || echo \"/usr is read-only\"
";

/// Whether machines can run here; the kernel's directory.
fn machines() -> Option<std::path::PathBuf> {
    let tools = ["qemu-system-x86_64", "virtiofsd", "setfattr", "mkfs.ext4", "mkfs.fat", "mcopy", "losetup", "python3"];
    (has_root() && tools.iter().all(|tool| has_tool(tool))).then(|| kernel(Path::new(env!("CARGO_TARGET_TMPDIR"))))?
}

/// osbuild where the host's only kernel is `kernel`, with the modules of the directory `lib`.
fn osbuild_with(place: &Place, kernel: &Path) -> Command {
    let script = r#"
        if [ -d /usr/lib/modules ]; then mount --bind "$KERNEL/modules" /usr/lib/modules
        else mount -t overlay overlay -o "lowerdir=$KERNEL:/usr/lib" /usr/lib; fi
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(link(place)).current_dir(place.path(""));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("KERNEL", kernel).env("OSBC_NATIVE", "1");
    command.args(["--libdir", "lib", "m.json"]);
    command
}

/// The modules of the fixtures and some of shell scripts.
fn modules(place: &Place, scripts: &[(&str, &str)]) {
    let copied = Command::new("cp").arg("-a").arg(osbc_fixtures::libdir()).arg(place.path("lib")).status();
    assert!(copied.expect("cp is there").success());
    for (name, script) in scripts {
        let file = place.path("lib/stages").join(name);
        fs::write(&file, format!("#!/bin/sh\nset -eu\n{script}\n")).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("is ours");
        let meta = json!({"summary": "-", "description": [], "schema_2": {}});
        fs::write(place.path("lib/stages").join(format!("{name}.meta.json")), meta.to_string()).expect("writes");
    }
}

/// A manifest of pipelines with these stages.
fn manifest(place: &Place, pipelines: &[(&str, Value)]) {
    let pipelines: Vec<Value> =
        pipelines.iter().map(|(name, stages)| json!({"name": name, "stages": stages})).collect();
    place.file("m.json", json!({"version": "2", "pipelines": pipelines}).to_string().as_bytes());
}

/// What a command prints.
fn printed(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("starts").stdout).expect("text")
}

/// What a file system keeps of a tree, as text.
fn listing(tree: &Path) -> String {
    let script = "find . -printf '%p %M %U:%G %s %n %l\\n' | sort; getfattr -R -h -d -m - . ; \
                  find . -type f -not -name 'disk*' -exec md5sum {} + | sort; stat -c %Y a/b";
    printed(Command::new("sh").args(["-c", script]).current_dir(tree))
}

#[test]
fn root_a_machine_makes_what_the_host_makes_and_has_devices() {
    let Some(kernel) = machines() else { return };
    let place = Place::new();
    modules(&place, &[("org.example.make", MAKE)]);
    let write = json!({
        "type": "org.example.write",
        "options": {"texts": {"/text": "text"}},
        "devices": {
            "one": {"type": "org.example.loop", "options": {"filename": "disk1"}},
            "two": {"type": "org.osbuild.loopback", "options": {"filename": "disk2"}},
        },
        "mounts": [
            {"name": "one", "type": "org.example.ext4", "source": "one", "target": "/one"},
            {"name": "two", "type": "org.osbuild.ext4", "source": "two", "target": "/two"},
        ],
    });
    manifest(&place, &[("tree", json!([{"type": "org.example.make"}, write]))]);
    let build = |output: &str, more: &[&str]| {
        let mut command = osbuild_with(&place, &kernel);
        command
            .args(["--store", &format!("store-{output}"), "--export", "tree", "--output-directory", output])
            .args(more);
        let out = run(command, [""; 0]).with(0);
        (out, listing(&place.path(output).join("tree")))
    };
    let (out, on_host) = build("host", &[]);
    assert!(!out.contains(" in vm"), "{out}");
    let (out, in_machine) = build("machine", &["--in-vm", "tree", "--in-vm", "other"]);
    let release = fs::read_dir(kernel.join("modules")).expect("is there").flatten().next().expect("one").file_name();
    assert!(out.contains(&format!("made by {}\n", release.display())), "{out}");
    assert!(out.contains(" in vm\n") && out.contains("/usr is read-only\n"), "{out}");
    assert!(on_host.contains("security.capability") && on_host.contains("./a/null crw"), "{on_host}");
    assert_eq!(in_machine, on_host);
    for (disk, name) in [("disk1", "one"), ("disk2", "two")] {
        let file = place.path("machine/tree").join(disk);
        assert_eq!(printed(Command::new("/usr/sbin/debugfs").args(["-R", "cat /from-the-stage"]).arg(file)), name);
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_the_kernel_is_that_of_the_build_tree_and_gets_its_modules() {
    let Some(kernel) = machines() else { return };
    let place = Place::new();
    let script = "cd /run/osbuild/tree; mkdir -p usr/lib; cp -a /usr/lib/modules usr/lib; \
                  truncate -s 2M disk; mkfs.fat disk; echo text > file";
    modules(&place, &[("org.example.kernel", script)]);
    // FAT is no part of the kernel itself.
    let mut on_disk = copy_tree("build", "/file", "/");
    on_disk["options"]["paths"][0]["to"] = json!("mount://disk/file");
    on_disk["devices"] = json!({"disk": {"type": "org.osbuild.loopback", "options": {"filename": "disk"}}});
    on_disk["mounts"] = json!([{"name": "disk", "type": "org.osbuild.fat", "source": "disk", "target": "/"}]);
    let pipelines = json!([
        {"name": "build", "stages": [{"type": "org.example.kernel"}]},
        {"name": "tree", "build": "name:build", "stages": [copy_tree("build", "/disk", "/disk"), on_disk]},
    ]);
    place.file("m.json", json!({"version": "2", "pipelines": pipelines}).to_string().as_bytes());
    run(osbuild_with(&place, &kernel), ["--checkpoint", "build", "--export", "build", "--output-directory", "o"])
        .with(0);
    // Where the host has no kernel, or another one.
    let arguments = ["m.json", "--libdir", "lib", "--in-vm", "tree", "--export", "tree", "--output-directory", "o"];
    let out = run(osbuild(&place), arguments).with(0);
    assert!(out.contains(" in vm\n"), "{out}");
    let disk = place.path("o/tree/disk");
    assert_eq!(printed(Command::new("mcopy").arg("-i").arg(disk).args(["::/file", "-"])), "text\n");
}

#[test]
fn root_what_fails_in_a_machine_comes_out_and_one_that_takes_too_long_ends() {
    let Some(kernel) = machines() else { return };
    let place = Place::new();
    let scripts = [("org.example.breaks", "echo it breaks; exit 7"), ("org.example.waits", "sleep 1000")];
    modules(&place, &scripts);
    manifest(
        &place,
        &[("breaks", json!([{"type": "org.example.breaks"}])), ("waits", json!([{"type": "org.example.waits"}]))],
    );
    let build = |pipeline: &str, more: &[&str]| {
        let mut command = osbuild_with(&place, &kernel);
        command.args(["--in-vm", pipeline, "--export", pipeline, "--output-directory", "o", "--json"]).args(more);
        run(command, [""; 0]).document(1)["error"]["details"]["stage"].clone()
    };
    assert_eq!(build("breaks", &[])["output"], "it breaks\n");
    let failed = build("waits", &["--stage-timeout", "1"]);
    assert!(failed["output"].as_str().is_some_and(|output| output.contains("longer than the 1s")), "{failed}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_a_machine_ends_with_osbc() {
    let Some(kernel) = machines() else { return };
    let place = Place::new();
    modules(&place, &[("org.example.waits", "sleep 1000")]);
    manifest(&place, &[("tree", json!([{"type": "org.example.waits"}]))]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut command = osbuild_with(&place, &kernel);
        command.args(["--in-vm", "tree", "--export", "tree", "--output-directory", "o"]);
        let mut osbc = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let path = place.path("").display().to_string();
        let machines = || {
            let processes = fs::read_dir("/proc").expect("is mounted").flatten();
            let is_ours = |directory: &Path| {
                let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
                let mounts = fs::read_to_string(directory.join("mountinfo")).unwrap_or_default();
                (name.starts_with("qemu-system") || name.starts_with("virtiofsd")) && mounts.contains(&path)
            };
            processes.filter(|process| is_ours(&process.path())).count()
        };
        let wait_for = |what: &dyn Fn(usize) -> bool| {
            let end = Instant::now() + Duration::from_secs(60);
            while !what(machines()) {
                assert!(Instant::now() < end, "{} programs of machines", machines());
                sleep(Duration::from_millis(20));
            }
        };
        wait_for(&|count| count >= 2);
        kill(Pid::from_raw(i32::try_from(osbc.id()).expect("an id")), signal).expect("it runs");
        osbc.wait().expect("it ends");
        wait_for(&|count| count == 0);
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_without_a_kernel_the_stage_fails_and_says_which_package_has_one() {
    if !has_root() || !has_tool("qemu-system-x86_64") || !has_tool("virtiofsd") {
        return;
    }
    let place = Place::new();
    let mkdir = json!([{"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/usr"}]}}]);
    let pipelines = json!([
        {"name": "build", "stages": mkdir},
        {"name": "tree", "build": "name:build", "stages": mkdir},
    ]);
    place.file("m.json", json!({"version": "2", "pipelines": pipelines}).to_string().as_bytes());
    let arguments = ["m.json", "--in-vm", "tree", "--export", "tree", "--output-directory", "o"];
    let out = run(osbuild(&place), arguments).with(1);
    assert!(out.contains("the build root has no kernel") && out.contains("`linux-image-cloud-amd64`"), "{out}");

    let out = run(osbuild(&place), arguments.iter().chain(&["--break"])).with(1);
    assert!(out.contains("--break cannot open a shell in a virtual machine"), "{out}");

    // Where the tools are out of sight, nothing is begun.
    let script = r#"for directory in /usr/lib/qemu /usr/libexec; do [ ! -d $directory ] || mount -t tmpfs tmpfs $directory; done; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(link(&place)).current_dir(place.path("")).env_clear();
    let out = run(command, arguments.iter().chain(&["--store", "other"])).with(1);
    assert!(
        out.contains("--in-vm cannot be done: there is no virtiofsd on the host; the package `virtiofsd`"),
        "{out}"
    );
}
