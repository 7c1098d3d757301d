//! Tools: of the build root, called by stages, and of the host, called by what works there.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{Builder, JoinHandle};

use rustix::thread::CapabilitySet;

use crate::error::Error;
use crate::host_program::{self, Output};
use crate::rights::Rights;

/// Where a build root keeps its tools; the `PATH` of the sandbox.
pub const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/bin"];

/// Where a host may have more of them.
const HOST_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How much is kept of what a tool says, counted from its end.
const WORDS: usize = 2000;

/// A tool that was found, and the arguments that it will get. What it prints goes to the stage's log.
#[derive(Debug)]
pub struct Tool {
    path: PathBuf,
    command: Command,
    stdin: Vec<u8>,
}

impl Tool {
    /// Looks for `name` in the build root.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(name: &str) -> Result<Self, Error> {
        let mut tool = Self::find_in(&DIRECTORIES, name, "in the build root")?;
        let rights = rights_of(name);
        #[expect(unsafe_code, reason = "rights are given up by what the tool is to become")]
        // SAFETY: it makes system calls and nothing else, which is allowed after a fork of any process.
        unsafe {
            tool.command.pre_exec(move || rights.take());
        }
        Ok(tool)
    }

    /// Looks for `name` on the host, for sources, inputs, devices and mounts.
    ///
    /// # Errors
    /// It is not there.
    pub fn of_host(name: &str) -> Result<Self, Error> {
        Self::find_in(&HOST_DIRECTORIES, name, "on the host")
    }

    fn find_in(directories: &[&str], name: &str, place: &'static str) -> Result<Self, Error> {
        let path = locate(directories, name).ok_or_else(|| Error::MissingTool {
            tool: name.to_owned(),
            place,
            packages: packages_of(name).to_owned(),
        })?;
        let command = Command::new(&path);
        Ok(Self { path, command, stdin: Vec::new() })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What it reads from its standard input; nothing unless given.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = data.into();
        self
    }

    /// Runs it; what it prints goes to the log.
    ///
    /// # Errors
    /// It cannot be started, or does not end with 0.
    pub fn run(mut self) -> Result<(), Error> {
        self.command.stdout(Stdio::inherit());
        self.finish().map(drop)
    }

    /// Runs it and returns what it wrote to its standard output; the rest goes to the log.
    ///
    /// # Errors
    /// It cannot be started, or does not end with 0.
    pub fn output(mut self) -> Result<Vec<u8>, Error> {
        self.command.stdout(Stdio::piped());
        self.finish()
    }

    /// The command, for what the methods above do not offer (streaming its output); standard error goes to the log.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it where there is no log, and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// It cannot be started, or does not end with 0: then with the end of what it said.
    pub fn quiet_output(mut self) -> Result<Vec<u8>, Error> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, feeder) = self.start()?;
        let output = child.wait_with_output().map_err(Error::io("wait for", &self.path))?;
        feeder.map(JoinHandle::join);
        self.judge(output.status, output.stdout, &output.stderr)
    }

    /// Runs it where there is neither a log nor a sandbox.
    ///
    /// Otherwise as [`quiet_output`](Self::quiet_output). It is [contained](host_program::contain), so that it ends
    /// with osbc, and also ends when `interrupted` says so, which is asked from time to time.
    ///
    /// # Errors
    /// It cannot be started, is ended, or does not end with 0: then with the end of what it said.
    pub fn contained_output(mut self, interrupted: &dyn Fn() -> bool) -> Result<Vec<u8>, Error> {
        let ran = host_program::output(&mut self.command, &self.stdin, interrupted);
        match ran.map_err(Error::io("run", &self.path))? {
            None => Err(Error::Interrupted),
            Some(Output { status, stdout, stderr }) => self.judge(status, stdout, &stderr),
        }
    }

    /// What it printed, or why it failed.
    fn judge(&self, status: ExitStatus, stdout: Vec<u8>, stderr: &[u8]) -> Result<Vec<u8>, Error> {
        if status.success() {
            return Ok(stdout);
        }
        // Some say it on the one, some on the other.
        let words = if stderr.is_empty() { &stdout } else { stderr };
        let end = &words[words.len().saturating_sub(WORDS)..];
        let said = String::from_utf8_lossy(end).trim().to_owned();
        Err(Error::ToolRefused { command: self.words(), status, said })
    }

    fn finish(mut self) -> Result<Vec<u8>, Error> {
        let (child, feeder) = self.start()?;
        let output = child.wait_with_output().map_err(Error::io("wait for", &self.path))?;
        feeder.map(JoinHandle::join);
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Error::ToolFailed { command: self.words(), status: output.status })
    }

    /// Starts it, and a thread that feeds it.
    fn start(&mut self) -> Result<(Child, Option<JoinHandle<()>>), Error> {
        self.command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut child = self.command.spawn().map_err(Error::io("start", &self.path))?;
        let data = std::mem::take(&mut self.stdin);
        let feed = |mut pipe: ChildStdin| {
            // A tool that ends without reading all of its input says why by its exit status.
            Builder::new().spawn(move || drop(pipe.write_all(&data)))
        };
        let feeder = match child.stdin.take().map(feed).transpose() {
            Ok(feeder) => feeder,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).map_err(Error::io("end", &self.path))?;
                return Err(Error::io("start a thread for", &self.path)(error));
            }
        };
        Ok((child, feeder))
    }

    /// The command line, for messages.
    fn words(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the first file of that name in one of the directories; `None` if there is none.
pub(crate) fn locate(directories: &[&str], name: &str) -> Option<PathBuf> {
    directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

impl Error {
    /// A program that a stage runs in a tree is not there.
    pub fn missing_in_tree(program: &str) -> Self {
        Error::MissingTool { tool: program.to_owned(), place: "in the tree", packages: packages_of(program).to_owned() }
    }
}

/// What no tool of a build root has unless it needs it: what reaches beyond the files that the stage works on.
const BEYOND_FILES: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE);

/// Returns what a tool of the build root may do: what the stage may, less what reaches beyond its files.
fn rights_of(tool: &str) -> Rights {
    match tool {
        // They mount, or run programs of the tree in sandboxes of their own.
        "bootc" | "mount" | "ostree" | "rpm-ostree" | "skopeo" | "zipl" => Rights::of_stage(),
        // They make nodes and attributes `trusted.*` of trees, or read those.
        "cp" | "dnf-3" | "mkfs.erofs" | "mksquashfs" | "pacman" | "rpm" | "tar" => Rights::of_stage(),
        // They ask the kernel for devices, keep keys in its memory, or notify it of partitions, blocks and subvolumes.
        "btrfs" | "cryptsetup" | "lvcreate" | "mkfs.xfs" | "parted" | "pvcreate" | "sgdisk" | "veritysetup"
        | "vgcreate" => Rights::of_stage(),
        _ => Rights::container(CapabilitySet::all() - BEYOND_FILES),
    }
}

/// The packages that have a tool on the common distributions, for the message that it is missing.
pub fn packages_of(tool: &str) -> &'static str {
    match tool {
        "mkfs.ext4" | "mke2fs" | "tune2fs" | "e2fsck" | "debugfs" => "the package `e2fsprogs`",
        "mkfs.fat" | "mkfs.vfat" | "fsck.fat" => "the package `dosfstools`",
        "mcopy" | "mdir" | "mmd" => "the package `mtools`",
        "mkfs.xfs" | "xfs_admin" => "the package `xfsprogs`",
        "mkfs.btrfs" | "btrfs" => "the package `btrfs-progs`",
        "sfdisk" => "the package `fdisk` (Debian, Ubuntu) or `util-linux` (elsewhere)",
        "mkswap" | "losetup" | "mount" => "the package `util-linux`",
        "qemu-img" => "the package `qemu-utils` (Debian, Ubuntu) or `qemu-img` (Fedora, Arch)",
        "qemu-system-x86_64" => {
            "the package `qemu-system-x86` (Debian, Ubuntu), `qemu-system-x86-core` (Fedora) or `qemu-kvm` (RHEL)"
        }
        "virtiofsd" => "the package `virtiofsd` (`qemu-system-common` up to Debian 12 and Ubuntu 22.04)",
        "mksquashfs" => "the package `squashfs-tools`",
        "parted" => "the package `parted`",
        "sgdisk" => "the package `gdisk` (Debian, Ubuntu, Fedora) or `gptfdisk` (Arch)",
        "pvcreate" | "vgcreate" | "lvcreate" | "lvchange" | "lvs" | "pvs" => "the package `lvm2`",
        "cryptsetup" => "the package `cryptsetup-bin` (Debian, Ubuntu) or `cryptsetup` (elsewhere)",
        "veritysetup" => "the package `cryptsetup-bin` (Debian, Ubuntu) or `veritysetup` (Fedora)",
        "dmsetup" => "the package `dmsetup` (Debian, Ubuntu) or `device-mapper` (elsewhere)",
        "mkfs.erofs" => "the package `erofs-utils`",
        "xorrisofs" => "the package `xorriso` (Debian, Ubuntu, Fedora) or `libisoburn` (Arch)",
        "objcopy" => "the package `binutils`",
        "skopeo" => "the package `skopeo`",
        "rpm" | "rpmkeys" => "the package `rpm`",
        "dnf-3" => "the package `dnf` (Debian, Ubuntu) or `python3-dnf` (Fedora)",
        "ostree" => "the package `ostree`",
        "rpm-ostree" => "the package `rpm-ostree`",
        "systemctl" | "systemd-sysusers" | "systemd-tmpfiles" => "the package `systemd`",
        "systemd-dissect" => "the package `systemd-container` (Debian, Ubuntu) or `systemd` (elsewhere)",
        "useradd" | "usermod" | "groupadd" | "passwd" => {
            "the package `passwd` (Debian, Ubuntu), `shadow-utils` (Fedora) or `shadow` (Arch)"
        }
        "mkhomedir_helper" => "the package `libpam-modules-bin` (Debian, Ubuntu) or `pam` (elsewhere)",
        "setfiles" => "the package `policycoreutils`",
        "dracut" => "the package `dracut`",
        "initoverlayfs-install" => "the package `initoverlayfs`",
        "firewall-offline-cmd" => "the package `firewalld`",
        "update-crypto-policies" => {
            "the package `crypto-policies-scripts` (Fedora) or `crypto-policies` (Debian, Ubuntu)"
        }
        "update-ca-trust" => "the package `ca-certificates`",
        "mkinitcpio" => "the package `mkinitcpio`",
        "pacman" => "the package `pacman-package-manager` (Debian, Ubuntu) or `pacman` (elsewhere)",
        "pacman-key" => "the package `pacman`",
        "genisoimage" => "the package `genisoimage`",
        "isohybrid" => "the package `syslinux-utils` (Debian, Ubuntu) or `syslinux` (elsewhere)",
        "grub2-mkrescue" => "the package `grub2-tools-extra` (Fedora)",
        "mk-s390image" => "the package `s390-tools` (Debian, Ubuntu) or `s390utils-core` (Fedora)",
        "coreos-installer" => "the package `coreos-installer`",
        "bootupctl" => "the package `bootupd`",
        "bootc" => "the package `bootc`",
        "implantisomd5" => "the package `isomd5sum`",
        "cpio" => "the package `cpio`",
        "tar" => "the package `tar`",
        "cp" => "the package `coreutils`",
        "lzip" => "the package `lzip`",
        "lzop" => "the package `lzop`",
        "compress" => "the package `ncompress`",
        "grub2-mkimage" | "grub-mkimage" => "the package `grub-common` (Debian, Ubuntu) or `grub2-tools` (Fedora)",
        "zipl" => "the package `s390-tools` (Debian, Ubuntu) or `s390utils-core` (Fedora)",
        _ => "the package that has it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a set of capabilities in a process's status.
    fn set(status: &str, name: &str) -> CapabilitySet {
        let digits = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("it is there");
        CapabilitySet::from_bits_retain(u64::from_str_radix(digits.trim(), 16).expect("a hexadecimal number"))
    }

    #[test]
    fn a_tool_has_no_right_beyond_its_files_unless_it_needs_it_as_root() {
        if !osbc_fixtures::has_root() {
            return;
        }
        let own = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let output = Tool::find("cat").expect("there").arg("/proc/self/status").output().expect("it runs");
        let seen = String::from_utf8(output).expect("text");
        let (before, after) = (set(&own, "CapPrm"), set(&seen, "CapPrm"));
        assert_eq!(after, before - BEYOND_FILES);
        assert!(!set(&seen, "CapBnd").intersects(BEYOND_FILES));
        assert!(after.contains(CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN));
        assert!(seen.contains("NoNewPrivs:\t1") && seen.contains("Seccomp:\t2"), "{seen}");
        let list = Tool::find("tar").expect("there").arg("--version").output().expect("it runs");
        assert!(!list.is_empty());
    }
}
