//! The live system of a small CoreOS: image, kernel, initrd and root, made by the host's tools and a stand-in for the
//! system's own `coreos-installer`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use osbc_fixtures::{has_file, has_root, has_tool};
use serde_json::{Value, json};

use crate::harness::{Place, checksum, leftovers};

const INSTALLER: &str = "#!/bin/sh
set -e
busybox test -d /run/osbuild
case \"$2\" in
  osmet) for word; do last=$word; done; busybox test -b \"$3\"; echo \"$5\" >\"$last\" ;;
  minimal-iso) busybox test -s \"$3\"; busybox rm \"$4\" ;;
esac
";

const MENU: &str = "linux /vmlinuz @@KERNEL-ARGS@@ ######################## COREOS_KARG_EMBED_AREA\n";

/// The files of the system, and those of its disk.
fn system(place: &Place) -> (Vec<u8>, Vec<u8>) {
    let directory = place.path("system");
    for name in ["dev", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(directory.join(name)).expect("writable");
    }
    let busybox = fs::read("/bin/busybox").expect("it was found");
    let files: &[(&str, &[u8])] = &[
        ("usr/bin/busybox", &busybox),
        ("bin/sh", &busybox),
        ("usr/bin/coreos-installer", INSTALLER.as_bytes()),
        ("etc/os-release", b"ID=fedora\nVARIANT_ID=\"coreos\"\nPRETTY_NAME='Fedora CoreOS'\nOSTREE_VERSION=42.1\n"),
        ("usr/lib/modules/6.1/vmlinuz", b"the kernel"),
        ("usr/lib/modules/6.1/initramfs.img", b"the initrd"),
        ("usr/share/coreos-installer/example-config.yaml", b"# Text\nstream: name\n"),
        ("usr/share/coreos-assembler/image.json", b"{\"live-rootfs-fsoptions\": \"-comp gzip\"}"),
        ("usr/share/coreos-assembler/live/EFI/vendor/grub.cfg", MENU.as_bytes()),
        ("usr/share/coreos-assembler/live/isolinux/isolinux.cfg", MENU.as_bytes()),
        ("usr/share/coreos-assembler/live/zipl.prm", b"@@KERNEL-ARGS@@"),
        ("boot/efi/EFI/BOOT/BOOTX64.EFI", b"shim"),
        ("boot/efi/EFI/BOOT/fbx64.efi", b"fallback"),
        ("boot/efi/EFI/fedora/BOOTX64.CSV", b""),
        ("boot/efi/EFI/fedora/shimx64.efi", b"shim"),
        ("boot/efi/EFI/fedora/grubx64.efi", b"grub"),
    ];
    let disk: &[(&str, &[u8])] = &[
        ("ostree/repo/config", b"[core]\n[sysroot]\nreadonly=true\n"),
        ("boot/ostree/fedora-1/vmlinuz-6.1", b"the kernel"),
        ("boot/ostree/fedora-1/.vmlinuz-6.1.hmac", b"sum"),
        ("boot/loader/entries/ostree-1.conf", b"title Fedora\noptions rw console=ttyS0 ostree=/x mitigations=auto\n"),
        (".aleph-version.json", b"{}"),
    ];
    let archive = |directory: &Path, files: &[(&str, &[u8])]| {
        for (path, content) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
            fs::write(&path, content).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is there");
        }
        let tar = Command::new("tar").arg("-C").arg(directory).args(["-cf", "-", "."]).output().expect("tar starts");
        assert!(tar.status.success());
        tar.stdout
    };
    fs::create_dir_all(place.path("disk/boot/efi")).expect("writable");
    (archive(&directory, files), archive(&place.path("disk"), disk))
}

fn manifest(system: &[u8], disk: &[u8]) -> Value {
    let stage = |kind: &str, options: Value| json!({"type": format!("org.osbuild.{kind}"), "options": options});
    let encode = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
    let unpacked = |archive: &[u8]| {
        let id = checksum(archive);
        let mut stage = stage("untar", json!({}));
        stage["inputs"] = json!({"file": {
            "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [id]
        }});
        stage
    };
    // Sectors of the partitions; what is FAT on a real disk is ext4 here, as not every kernel has FAT.
    let parts = [(2048, 2048), (4096, 20480), (24576, 20480), (45056, 40960)];
    let device = |number: usize| {
        let (start, size) = parts[number - 1];
        json!({"type": "org.osbuild.loopback", "options": {"filename": "metal.raw", "start": start, "size": size}})
    };
    let mut table = stage(
        "sfdisk",
        json!({
            "label": "gpt",
            "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
            "partitions": parts.map(|(start, size)| json!({"start": start, "size": size}))
        }),
    );
    table["devices"] = json!({"device": {"type": "org.osbuild.loopback", "options": {"filename": "metal.raw"}}});
    let made = |number| {
        let mut made = stage("mkfs.ext4", json!({"uuid": format!("156f0420-627b-4151-ae6f-fda298097{number:03}")}));
        made["devices"] = json!({ "device": device(number) });
        made
    };
    let mut filled = stage("copy", json!({"paths": [{"from": "input://disk/", "to": "mount://root/"}]}));
    filled["inputs"] = json!({"disk": {
        "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:disk"]
    }});
    filled["devices"] = json!({"efi": device(2), "boot": device(3), "root": device(4)});
    let mount =
        |name: &str, target: &str| json!({"name": name, "type": "org.osbuild.ext4", "source": name, "target": target});
    filled["mounts"] = json!([mount("root", "/"), mount("boot", "/boot")]);
    let mut live = stage(
        "coreos.live-artifacts.mono",
        json!({"filenames": {
            "live-iso": "live.iso", "live-kernel": "kernel", "live-initramfs": "initrd", "live-rootfs": "rootfs"
        }}),
    );
    let metal = json!({
        "type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
        "references": {"name:metal": {"file": "/metal.raw"}}
    });
    live["inputs"] = json!({
        "deployed-tree": {
            "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:deployed-tree"]
        },
        "metal": metal,
        "metal4k": metal
    });
    json!({
        "version": "2",
        "sources": {"org.osbuild.inline": {"items": {
            checksum(system): {"encoding": "base64", "data": encode(system)},
            checksum(disk): {"encoding": "base64", "data": encode(disk)}
        }}},
        "pipelines": [
            {"name": "deployed-tree", "stages": [unpacked(system)]},
            {"name": "disk", "stages": [unpacked(disk)]},
            {"name": "metal", "stages": [
                stage("truncate", json!({"filename": "metal.raw", "size": "48M"})), table, made(2), made(3), made(4), filled
            ]},
            {"name": "live", "stages": [live]}
        ]
    })
}

