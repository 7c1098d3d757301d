//! What a stage finds in its sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use osbc_module_api::{OnDisk, Value, json};
use osbc_sandbox::request::StageFailure;
use osbc_store::TreeStack;

use crate::harness::tests;
use crate::place::Place;

tests![
    root_environment_and_identity,
    root_capabilities_are_those_of_the_contract,
    root_asked_for_capabilities_come_on_top,
    root_files_and_mounts_of_the_root,
    root_everything_but_tree_var_and_scratch_is_read_only,
    root_the_network_is_the_loopback_interface,
    root_dangerous_calls_are_refused_and_needed_ones_are_not,
    root_a_build_root_gives_its_usr_boot_and_configuration,
    root_links_in_a_build_root_stay_inside,
    root_modules_that_do_not_exist_or_do_not_fit_are_named,
];

fn described() -> Value {
    Place::new("describe", json!({})).succeed()
}

fn root_environment_and_identity() {
    let mut place = Place::new("describe", json!({}));
    place.request.source_epoch = Some(1234);
    let seen = place.succeed();
    let expected = json!({
        "LC_CTYPE": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin",
        "PYTHONPATH": "/run/osbuild/lib",
        "PYTHONUNBUFFERED": "1",
        "SOURCE_DATE_EPOCH": "1234",
        "TERM": "vt100",
        "container": "bwrap-osbuild",
    });
    assert_eq!(seen["environment"], expected);
    assert_eq!(seen["meta"], json!({"id": "the-id", "source_epoch": 1234}));
    // Nothing has to be taken down, so no other process waits for that.
    assert_eq!((&seen["pid"], &seen["processes"], &seen["session"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(seen["uname"], "localhost");
    assert_eq!(
        (&seen["directory"], &seen["stdin"], &seen["umask"]),
        (&json!("/"), &json!("/dev/null"), &json!("0022"))
    );
    let mut open: Vec<&str> =
        seen["descriptors"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    open.sort_unstable();
    // What was open where osbc was started and what the helper has open is not; one is what lists them, one is for the
    // reply.
    assert_eq!(open.len(), 3, "{open:?}");
    assert_eq!(open[..2], ["/proc/1/fd", "/run/osbuild/tree"]);
    assert!(open[2].starts_with("socket:"), "{open:?}");
    assert!(described()["environment"]["SOURCE_DATE_EPOCH"].is_null());
}

/// A set of capabilities as the kernel prints it, less those that we do not have ourselves.
fn mask(numbers: &[u32]) -> String {
    let ours = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let ours = ours.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("the kernel prints it").trim();
    let ours = u64::from_str_radix(ours, 16).expect("a hexadecimal number");
    format!("{:016x}", numbers.iter().map(|number| 1 << number).sum::<u64>() & ours)
}

// Of <linux/capability.h>, in the order of the contract.
const USUAL: [u32; 19] = [29, 0, 1, 2, 3, 4, 14, 9, 32, 27, 10, 31, 6, 8, 7, 21, 18, 23, 24];

fn root_capabilities_are_those_of_the_contract() {
    let seen = described();
    let usual = mask(&USUAL);
    let bounding = seen["capabilities"][3].as_str().expect("a number").to_owned();
    assert_eq!(seen["capabilities"], json!([usual, usual, usual, bounding]));
    let all_of_contract = format!("{:016x}", USUAL.iter().map(|number| 1u64 << number).sum::<u64>());
    assert!(bounding == usual || bounding == all_of_contract, "{bounding}");
    assert_eq!((&seen["no_new_privs"], &seen["seccomp"]), (&json!("1"), &json!("2")));
}

fn root_asked_for_capabilities_come_on_top() {
    let mut place = Place::new("describe", json!({}));
    place.request.capabilities = vec!["CAP_MAC_ADMIN".into(), "CAP_NET_ADMIN".into()];
    assert_eq!(place.succeed()["capabilities"][0], mask(&[&USUAL[..], &[33, 12]].concat()));
    place.request.capabilities = vec!["CAP_MAGIC".into()];
    let reason = "cannot enter the sandbox: there is no capability CAP_MAGIC".to_owned();
    assert_eq!(place.fail(), StageFailure::Environment(reason));
}

fn root_files_and_mounts_of_the_root() {
    let seen = described();
    assert_eq!(
        seen["root"],
        json!(["bin", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr", "var"])
    );
    assert_eq!(seen["links"], json!(["usr/lib", "usr/lib64", "usr/bin", "usr/sbin"]));
    assert_eq!(seen["run"], json!(["inputs", "meta", "mounts", "tree"]));
    assert_eq!(seen["cmdline"], "root=/dev/osbuild\n");
    assert_eq!((&seen["var_tmp"], &seen["tmp"]), (&json!("1777"), &json!("1777")));

    let mut nodes = json!({
        "full": [1, 7, "666"], "null": [1, 3, "666"], "random": [1, 8, "666"], "tty": [5, 0, "666"],
        "urandom": [1, 9, "666"], "zero": [1, 5, "666"], "shm": "1777",
    });
    if Path::new("/dev/fuse").exists() {
        nodes["fuse"] = json!([10, 229, "666"]);
    }
    assert_eq!(seen["nodes"], nodes);

    let mounts = seen["mounts"].as_object().expect("an object");
    let is = |place: &str, kind: Option<&str>, flags: &[&str]| {
        let mount = mounts.get(place).unwrap_or_else(|| panic!("{place} is no mount"));
        assert!(kind.is_none_or(|kind| mount["type"] == kind), "{place}: {mount}");
        let of_mount: Vec<&str> = mount["flags"].as_str().expect("text").split(',').collect();
        assert!(flags.iter().all(|flag| of_mount.contains(flag)), "{place}: {mount}");
    };
    is("/", Some("tmpfs"), &["rw", "nosuid", "nodev"]);
    is("/usr", None, &["ro", "nosuid", "nodev"]);
    is("/run", Some("tmpfs"), &["rw", "nosuid", "nodev"]);
    is("/tmp", Some("tmpfs"), &["rw", "nosuid", "nodev"]);
    is("/var", None, &["rw", "nosuid", "nodev"]);
    is("/dev", Some("tmpfs"), &["rw", "nosuid"]);
    assert!(!mounts["/dev"]["flags"].as_str().expect("text").contains("nodev"));
    is("/dev/shm", Some("tmpfs"), &["rw", "nosuid", "nodev"]);
    is("/proc", Some("proc"), &["nosuid", "nodev", "noexec"]);
    is("/proc/cmdline", Some("tmpfs"), &["ro"]);
    is("/sys", Some("sysfs"), &["ro", "nosuid", "nodev"]);
    is("/run/osbuild/tree", None, &["rw", "nosuid", "nodev"]);
    is("/run/osbuild/inputs", None, &["ro", "nosuid", "nodev"]);
    // Nothing of the host shows besides.
    let known = ["/usr", "/sys", "/dev/", "/proc/", "/etc/", "/run/osbuild/", "/ostree"];
    let single = ["/", "/run", "/tmp", "/var", "/dev", "/proc"];
    let other = mounts.keys().filter(|at| !single.contains(&at.as_str()) && !known.iter().any(|k| at.starts_with(k)));
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&String>::new());
}

fn root_everything_but_tree_var_and_scratch_is_read_only() {
    let script = "for path in /usr/x /usr/bin/x /run/osbuild/inputs/x /proc/cmdline /sys/x /proc/sys/x; do \
                      if touch $path 2>/dev/null; then echo $path is writable; exit 1; fi; \
                  done; \
                  for path in /run/osbuild/tree/x /run/osbuild/mounts/x /run/osbuild/meta /var/x /var/tmp/x /tmp/x /etc/x; do \
                      touch $path; \
                  done";
    let place = Place::new("shell", json!({"script": script}));
    place.succeed();
    assert!(place.tree().join("x").exists());
    assert!(place.request.scratch.join("var/x").exists());
}

fn root_the_network_is_the_loopback_interface() {
    let seen = described();
    assert_eq!(seen["networks"], json!(["lo"]));
    assert_eq!(seen["loopback"], true);
}

fn root_dangerous_calls_are_refused_and_needed_ones_are_not() {
    let place = Place::new("calls", json!({}));
    let (reply, output) = place.run();
    let refused = reply.metadata["refused"].as_object().expect("the stage succeeds").clone();
    assert!(refused.values().all(|error| *error == libc::EPERM), "{refused:?}");
    assert_eq!(reply.metadata["script"], 0, "{output}");
}

/// A build root in `directory` with what a stage sees of it.
fn build_root(place: &Place) -> TreeStack {
    let root = place.path("root");
    for directory in ["usr/bin", "boot/efi", "etc/containers", "etc/selinux", "ostree/repo", "home"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    for file in
        ["usr/bin/tool", "boot/kernel", "etc/mke2fs.conf", "etc/containers/policy.json", "etc/passwd", "home/file"]
    {
        fs::write(root.join(file), file).expect("a file");
    }
    TreeStack { lower: vec![root], upper: None }
}

fn root_a_build_root_gives_its_usr_boot_and_configuration() {
    let mut place = Place::new("list", json!({"directory": "/"}));
    place.request.build_root = Some(build_root(&place));
    let seen = place.succeed();
    for file in ["usr/bin/tool", "boot/kernel", "etc/mke2fs.conf", "etc/containers/policy.json"] {
        assert_eq!(seen[file], file);
    }
    let seen = seen.as_object().expect("an object");
    assert!(seen.contains_key("etc/selinux") && seen.contains_key("ostree/repo"));
    // Not that of the build root: what a stage needs to know is written anew.
    assert_eq!(seen["etc/passwd"], "root:x:0:0:root:/root:/bin/bash\n");
    assert!(!seen.contains_key("home"));
}

fn root_links_in_a_build_root_stay_inside() {
    let mut place = Place::new("list", json!({"directory": "/"}));
    let stack = build_root(&place);
    let root = &stack.lower[0];
    let outside = place.path("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("secret"), "secret").expect("a file");
    for directory in ["boot", "etc/containers", "ostree"] {
        fs::remove_dir_all(root.join(directory)).expect("it is there");
    }
    symlink(&outside, root.join("boot")).expect("a link");
    symlink("/etc/real", root.join("etc/containers")).expect("a link");
    fs::create_dir(root.join("etc/real")).expect("a directory");
    fs::write(root.join("etc/real/inside"), "inside").expect("a file");
    symlink("../../../../../../../..".to_owned() + &outside.to_string_lossy(), root.join("ostree")).expect("a link");
    place.request.build_root = Some(stack);
    let seen = place.succeed();
    let seen = seen.as_object().expect("an object");
    assert_eq!(seen["etc/containers/inside"], "inside");
    assert!(!seen.contains_key("boot") && !seen.contains_key("ostree"));
    assert!(!seen.values().any(|content| content == "secret"));
}

fn root_modules_that_do_not_exist_or_do_not_fit_are_named() {
    let reason = |place: &Place| match place.fail() {
        StageFailure::Environment(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&Place::new("nothing", json!({}))), "there is no built-in module nothing");
    let mut place = Place::new("write", json!({}));
    let on_disk = OnDisk { file: "/nowhere/stages/write".into(), libdir: "/nowhere".into(), package: None };
    place.request.module.on_disk = Some(on_disk);
    assert!(reason(&place).contains("cannot open /nowhere/stages/write: No such file"));
    let mut place = Place::new("write", json!({}));
    place.request.module.kind = osbc_module_api::Kind::Device;
    place.request.module.name = "loop".into();
    assert_eq!(reason(&place), "loop is no stage");
}
