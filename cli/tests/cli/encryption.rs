//! A file system on a loop device, plain and in LVM on LUKS, filled and read back through builds of several stages.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use osbc_fixtures::{has_kernel_feature, has_root, has_tool};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers};

const UUID: &str = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75";

/// How often the file is copied to the file system: together four fifths of what the disk has.
const COPIES: usize = 25;

/// A file of 4 MB in which no block is like another.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..4_000_000 / 8).flat_map(|_| words()).collect()
}

/// Makes the file system on the device `device` of `devices`, fills it, and reads all of it back. Each stage opens the
/// devices anew.
fn manifest(noise: &[u8], before: &[Value], devices: &Value) -> Value {
    let file = checksum(noise);
    let data = base64::engine::general_purpose::STANDARD.encode(noise);
    let mount = json!([{"name": "root", "type": "org.osbuild.ext4", "source": "device", "target": "/"}]);
    let fill = |number| json!({"from": format!("input://files/{file}"), "to": format!("mount://root/part-{number}")});
    let mut stages =
        vec![json!({"type": "org.osbuild.truncate", "options": {"filename": "disk.img", "size": "150000000"}})];
    stages.extend(before.iter().cloned());
    stages.extend([
        json!({"type": "org.osbuild.mkfs.ext4", "devices": devices, "options": {"uuid": UUID}}),
        json!({
            "type": "org.osbuild.copy",
            "devices": devices,
            "mounts": mount,
            "inputs": {"files": {
                "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [&file]
            }},
            "options": {"paths": (0..COPIES).map(fill).collect::<Vec<_>>()}
        }),
        json!({
            "type": "org.osbuild.copy",
            "devices": devices,
            "mounts": mount,
            "options": {"paths": [{"from": "mount://root/", "to": "tree:///read-back"}]}
        }),
    ]);
    json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {&file: {"encoding": "base64", "data": data}}}},
        "pipelines": [{"name": "image", "stages": stages}]
    })
}

/// Builds it, and finds everything intact and nothing left behind.
fn build(before: &[Value], devices: &Value) {
    let (place, noise) = (Place::new(), noise());
    let manifest = place.manifest(&manifest(&noise, before, devices));
    place.build(&manifest).assert().success();
    let back = place.output().join("image/read-back");
    for number in 0..COPIES {
        let content = fs::read(back.join(format!("part-{number}"))).expect("it was read back");
        assert!(content == noise, "part {number} is not what was written");
    }
    assert_eq!(fs::read_dir(&back).expect("it is there").count(), COPIES + 1, "the parts and lost+found");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

fn disk() -> Value {
    json!({"type": "org.osbuild.loopback", "options": {"filename": "disk.img"}})
}

#[test]
fn root_a_file_system_on_a_loop_device_keeps_what_it_was_filled_with() {
    if has_root() && has_tool("mkfs.ext4") {
        build(&[], &json!({"device": disk()}));
    }
}

#[test]
fn root_a_volume_in_a_container_on_a_loop_device_keeps_what_it_was_filled_with() {
    let tools = ["cryptsetup", "dmsetup", "pvcreate", "lvcreate", "lvchange", "mkfs.ext4"];
    if !has_root()
        || !tools.into_iter().all(has_tool)
        || !has_kernel_feature("device-mapper", "/sys/class/misc/device-mapper")
    {
        return;
    }
    let luks = || json!({"type": "org.osbuild.luks2", "parent": "disk", "options": {"passphrase": "secret"}});
    let before = [
        json!({
            "type": "org.osbuild.luks2.format",
            "devices": {"device": disk()},
            "options": {
                "passphrase": "secret", "uuid": UUID,
                "pbkdf": {"method": "argon2i", "memory": 32, "iterations": 4, "parallelism": 1}
            }
        }),
        json!({
            "type": "org.osbuild.lvm2.create",
            "devices": {"disk": disk(), "device": luks()},
            "options": {"volumes": [{"name": "root", "extents": "100%FREE"}]}
        }),
    ];
    let volume = json!({"type": "org.osbuild.lvm2.lv", "parent": "luks", "options": {"volume": "root"}});
    build(&before, &json!({"disk": disk(), "luks": luks(), "device": volume}));
    let names = fs::read_dir(Path::new("/dev/mapper")).expect("it is there").flatten();
    let left: Vec<_> = names.filter(|name| name.file_name().to_string_lossy().starts_with("osbuild-luks")).collect();
    assert!(left.is_empty(), "{left:?}");
}
