//! The description of a system, as a person writes it: TOML.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;

/// What is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// What the system is called; identifiers of disks and file systems follow from it.
    pub(crate) name: String,
    /// The code name of the release, e.g. `bookworm`.
    pub(crate) release: String,
    /// Debian's name of the architecture; this machine's unless given.
    pub(crate) architecture: Option<String>,
    #[serde(default)]
    pub(crate) profile: Profile,
    /// Packages besides those of the profile.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// The package of the kernel; the usual one for the architecture unless given.
    pub(crate) kernel: Option<String>,
    /// The kernel's arguments.
    #[serde(default = "quiet_console")]
    pub(crate) kernel_opts: Vec<String>,
    /// The host name; `name` unless given.
    pub(crate) hostname: Option<String>,
    #[serde(default = "utc")]
    pub(crate) timezone: String,
    #[serde(default = "c_utf8")]
    pub(crate) locale: String,
    /// Units that are started at boot besides those that packages enable.
    #[serde(default)]
    pub(crate) enable: Vec<String>,
    /// Users by name.
    #[serde(default)]
    pub(crate) users: BTreeMap<String, User>,
    /// Answers to debconf's questions, as `debconf-set-selections` reads them.
    #[serde(default)]
    pub(crate) debconf: Vec<String>,
    /// Patterns of paths that packages have and the system has not.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    /// How many seconds a script of a package may take; half an hour unless given.
    pub(crate) script_timeout: Option<NonZeroU32>,
    /// Whether the system says on its console that it has booted, and which units failed.
    #[serde(default)]
    pub(crate) boot_report: bool,
    #[serde(default)]
    pub(crate) disk: Disk,
    #[serde(default = "both")]
    pub(crate) firmware: Vec<Firmware>,
    #[serde(default = "raw")]
    pub(crate) formats: Vec<Format>,
    #[serde(default)]
    pub(crate) build: Build,
    /// Systems that differ a little, in place of one.
    #[serde(default)]
    pub(crate) variants: Vec<Variant>,
    /// What the system takes for the time at which it was made; when the repositories were last changed unless given.
    pub(crate) epoch: Option<i64>,
}

/// What one of several systems has of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    /// What its pipelines end in.
    pub(crate) name: String,
    /// The host name; that of the description, a dash and `name` unless given.
    pub(crate) hostname: Option<String>,
    /// Packages on top.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Units on top that are started at boot.
    #[serde(default)]
    pub(crate) enable: Vec<String>,
    /// Users on top, by name.
    #[serde(default)]
    pub(crate) users: BTreeMap<String, User>,
}

/// What a system has from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// A system that boots, logs in and has a network.
    #[default]
    Minimal,
    /// Besides, what a server is looked after with.
    Server,
}

/// A user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// The hash of the password; without one nobody logs in by it.
    pub(crate) password: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// Public keys for SSH.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    pub(crate) shell: Option<String>,
}

/// The disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Disk {
    /// In MiB.
    pub(crate) size: u64,
    /// In MiB.
    pub(crate) esp: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { size: 1536, esp: 128 }
    }
}

/// What the machine boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Firmware {
    Bios,
    Uefi,
}

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Raw,
    Qcow2,
    Tar,
    Oci,
}

/// Where the tools are that make file systems and boot loaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Build {
    /// In a build root of packages of the same release.
    #[default]
    Packages,
    /// On this machine.
    Host,
}

fn quiet_console() -> Vec<String> {
    ["ro", "console=tty0", "console=ttyS0"].map(str::to_owned).to_vec()
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}

fn c_utf8() -> String {
    "C.UTF-8".to_owned()
}

fn both() -> Vec<Firmware> {
    vec![Firmware::Bios, Firmware::Uefi]
}

fn raw() -> Vec<Format> {
    vec![Format::Raw]
}

