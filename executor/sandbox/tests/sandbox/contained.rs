//! What stages cannot reach, tried: `fixtures/hostile/stages/org.example.probe` goes every way out of the sandbox that
//! is known.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use osbc_fixtures::{hostile_libdir, libdir};
use osbc_module_api::loopdev::{Config, LoopDevice};
use osbc_module_api::{InputOrigin, Kind, Value, json};
use osbc_sandbox::request::{InputRequest, ReferenceFrom, ReferenceRequest};
use osbc_store::TreeStack;
use rustix::fs::{major, minor};

use crate::harness::tests;
use crate::place::{Place, on_disk};

tests![
    root_an_on_disk_stage_reaches_nothing,
    root_a_tool_of_the_build_root_reaches_nothing,
    root_an_on_disk_stage_changes_no_input,
    root_an_on_disk_stage_mounts_what_it_needs,
    root_what_an_on_disk_stage_left_is_not_followed,
];

/// What an on-disk stage reaches by design: `CAP_SYS_RESOURCE` is among the capabilities that osbuild's contract gives,
/// and the kernel asks for nothing else.
const BY_DESIGN: [&str; 1] = ["spared-when-memory-runs-out"];

/// What a tool reaches as a container does: podman's profile lets user namespaces and such sockets be.
const AS_CONTAINERS: [&str; 3] = ["user-namespace", "user-namespace-by-clone", "virtual-sockets"];

/// A key of the host's user, while it lives.
struct Key {
    name: String,
    serial: libc::c_long,
}

impl Key {
    fn add(name: &str) -> Self {
        let description = std::ffi::CString::new(name).expect("no zero");
        #[expect(unsafe_code, reason = "no dependency wraps keys")]
        // SAFETY: both texts are terminated and the content is as long as is said.
        let serial =
            unsafe { libc::syscall(libc::SYS_add_key, c"user".as_ptr(), description.as_ptr(), c"x".as_ptr(), 1, -4) };
        assert!(serial > 0, "{}", std::io::Error::last_os_error());
        Self { name: name.to_owned(), serial }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        const UNLINK: libc::c_long = 9;
        #[expect(unsafe_code, reason = "no dependency wraps keys")]
        // SAFETY: the call reads no memory.
        unsafe {
            libc::syscall(libc::SYS_keyctl, UNLINK, self.serial, -4)
        };
    }
}

/// A place for the probe, with an item and a tree as inputs.
fn probe(options: Value) -> Place {
    let mut place = Place::on_disk(&hostile_libdir(), "org.example.probe", options);
    let (items, tree) = (place.path("sources/org.example.text"), place.path("other"));
    fs::create_dir_all(&items).expect("a directory");
    fs::write(items.join("sha256:1"), "an item").expect("an item");
    fs::create_dir_all(&tree).expect("a directory");
    fs::write(tree.join("file"), "of a tree").expect("a file");
    let module = on_disk(&libdir(), Kind::Input, "org.example.files");
    let reference = |id: &str, options, from| ReferenceRequest { id: id.into(), options, from };
    let input = |name: &str, origin, reference| InputRequest {
        name: name.into(),
        module: module.clone(),
        origin,
        references: vec![reference],
        options: json!({}),
    };
    let item = ReferenceFrom::Item(items.join("sha256:1"));
    let stack = ReferenceFrom::Tree(TreeStack { lower: vec![tree], upper: None });
    place.request.inputs = vec![
        input("item", InputOrigin::Source, reference("sha256:1", json!({"name": "item"}), item)),
        input("tree", InputOrigin::Pipeline, reference("id", json!({"file": "/file", "name": "file"}), stack)),
    ];
    place
}

/// What the probe must not reach, while it lives.
struct Targets {
    key: Key,
    device: LoopDevice,
    _nodes: tempfile::TempDir,
}

impl Targets {
    fn new(name: &str) -> Self {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 20).expect("a size");
        let nodes = tempfile::tempdir().expect("a directory");
        let device = LoopDevice::attach(&file, &Config::default(), nodes.path()).expect("there is a free one");
        Self { key: Key::add(name), device, _nodes: nodes }
    }

    /// The probe's options in a place.
    fn options(&self, place: &Place, file: &str) -> Value {
        let number: u32 = self.device.name().trim_start_matches("loop").parse().expect("a number");
        let disk = fs::metadata(env!("CARGO_MANIFEST_DIR")).expect("is there").dev();
        let disk = [major(disk), minor(disk)];
        json!({"disk": disk, "loop": number, "key": self.key.name, "file": file, "hidden": place.directory()})
    }
}

/// Nothing was reached but these; and what was refused was refused for its own reason, not because it could not be
/// tried.
fn assert_reached(seen: &Value, allowed: &[&str], refused: &[&str]) {
    let results = seen.as_object().expect("an object");
    assert!(results.len() > 50, "{seen}");
    let reached = results.iter().filter(|(_, result)| *result == "reached").map(|(way, _)| way.as_str());
    let reached: BTreeSet<&str> = reached.filter(|way| !allowed.contains(way)).collect();
    assert_eq!(reached, BTreeSet::new(), "{seen}");
    for way in refused {
        assert!(["EPERM", "EACCES", "EROFS"].contains(&seen[way].as_str().expect("text")), "{way}: {}", seen[way]);
    }
}

