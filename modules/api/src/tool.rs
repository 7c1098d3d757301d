//! Tools of the build root, called by stages.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Where a build root keeps its tools; the `PATH` of the sandbox.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/bin"];

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
        let path = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
        let path =
            path.ok_or_else(|| Error::MissingTool { tool: name.to_owned(), packages: packages_of(name).to_owned() })?;
        let command = Command::new(&path);
        Ok(Self { path, command, stdin: Vec::new() })
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
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
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

    fn finish(mut self) -> Result<Vec<u8>, Error> {
        let start = Error::io("start", self.path.clone());
        self.command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut child = self.command.spawn().map_err(start)?;
        let input = child.stdin.take().map(|mut pipe| {
            let data = std::mem::take(&mut self.stdin);
            // A tool that ends without reading all of its input says why by its exit status.
            std::thread::spawn(move || pipe.write_all(&data).ok())
        });
        let output = child.wait_with_output().map_err(Error::io("wait for", &self.path))?;
        if let Some(writer) = input {
            writer.join().ok();
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let command = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Err(Error::ToolFailed { command, status: output.status })
    }
}

/// The packages that have a tool on the common distributions, for the message that it is missing.
fn packages_of(tool: &str) -> &'static str {
    match tool {
        "mkfs.ext4" | "mke2fs" | "tune2fs" | "e2fsck" => "the package `e2fsprogs`",
        "mkfs.fat" | "mkfs.vfat" | "fsck.fat" => "the package `dosfstools`",
        "mkfs.xfs" | "xfs_admin" => "the package `xfsprogs`",
        "mkfs.btrfs" | "btrfs" => "the package `btrfs-progs`",
        "sfdisk" => "the package `fdisk` (Debian, Ubuntu) or `util-linux` (elsewhere)",
        "mkswap" | "losetup" | "mount" => "the package `util-linux`",
        "qemu-img" => "the package `qemu-utils` (Debian, Ubuntu) or `qemu-img` (Fedora, Arch)",
        "mksquashfs" => "the package `squashfs-tools`",
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
