//! What a stage finds around itself, as data: the sandbox's root, its environment, its capabilities.
//!
//! Makes no system call; `root` and `confine` carry it out.

use std::collections::HashSet;
use std::str::FromStr;

use caps::Capability;

/// Where the stage's tree lies in the sandbox.
pub(crate) const TREE: &str = "/run/osbuild/tree";
/// Where its inputs lie, one directory each.
pub(crate) const INPUTS: &str = "/run/osbuild/inputs";
/// Where its mounts lie.
pub(crate) const MOUNTS: &str = "/run/osbuild/mounts";
/// Where its devices' nodes lie.
pub(crate) const DEVICES: &str = "/dev";
/// Where the processes of the sandbox are seen, relative to its root.
pub(crate) const PROCESSES: &str = "proc";
/// What `/proc/cmdline` says.
pub(crate) const CMDLINE: &str = "root=/dev/osbuild\n";
/// What the kernel says of the machine and its devices, relative to the root.
pub(crate) const SYSTEM: &str = "sys";
/// The directory of the sandbox's own things, relative to the root.
pub(crate) const OWN: &str = "run/osbuild";
/// Where an on-disk module writes its metadata, in [`OWN`].
pub(crate) const META: &str = "meta";
/// Where an on-disk module lies.
pub(crate) const BIN: &str = "/run/osbuild/bin";
/// Where its runner lies.
pub(crate) const RUNNER: &str = "/run/osbuild/runner";
/// Where the directory of its modules lies, and in it the Python library.
pub(crate) const LIB: &str = "/run/osbuild/lib";
/// Where its arguments lie, and the sockets at which it asks and reports.
pub(crate) const API: &str = "/run/osbuild/api";
/// What the machine is called.
pub(crate) const HOSTNAME: &str = "localhost";

