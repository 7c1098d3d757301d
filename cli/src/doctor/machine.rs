//! The kernel, the user's rights, devices, memory and disk.

use std::path::Path;

use osbc_sandbox::probe;

use super::Finding;
use crate::render;
use crate::rootless::{self, User};

/// The kernel that overlays of many layers need.
const KERNEL: (u32, u32) = (6, 7);
/// The file systems that built-in modules mount, and layers.
const FILE_SYSTEMS: [&str; 7] = ["overlay", "ext4", "xfs", "btrfs", "erofs", "squashfs", "vfat"];
/// The id of `nobody`, and that of the last system users: what a system's packages use is not above.
const LAST_USUAL_ID: u64 = 65_534;
/// With less than this, in bytes, hardly any image can be built.
const DISK: u64 = 1 << 30;

/// Looks at all of it. `store` is where results are to be kept; it need not be there.
pub(crate) fn look(store: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), user()];
    findings.push(trial("namespaces", probe::namespaces(), "in a container, start it with --privileged").needed());
    findings.extend(FILE_SYSTEMS.map(file_system));
    findings.push(layers(store));
    findings.push(loop_devices());
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

/// Who builds here: root, or what a user has got for a namespace of their own.
fn user() -> Finding {
    match rootless::become_root() {
        User::Root => Finding::ok("root", "yes").needed(),
        User::Mapped(ids) if ids.users() <= LAST_USUAL_ID => Finding::missing(
            "builds without root",
            format!("{ids}: packages may use more ids than these"),
            "assign 65536 subordinate ids, with `usermod --add-subuids` and `--add-subgids`",
        ),
        User::Mapped(ids) => Finding::ok("builds without root", format!("in a user namespace, {ids}")).needed(),
        User::Unmapped(obstacle) => {
            Finding::missing("builds without root", obstacle.to_string(), obstacle.remedy()).needed()
        }
    }
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

/// The nearest directory around a store that is there.
fn existing(store: &Path) -> &Path {
    store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

fn layers(store: &Path) -> Finding {
    let directory = existing(store);
    let name = format!("layers in {}", directory.display());
    trial(
        &name,
        probe::layers(directory),
        "results are kept as whole trees; use a store on ext4, xfs or btrfs for layers",
    )
}

fn loop_devices() -> Finding {
    let hint = if rootless::is_root() {
        "`modprobe loop`; in a container also --privileged"
    } else {
        "only root can use them; org.osbc.disk needs none"
    };
    trial("loop devices", probe::loop_device(), hint)
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
        _ => Finding::missing("memory", "/proc/meminfo does not say", ""),
    }
}

fn disk(store: &Path) -> Finding {
    let directory = existing(store);
    let name = format!("disk for {}", store.display());
    match rustix::fs::statvfs(directory) {
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