/// A file of the image.
fn of_iso(iso: &Path, path: &str) -> Vec<u8> {
    let output = Command::new("isoinfo").arg("-i").arg(iso).args(["-R", "-x", path]).output().expect("isoinfo starts");
    assert!(output.status.success() && !output.stdout.is_empty(), "{path}");
    output.stdout
}

#[test]
fn root_a_live_system_is_made_of_a_tree_and_its_disk() {
    let tools = [
        "genisoimage",
        "isoinfo",
        "isohybrid",
        "mksquashfs",
        "cpio",
        "mkfs.fat",
        "mcopy",
        "mtype",
        "mkfs.ext4",
        "sfdisk",
        "busybox",
        "tar",
    ];
    let files = ["/usr/lib/ISOLINUX/isolinux.bin", "/usr/lib/syslinux/modules/bios/ldlinux.c32"];
    if !has_root() || !tools.into_iter().all(has_tool) || !files.into_iter().all(has_file) {
        return;
    }
    let place = Place::new();
    let (system, disk) = system(&place);
    let manifest = place.manifest(&manifest(&system, &disk));
    place.build(&manifest).assert().success();
    let live = place.output().join("live");
    let mut names: Vec<_> =
        fs::read_dir(&live).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["initrd", "kernel", "live.iso", "rootfs"]);

    assert_eq!(fs::read(live.join("kernel")).expect("it is there"), b"the kernel");
    let initrd = fs::read(live.join("initrd")).expect("it is there");
    assert!(
        initrd.starts_with(b"the initrd\x1f\x8b") && initrd.len().is_multiple_of(4),
        "a compressed archive is appended"
    );
    let root = fs::read(live.join("rootfs")).expect("it is there");
    assert!(root.starts_with(b"070701") && root[124..].starts_with(b"hsqs"));
    let iso = live.join("live.iso");
    assert_eq!(of_iso(&iso, "/images/pxeboot/rootfs.img"), root);

    // The arguments of the disk's boot entry, without those that a live system does not take.
    let arguments = "rw mitigations=auto coreos.liveiso=fedora-coreos-42.1";
    let menu = of_iso(&iso, "/EFI/fedora/grub.cfg");
    assert_eq!(String::from_utf8_lossy(&menu), MENU.replace("@@KERNEL-ARGS@@", arguments));
    let areas: Value = serde_json::from_slice(&of_iso(&iso, "/coreos/kargs.json")).expect("it is JSON");
    assert_eq!(areas["default"], arguments);
    assert_eq!(areas["files"][1], json!({"path": "isolinux/isolinux.cfg", "offset": 15, "pad": "#", "end": "\n"}));
    let ignition: Value = serde_json::from_slice(&of_iso(&iso, "/coreos/igninfo.json")).expect("it is JSON");
    assert_eq!(ignition, json!({"file": "images/ignition.img"}));
    let features: Value = serde_json::from_slice(&of_iso(&iso, "/coreos/features.json")).expect("it is JSON");
    assert_eq!(features["installer-config-directives"], json!({"stream": true}));

    let efi = place.file("efiboot.img", &of_iso(&iso, "/images/efiboot.img"));
    let said = Command::new("mtype").arg("-i").arg(efi).arg("::/EFI/BOOT/grub.cfg").output().expect("mtype starts");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("search --label \"fedora-coreos-42.1\"") && said.contains("/EFI/fedora\n"), "{said}");

    // What is in the root: the disk, changed to what a live system needs, and the stamps beside it.
    let squashfs = place.file("root.squashfs", &root[124..]);
    let config = Command::new("unsquashfs").arg("-cat").arg(&squashfs).arg("ostree/repo/config").output();
    assert_eq!(config.expect("unsquashfs starts").stdout, b"[core]\n[sysroot]\n");
    let kernel = Command::new("unsquashfs").arg("-cat").arg(&squashfs).arg("boot/vmlinuz-6.1").output();
    assert_eq!(kernel.expect("unsquashfs starts").stdout, b"the kernel");
    let members = Command::new("cpio").args(["-t", "--quiet", "-F"]).arg(live.join("rootfs")).output();
    let members = String::from_utf8(members.expect("cpio starts").stdout).expect("names are text");
    assert_eq!(members.lines().next(), Some("root.squashfs"));
    assert!(members.contains("metal.raw.osmet\n") && members.contains("etc/coreos-live-rootfs\n"), "{members}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}