/// One thing in the sandbox's root. Paths are relative to it; the directory around them exists or is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// A directory of this mode.
    Directory { at: &'static str, mode: u32 },
    /// An empty file that anybody may write to: for the metadata of on-disk modules.
    File { at: &'static str },
    /// A symbolic link.
    Link { at: &'static str, to: &'static str },
    /// An empty directory in memory of this mode, mounted by itself. Device nodes work in it where `devices`.
    Memory { at: &'static str, mode: u32, devices: bool },
    /// Pseudo terminals of the sandbox's own.
    Terminals { at: &'static str },
    /// A character device for everybody; only where the host's `/dev` has it when `optional`. Without root it is the
    /// host's.
    Node { at: &'static str, major: u32, minor: u32, optional: bool },
    /// The processes of the sandbox, with `/proc/cmdline` replaced and what is dangerous to write read-only.
    Processes { at: &'static str },
    /// What the kernel shows at `/sys`, read-only and with the network of the sandbox.
    System { at: &'static str },
    /// A directory or file of the build root at the same path, read-only; left out where the build root has none.
    BuildRoot { at: &'static str, when: When },
}

/// Which build roots something is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// From all that have it, wherever links in the build root lead.
    Found,
    /// From all where it is a real directory.
    Directory,
    /// From build pipelines where it is a real directory, never from the host.
    DirectoryOfPipeline,
}

/// The sandbox's root, in the order in which it is made. The stage's tree, inputs, mounts and `/var` come on top.
///
/// `/dev` has no more than osbuild's: modules make links such as `/dev/fd` there themselves, and fail where one is.
pub(crate) const ROOT: &[Item] = &[
    Item::BuildRoot { at: "boot", when: When::DirectoryOfPipeline },
    Item::BuildRoot { at: "usr", when: When::Directory },
    Item::Link { at: "lib", to: "usr/lib" },
    Item::Link { at: "lib64", to: "usr/lib64" },
    Item::Link { at: "bin", to: "usr/bin" },
    Item::Link { at: "sbin", to: "usr/sbin" },
    // Not 1777: the kernel's protection of sticky directories would keep a shell from writing to /dev/null.
    Item::Memory { at: "dev", mode: 0o755, devices: true },
    Item::Node { at: "dev/null", major: 1, minor: 3, optional: false },
    Item::Node { at: "dev/zero", major: 1, minor: 5, optional: false },
    Item::Node { at: "dev/full", major: 1, minor: 7, optional: false },
    Item::Node { at: "dev/random", major: 1, minor: 8, optional: false },
    Item::Node { at: "dev/urandom", major: 1, minor: 9, optional: false },
    Item::Node { at: "dev/tty", major: 5, minor: 0, optional: false },
    Item::Node { at: "dev/fuse", major: 10, minor: 229, optional: true },
    Item::Memory { at: "dev/shm", mode: 0o1777, devices: false },
    Item::Directory { at: "etc", mode: 0o755 },
    Item::Memory { at: "run", mode: 0o755, devices: false },
    Item::Memory { at: "tmp", mode: 0o1777, devices: false },
    Item::Processes { at: PROCESSES },
    Item::System { at: SYSTEM },
    Item::BuildRoot { at: "etc/mke2fs.conf", when: When::Found },
    Item::BuildRoot { at: "etc/containers", when: When::Found },
    Item::BuildRoot { at: "ostree", when: When::Found },
    Item::BuildRoot { at: "etc/selinux", when: When::Found },
    Item::Directory { at: "var", mode: 0o755 },
    Item::Directory { at: "run/osbuild/tree", mode: 0o755 },
    Item::Directory { at: "run/osbuild/inputs", mode: 0o755 },
    Item::Directory { at: "run/osbuild/mounts", mode: 0o755 },
    Item::File { at: "run/osbuild/meta" },
];

/// What a stage with a shell in its place finds besides.
pub(crate) const FOR_SHELLS: &[Item] =
    &[Item::Terminals { at: "dev/pts" }, Item::Link { at: "dev/ptmx", to: "pts/ptmx" }];

/// What a container's `/sys` hides and a stage's does not: tools that make file systems look there for their device.
pub(crate) const SHOWN: &str = "/sys/dev/block";

/// The capabilities that every stage has.
pub(crate) const CAPABILITIES: [Capability; 19] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_NICE,
    Capability::CAP_SYS_RESOURCE,
];

/// The capabilities of a stage whose module asks for `more`.
///
/// # Errors
/// The name of one that does not exist.
pub(crate) fn capabilities(more: &[String]) -> Result<HashSet<Capability>, String> {
    let mut wanted: HashSet<Capability> = CAPABILITIES.into();
    for name in more {
        wanted.insert(Capability::from_str(name).map_err(|_| name.clone())?);
    }
    Ok(wanted)
}

/// The environment of a stage, complete but for [`epoch_variable`].
pub(crate) fn environment(terminal: &str) -> [(&'static str, &str); 6] {
    [
        ("container", "bwrap-osbuild"),
        ("LC_CTYPE", "C.UTF-8"),
        ("PATH", "/usr/sbin:/usr/bin"),
        ("PYTHONPATH", "/run/osbuild/lib"),
        ("PYTHONUNBUFFERED", "1"),
        ("TERM", terminal),
    ]
}

/// The variable of the environment that stages with a source epoch have besides.
pub(crate) fn epoch_variable(source_epoch: Option<i64>) -> Option<(&'static str, String)> {
    source_epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_complete_and_has_an_epoch_only_where_set() {
        let usual = ["container", "LC_CTYPE", "PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "TERM"];
        assert_eq!(environment("dumb").map(|(name, _)| name), usual);
        assert!(environment("vt100").contains(&("TERM", "vt100")));
        assert_eq!(epoch_variable(None), None);
        assert_eq!(epoch_variable(Some(-5)), Some(("SOURCE_DATE_EPOCH", "-5".to_owned())));
    }

    #[test]
    fn a_module_gets_what_it_asks_for_on_top() {
        let usual = capabilities(&[]).expect("known names");
        assert_eq!(usual.len(), 19);
        let more = capabilities(&["CAP_MAC_ADMIN".to_owned()]).expect("known names");
        assert_eq!(more.difference(&usual).collect::<Vec<_>>(), [&Capability::CAP_MAC_ADMIN]);
        assert_eq!(capabilities(&["CAP_MAGIC".to_owned()]), Err("CAP_MAGIC".to_owned()));
    }

    #[test]
    fn directories_come_before_what_lies_in_them() {
        let made = |item: &Item| match *item {
            Item::Directory { at, .. } | Item::Memory { at, .. } | Item::Processes { at } | Item::System { at } => {
                Some(at)
            }
            _ => None,
        };
        for (index, item) in ROOT.iter().enumerate() {
            let Some(at) = made(item) else { continue };
            let inside = |other: &Item| match *other {
                Item::Directory { at: path, .. }
                | Item::File { at: path }
                | Item::Link { at: path, .. }
                | Item::Memory { at: path, .. }
                | Item::Terminals { at: path }
                | Item::Node { at: path, .. }
                | Item::Processes { at: path }
                | Item::System { at: path }
                | Item::BuildRoot { at: path, .. } => path.starts_with(&format!("{at}/")),
            };
            assert!(!ROOT[..index].iter().any(inside), "something in {at} would be hidden");
        }
    }
}