fn root_an_on_disk_stage_reaches_nothing() {
    let targets = Targets::new(&format!("osbc-test-{}", std::process::id()));
    let mut place = probe(json!({}));
    place.request.options = targets.options(&place, "/run/osbuild/inputs/item/item");
    let refused = ["usr-by-remount", "file-by-remount", "core-pattern-by-new-proc", "disk-of-the-host"];
    assert_reached(&place.succeed(), &BY_DESIGN, &refused);
    // A mount namespace of the stage's own making is no user namespace's.
    place.request.options["apart"] = json!(true);
    fs::remove_dir_all(&place.request.scratch).expect("removes the scratch directory");
    fs::create_dir(&place.request.scratch).expect("makes it anew");
    assert_reached(&place.succeed(), &BY_DESIGN, &refused);
}

fn root_a_tool_of_the_build_root_reaches_nothing() {
    let targets = Targets::new(&format!("osbc-tool-{}", std::process::id()));
    let mut place = Place::new("tool", json!({}));
    let program = place.tree().join("probe");
    fs::copy(hostile_libdir().join("stages/org.example.probe"), &program).expect("copies");
    let options = targets.options(&place, "/usr/bin/env").to_string();
    place.request.options = json!({"words": ["/run/osbuild/tree/probe", options]});
    let refused = ["usr-by-remount", "core-pattern-by-new-proc", "disk-of-the-host", "mount-namespaces-of-others"];
    assert_reached(&place.succeed(), &AS_CONTAINERS, &refused);
}

fn stage(directory: &Path, text: &str) -> Place {
    let stages = directory.join("stages");
    fs::create_dir_all(&stages).expect("a directory");
    let file = stages.join("stage");
    fs::write(&file, format!("#!/bin/bash\nset -eux\n{text}")).expect("a stage");
    rustix::fs::chmod(&file, rustix::fs::Mode::from_raw_mode(0o755)).expect("a mode");
    Place::on_disk(directory, "stage", json!({}))
}

fn root_an_on_disk_stage_changes_no_input() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut place = probe(json!({}));
    place.request.module = stage(
        directory.path(),
        "for at in /run/osbuild/inputs /run/osbuild/inputs/*/*; do mount -o remount,bind,rw $at || true; done\n\
         for at in /run/osbuild/inputs/*/*; do umount $at || umount -l $at || true; done\n\
         for at in /run/osbuild/inputs/*/*; do ! echo evil > $at; done\n",
    )
    .request
    .module;
    place.succeed();
    for (file, text) in [("sources/org.example.text/sha256:1", "an item"), ("other/file", "of a tree")] {
        assert_eq!(fs::read_to_string(place.path(file)).expect("is there"), text);
    }
}

/// What stages of osbuild do that run programs of their tree, and a little more.
const MOUNTS: &str = r"
root=/run/osbuild/tree/root
mkdir -p $root/proc $root/sys $root/dev $root/usr $root/mnt $root/dev2
mount -t proc -o nosuid,noexec,nodev proc $root/proc
mount -t sysfs -o nosuid,noexec,nodev sysfs $root/sys
mount -t devtmpfs -o mode=0755,noexec,nosuid,strictatime devtmpfs $root/dev
mount --bind /usr $root/usr
for name in bin sbin lib lib64; do ln -s usr/$name $root/$name; done
chroot $root /bin/sh -c 'echo x > /dev/null && test -r /proc/self/status && test -d /sys/class/net/lo'
# As another process there sees it, and below another root.
chroot $root /bin/mount -t tmpfs none /mnt
touch $root/mnt/file
mount --bind $root/mnt $root/dev2
mount -o remount,bind,ro $root/dev2
! touch $root/dev2/other
! mount -o remount,nodev /usr
cd $root && mount --bind mnt dev2 && test -e dev2/file
mkdir /var/tmp/lower /var/tmp/upper /var/tmp/work /tmp/merged && touch /var/tmp/lower/low
mount -t overlay -o lowerdir=/var/tmp/lower,upperdir=/var/tmp/upper,workdir=/var/tmp/work none /tmp/merged
test -e /tmp/merged/low && touch /tmp/merged/up && test -e /var/tmp/upper/up
unshare --mount --pid --fork /bin/mount -t tmpfs none /mnt 2>/dev/null || unshare --mount /bin/mount -t tmpfs none /tmp/merged
! setpriv --bounding-set -sys_admin --inh-caps -sys_admin /bin/mount -t tmpfs none /tmp/merged
! mount -t tmpfs none /nowhere
umount /tmp/merged $root/dev2 $root/dev2 $root/mnt
umount --lazy $root/proc $root/sys $root/dev && umount $root/usr
! mountpoint -q $root/usr
";

fn root_an_on_disk_stage_mounts_what_it_needs() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = stage(directory.path(), MOUNTS);
    place.succeed();
}

fn root_what_an_on_disk_stage_left_is_not_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("meta");
    fs::write(&secret, r#"{"of": "the host"}"#).expect("a file");
    let secret = directory.path().display();
    for (text, expected) in [
        (format!("mv /run/osbuild /run/moved\nln -s {secret} /run/osbuild\n"), Some(Value::Null)),
        (format!("rm /run/osbuild/meta\nln -s {secret}/meta /run/osbuild/meta\n"), None),
        (format!("rm /run/osbuild/meta\nmkdir /run/osbuild/d\nln -s {secret} /run/osbuild/meta\n"), None),
    ] {
        let libdir = tempfile::tempdir().expect("a directory");
        let (reply, output) = stage(libdir.path(), &text).run();
        match expected {
            Some(metadata) => assert_eq!((reply.failure, reply.metadata), (None, metadata), "{output}"),
            None => {
                let failure = reply.failure.expect("there is none to be read").to_string();
                assert!(failure.starts_with("cannot read the metadata that it wrote: "), "{failure}");
                assert_eq!(reply.metadata, Value::Null);
            }
        }
    }
}
