//! LVM on LUKS on a loop device carries a file system, through builds of several stages.

use std::fs;
use std::path::Path;

use osbc_fixtures::{has_kernel_feature, has_root, has_tool};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers};

const UUID: &str = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75";

fn manifest() -> Value {
    let file = checksum(b"hello\n");
    let disk = || json!({"type": "org.osbuild.loopback", "options": {"filename": "disk.img"}});
    let luks = || json!({"type": "org.osbuild.luks2", "parent": "disk", "options": {"passphrase": "secret"}});
    let volume = || json!({"type": "org.osbuild.lvm2.lv", "parent": "luks", "options": {"volume": "root"}});
    let mount = || json!([{"name": "root", "type": "org.osbuild.ext4", "source": "root", "target": "/"}]);
    let all = || json!({"disk": disk(), "luks": luks(), "root": volume()});
    json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {&file: {"encoding": "base64", "data": "aGVsbG8K"}}}},
        "pipelines": [{"name": "image", "stages": [
            {"type": "org.osbuild.truncate", "options": {"filename": "disk.img", "size": "128M"}},
            {
                "type": "org.osbuild.luks2.format",
                "devices": {"device": disk()},
                "options": {
                    "passphrase": "secret", "uuid": UUID,
                    "pbkdf": {"method": "argon2i", "memory": 32, "iterations": 4, "parallelism": 1}
                }
            },
            {
                "type": "org.osbuild.lvm2.create",
                "devices": {
                    "disk": disk(),
                    "device": {"type": "org.osbuild.luks2", "parent": "disk", "options": {"passphrase": "secret"}}
                },
                "options": {"volumes": [{"name": "root", "extents": "100%FREE"}]}
            },
            {
                "type": "org.osbuild.mkfs.ext4",
                "devices": {
                    "disk": disk(), "luks": luks(),
                    "device": {"type": "org.osbuild.lvm2.lv", "parent": "luks", "options": {"volume": "root"}}
                },
                "options": {"uuid": UUID}
            },
            {
                "type": "org.osbuild.copy",
                "devices": all(),
                "mounts": mount(),
                "inputs": {"files": {
                    "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [&file]
                }},
                "options": {"paths": [{"from": format!("input://files/{file}"), "to": "mount://root/hello"}]}
            },
            {
                "type": "org.osbuild.copy",
                "devices": all(),
                "mounts": mount(),
                "options": {"paths": [{"from": "mount://root/hello", "to": "tree:///read-back"}]}
            }
        ]}]
    })
}

#[test]
fn root_a_volume_in_a_container_on_a_loop_device_keeps_what_is_written() {
    let tools = ["cryptsetup", "dmsetup", "pvcreate", "lvcreate", "lvchange", "mkfs.ext4"];
    if !has_root()
        || !tools.into_iter().all(has_tool)
        || !has_kernel_feature("device-mapper", "/sys/class/misc/device-mapper")
    {
        return;
    }
    let place = Place::new();
    let manifest = place.manifest(&manifest());
    place.build(&manifest).assert().success();
    let written = fs::read_to_string(place.output().join("image/read-back")).expect("it was read back");
    assert_eq!(written, "hello\n");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    let names = fs::read_dir(Path::new("/dev/mapper")).expect("it is there").flatten();
    let left: Vec<_> = names.filter(|name| name.file_name().to_string_lossy().starts_with("osbuild-luks")).collect();
    assert!(left.is_empty(), "{left:?}");
}