impl Spec {
    /// Reads a description.
    ///
    /// # Errors
    /// The file cannot be read, or says what has no meaning: then with the place.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::description(format!("cannot read {shown}: {error}")))?;
        let spec: Self =
            toml_edit::de::from_str(&text).map_err(|error| Error::description(format!("{shown}: {error}")))?;
        spec.check().map_err(|reason| Error::description(format!("{shown}: {reason}")))?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        let is_name = |name: &str, more: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || more.contains(letter))
        };
        if !is_name(&self.name, "-.") {
            return Err(format!("`name` has small letters, digits, `-` and `.`, but is {:?}", self.name));
        }
        if !is_name(&self.release, "-") {
            return Err(format!("`release` is a code name such as `bookworm`, but is {:?}", self.release));
        }
        if let Some(architecture) = self.architecture.as_deref().filter(|name| !is_name(name, "")) {
            return Err(format!("`architecture` is a name of Debian's such as `arm64`, but is {architecture:?}"));
        }
        for (index, variant) in self.variants.iter().enumerate() {
            if !is_name(&variant.name, "-.") {
                return Err(format!(
                    "the `name` of a variant has small letters, digits, `-` and `.`, but is {:?}",
                    variant.name
                ));
            }
            if self.variants[..index].iter().any(|other| other.name == variant.name) {
                return Err(format!("two variants have the name {:?}", variant.name));
            }
        }
        let more = self.variants.iter().flat_map(|variant| &variant.packages);
        for package in self.packages.iter().chain(&self.kernel).chain(more) {
            if !is_name(package, "+-.") {
                return Err(format!("{package:?} is no name of a package"));
            }
        }
        if self.firmware.is_empty() {
            return Err("`firmware` is empty; it takes \"bios\" and \"uefi\"".to_owned());
        }
        if self.formats.is_empty() {
            return Err("`formats` is empty; it takes \"raw\", \"qcow2\", \"tar\" and \"oci\"".to_owned());
        }
        let least = self.disk.esp.saturating_add(64);
        if self.boots_by(Firmware::Uefi) && self.disk.esp < 64 {
            return Err(format!("`disk.esp` is {} MiB, too little for a kernel with its initrd", self.disk.esp));
        }
        if self.disk.size < least {
            return Err(format!("`disk.size` is {} MiB, but {least} are the least", self.disk.size));
        }
        Ok(())
    }

    /// Whether it boots with that firmware.
    pub(crate) fn boots_by(&self, firmware: Firmware) -> bool {
        self.firmware.contains(&firmware)
    }

    /// Whether it comes as a disk.
    pub(crate) fn has_disk(&self) -> bool {
        self.formats.iter().any(|format| matches!(format, Format::Raw | Format::Qcow2))
    }

    /// Refuses a disk that machines of an architecture could not boot from.
    ///
    /// # Errors
    /// It is such a one.
    pub(crate) fn check_boot(&self, architecture: &str) -> Result<(), Error> {
        let impossible = |what: &str| {
            Err(Error::description(format!(
                "for {architecture} no disk is made that boots by {what}; leave that out of `firmware`, or make `formats` \
                 of `tar` and `oci` alone"
            )))
        };
        if self.has_disk() && self.boots_by(Firmware::Bios) && !matches!(architecture, "amd64" | "i386") {
            return impossible("a BIOS");
        }
        if self.has_disk() && self.boots_by(Firmware::Uefi) && architecture != "amd64" {
            return impossible("UEFI");
        }
        Ok(())
    }

    /// The host name.
    pub(crate) fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(&self.name)
    }

    /// The packages that it asks for, sorted; those that these need come on top.
    pub(crate) fn wanted(&self, architecture: &str) -> Vec<String> {
        const MINIMAL: [&str; 15] = [
            "apt",
            "dbus",
            "init",
            "initramfs-tools",
            "iproute2",
            "kmod",
            "mount",
            "netbase",
            "passwd",
            "procps",
            "systemd",
            "tzdata",
            "udev",
            "usr-is-merged",
            "zstd",
        ];
        const SERVER: [&str; 5] =
            ["ca-certificates", "openssh-server", "sudo", "systemd-resolved", "systemd-timesyncd"];
        let mut wanted: Vec<String> = MINIMAL.map(str::to_owned).to_vec();
        if self.profile == Profile::Server {
            wanted.extend(SERVER.map(str::to_owned));
        }
        if self.locale != "C.UTF-8" && self.locale != "C" {
            wanted.push("locales-all".to_owned());
        }
        wanted.push(self.kernel.clone().unwrap_or_else(|| format!("linux-image-{architecture}")));
        wanted.extend(self.packages.iter().cloned());
        wanted.sort();
        wanted.dedup();
        wanted
    }

    /// The packages that variants ask for on top, sorted, by their names; those without any are not in it.
    pub(crate) fn more_wanted(&self) -> BTreeMap<String, Vec<String>> {
        let with_some = self.variants.iter().filter(|variant| !variant.packages.is_empty());
        let sorted = with_some.map(|variant| {
            let mut packages = variant.packages.clone();
            packages.sort();
            packages.dedup();
            (variant.name.clone(), packages)
        });
        sorted.collect()
    }

    /// The packages of the build root besides the essential ones, sorted; none where the host is the build root.
    pub(crate) fn tools(&self) -> Vec<String> {
        if self.build == Build::Host || !self.has_disk() {
            return Vec::new();
        }
        let mut tools = vec!["dosfstools", "e2fsprogs", "fdisk", "mtools", "usr-is-merged"];
        if self.boots_by(Firmware::Bios) {
            tools.extend(["grub-common", "grub-pc-bin"]);
        }
        if self.boots_by(Firmware::Uefi) {
            tools.extend(["binutils", "systemd-boot-efi"]);
        }
        tools.sort_unstable();
        tools.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<Spec, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("spec.toml");
        std::fs::write(&path, text).expect("writable");
        Spec::read(&path).map_err(|failure| failure.to_string())
    }

    #[test]
    fn little_is_enough() {
        let spec = spec("name = \"demo\"\nrelease = \"bookworm\"\n").expect("it is whole");
        assert_eq!((spec.hostname(), spec.profile), ("demo", Profile::Minimal));
        assert!(spec.boots_by(Firmware::Bios) && spec.boots_by(Firmware::Uefi));
        let wanted = spec.wanted("amd64");
        assert!(wanted.contains(&"linux-image-amd64".to_owned()) && !wanted.contains(&"sudo".to_owned()));
        assert!(spec.tools().contains(&"grub-pc-bin".to_owned()));
    }

    #[test]
    fn disks_that_nothing_boots_from_are_refused() {
        let of = |architecture: &str, more: &str| {
            let spec = spec(&format!("name = \"demo\"\nrelease = \"bookworm\"\n{more}\n")).expect("it is whole");
            spec.check_boot(architecture).map_err(|failure| failure.to_string())
        };
        let (uefi, bios) = ("firmware = [\"uefi\"]", "firmware = [\"bios\"]");
        assert_eq!((of("amd64", ""), of("i386", bios), of("arm64", "formats = [\"tar\"]")), (Ok(()), Ok(()), Ok(())));
        for (architecture, more, what) in [("arm64", "", "a BIOS"), ("arm64", uefi, "UEFI"), ("i386", "", "UEFI")] {
            let error = of(architecture, more).unwrap_err();
            assert!(error.starts_with(&format!("for {architecture} no disk is made that boots by {what}")), "{error}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_its_place() {
        for (more, reason) in [
            ("colour = \"red\"", "unknown field `colour`"),
            ("architecture = \"ARM 64\"", "`architecture` is a name of Debian's such as `arm64`, but is \"ARM 64\""),
            ("firmware = [\"coreboot\"]", "unknown variant `coreboot`"),
            ("packages = [\"Vim\"]", "\"Vim\" is no name of a package"),
            ("packages = [\"-o\", \"x y\"]", "\"x y\" is no name of a package"),
            ("formats = []", "`formats` is empty"),
            ("[disk]\nsize = 100", "`disk.size` is 100 MiB, but 192 are the least"),
            ("[disk]\nesp = 1", "`disk.esp` is 1 MiB"),
            ("[[variants]]\nname = \"a\"\n[[variants]]\nname = \"a\"", "two variants have the name \"a\""),
            ("[[variants]]\nname = \"a/b\"", "the `name` of a variant has small letters"),
        ] {
            let error = spec(&format!("name = \"demo\"\nrelease = \"bookworm\"\n{more}\n")).map(drop).unwrap_err();
            assert!(error.contains(reason) && error.contains("spec.toml"), "{error}");
        }
        assert!(spec("name = \"demo\"\n").map(drop).unwrap_err().contains("missing field `release`"));
    }
}
