//! The kernel, the user's rights, devices, memory and disk.

use std::path::Path;

use osbc_executor::probe;

use super::Finding;
use crate::{render, wiring};

/// The kernel that overlays of many layers need.
const KERNEL: (u32, u32) = (6, 7);
/// The file systems that built-in modules mount, and layers.
const FILE_SYSTEMS: [&str; 7] = ["overlay", "ext4", "xfs", "btrfs", "erofs", "squashfs", "vfat"];
/// With less than this, in bytes, hardly any image can be built.
const DISK: u64 = 1 << 30;

/// Looks at all of it. `store` is where results are to be kept; it need not be there.
pub(crate) fn look(store: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), user()];
    findings.extend(rootless());
    findings.push(trial("namespaces", probe::namespaces(), "run as root, in a container with --privileged").needed());
    findings.extend(FILE_SYSTEMS.map(file_system));
    findings.push(layers(store));
    findings.push(trial("loop devices", probe::loop_device(), "`modprobe loop`; in a container also --privileged"));
    findings.push(device_mapper());
    findings.push(kvm());
    let fuse = "`modprobe fuse`; in a container --device /dev/fuse";
    findings.push(trial("fuse", probe::node("/dev/fuse"), fuse));
    findings.push(memory());
    findings.push(disk(store));
    findings
}

/// What came of trying something.
fn trial(name: &str, result: std::io::Result<()>, hint: &str) -> Finding {
    match result {
        Ok(()) => Finding::ok(name, "tried"),
        Err(error) => Finding::missing(name, error.to_string(), hint),
    }
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL {
        Finding::ok("kernel", release).needed()
    } else {
        let (major, minor) = KERNEL;
        Finding::missing("kernel", release, format!("Linux {major}.{minor} or newer; Debian 13 and Fedora 40 have it"))
            .needed()
    }
}

fn user() -> Finding {
    if wiring::is_root() {
        Finding::ok("root", "yes").needed()
    } else {
        Finding::missing("root", "no", "builds need it; `osbc plan`, `graph` and `inspect` do not").needed()
    }
}

/// What a user without root has got for namespaces of their own.
fn rootless() -> Vec<Finding> {
    if wiring::is_root() {
        return Vec::new();
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let switches = [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let off = switches.into_iter().find(|(path, off, _)| read(path).trim() == *off);
    let namespaces = match off {
        Some((path, value, hint)) => Finding::missing("user namespaces", format!("{path} is {value}"), hint),
        None => Finding::ok("user namespaces", "not switched off"),
    };
    let user = rustix::process::getuid().as_raw().to_string();
    let name = read("/etc/passwd").lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user).then(|| name.to_owned())
    });
    let has_range = |path: &str| {
        read(path).lines().filter_map(|line| line.split(':').next()).any(|of| of == user || Some(of) == name.as_deref())
    };
    let ids = match ["/etc/subuid", "/etc/subgid"].into_iter().find(|path| !has_range(path)) {
        None => Finding::ok("subordinate ids", "/etc/subuid and /etc/subgid"),
        Some(path) => Finding::missing(
            "subordinate ids",
            format!("none in {path}"),
            "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`; the package `uidmap` (Debian) or \
             `shadow-utils` (Fedora)",
        ),
    };
    vec![namespaces, ids]
}

fn file_system(name: &str) -> Finding {
    let title = format!("file system {name}");
    let hint = format!(
        "`modprobe {name}`; the module is in the kernel's package (Debian: `linux-image-*`, Fedora: `kernel-modules`)"
    );
    match probe::file_system(name) {
        Ok(true) => Finding::ok(title, "the kernel has it"),
        Ok(false) => Finding::missing(title, "the kernel does not have it", hint),
        // Who may not try can still look.
        Err(error) => {
            let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
            if known.lines().any(|line| line.split_whitespace().next_back() == Some(name)) {
                Finding::ok(title, "the kernel has it")
            } else {
                Finding::missing(title, format!("not loaded, and cannot be tried: {error}"), hint)
            }
        }
    }
}

/// The nearest folder around a store that is there.
fn existing(store: &Path) -> &Path {
    store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

fn layers(store: &Path) -> Finding {
    let folder = existing(store);
    let name = format!("layers in {}", folder.display());
    trial(&name, probe::layers(folder), "results are kept as whole trees; a store on ext4, xfs or btrfs has layers")
}

fn device_mapper() -> Finding {
    let hint = "`modprobe dm_mod`; LVM, LUKS and dm-verity need it";
    trial("device-mapper", probe::node("/dev/mapper/control"), hint)
}

fn kvm() -> Finding {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_flag = flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    match (has_flag, probe::node("/dev/kvm")) {
        (_, Ok(())) => Finding::ok("KVM", "/dev/kvm"),
        (true, Err(error)) => {
            Finding::missing("KVM", format!("/dev/kvm: {error}"), "`modprobe kvm_intel` or `modprobe kvm_amd`")
        }
        (false, Err(_)) => {
            let hint = "switch on virtualisation in the firmware, or nested virtualisation on the host";
            Finding::missing("KVM", "the processor has neither vmx nor svm", hint)
        }
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    match (line("MemAvailable:"), line("MemTotal:")) {
        (Some(free), Some(all)) => {
            Finding::ok("memory", format!("{} of {} free", render::bytes(free), render::bytes(all)))
        }
        _ => Finding::missing("memory", "/proc/meminfo does not tell", ""),
    }
}

fn disk(store: &Path) -> Finding {
    let folder = existing(store);
    let name = format!("disk for {}", store.display());
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
            let detail = format!("{} of {} free", render::bytes(free), render::bytes(all));
            if free < DISK {
                Finding::missing(name, detail, "make room, or name another store with --store")
            } else {
                Finding::ok(name, detail)
            }
        }
        Err(error) => Finding::missing(name, error.to_string(), "name another store with --store"),
    }
}
