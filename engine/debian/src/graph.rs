//! The manifest of a system: which pipelines there are, and what each of their stages does.
//!
//! What changes often comes late, so that little follows from it; the essential packages are a stage of their own,
//! which the system and the build root share.

use std::collections::BTreeMap;

use base64::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::Error;
use crate::lock::{Lock, Locked, Set};
use crate::spec::{Build, Firmware, Format, Spec, Variant};

/// Types of partitions.
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const ROOT_AMD64: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
const ROOT_I386: &str = "44479540-F297-41B2-9AF7-D131D5F0458A";
const MIB: u64 = 1 << 20;

const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const REPORT: &str = "[Unit]\nDescription=Says on the console that the system has booted\nAfter=multi-user.target\n\n\
    [Service]\nType=simple\nExecStart=/bin/sh -c 'state=$(systemctl is-system-running --wait); \
    failed=$(systemctl --failed --plain --no-legend | while read unit rest; do printf \" %%s\" \"$unit\"; done); \
    echo \"osbc-boot: $state; failed units:${failed:- none}\" >/dev/console'\n";

/// No package makes them but when it is installed.
const SSH_KEYS: &str = "[Unit]\nDescription=Makes the SSH host keys of this machine\nBefore=ssh.service\n\
    ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n";

/// Makes the manifest; `urls` says where the repository of each label is.
///
/// # Errors
/// There is no place for a label, or the system cannot boot as is wanted.
pub(crate) fn manifest(spec: &Spec, lock: &Lock, urls: &BTreeMap<String, String>) -> Result<Value, Error> {
    Maker { spec, lock, inline: Map::new() }.manifest(urls)
}

struct Maker<'a> {
    spec: &'a Spec,
    lock: &'a Lock,
    /// Items that the manifest itself holds.
    inline: Map<String, Value>,
}

impl Maker<'_> {
    fn manifest(mut self, urls: &BTreeMap<String, String>) -> Result<Value, Error> {
        self.spec.check_boot(&self.lock.architecture)?;
        let makes = |format: Format| self.spec.formats.contains(&format);
        let with_disk = self.spec.has_disk();
        let with_uki = with_disk && self.spec.boots_by(Firmware::Uefi);
        let mut pipelines = Vec::new();
        if with_disk && self.spec.build == Build::Packages {
            let stages = vec![self.packages(&Set::Essential), self.packages(&Set::Tools)];
            let mut build = self.pipeline("build", stages, false);
            build["runner"] = json!("org.osbuild.linux");
            pipelines.push(build);
        }
        if with_disk && self.spec.boots_by(Firmware::Bios) {
            pipelines.push(self.pipeline("grub", vec![self.grub(with_uki)], true));
        }
        let variants = match self.spec.variants.as_slice() {
            [] => vec![None],
            variants => variants.iter().map(Some).collect(),
        };
        let mut exports = Vec::new();
        for variant in variants {
            let named = |what: &str| variant.map_or_else(|| what.to_owned(), |one| format!("{what}-{}", one.name));
            let has_packages = variant.is_some_and(|variant| self.lock.variants.contains_key(&variant.name));
            // A kernel with its initrd is the same wherever the packages are.
            let of_packages = |what: &str| if has_packages { named(what) } else { what.to_owned() };
            let known = |pipelines: &[Value], name: &str| pipelines.iter().any(|one| one["name"] == name);
            if with_uki && !known(&pipelines, &of_packages("uki")) {
                let system = of_packages("system");
                pipelines.push(self.pipeline(&system, self.all_packages(variant), false));
                pipelines.push(self.pipeline(&of_packages("uki"), vec![self.uki(&system)], true));
            }
            let (os, image) = (named("os"), named("image"));
            let stages = self.os(variant, with_disk);
            pipelines.push(self.pipeline(&os, stages, false));
            if with_disk {
                let disk = self.image(&os, with_uki.then(|| of_packages("uki")).as_deref());
                pipelines.push(self.pipeline(&image, vec![disk], true));
            }
            if makes(Format::Raw) {
                exports.push(image.clone());
            }
            for (format, what) in [(Format::Qcow2, "qcow2"), (Format::Tar, "tar"), (Format::Oci, "oci")] {
                if makes(format) {
                    let stage = self.packed(format, &os, &image);
                    pipelines.push(self.pipeline(&named(what), vec![stage], format == Format::Qcow2));
                    exports.push(named(what));
                }
            }
        }
        let exports: Vec<Value> = exports.iter().map(|name| json!({"name": name})).collect();
        let mut sources = json!({"org.osbuild.curl": {"items": self.addresses(urls)?}});
        if !self.inline.is_empty() {
            sources["org.osbuild.inline"] = json!({"items": self.inline});
        }
        Ok(json!({"version": "2", "metadata": {"exports": exports}, "sources": sources, "pipelines": pipelines}))
    }

    /// Makes one file of a system or of its disk.
    fn packed(&self, format: Format, os: &str, image: &str) -> Value {
        let (kind, input_name, input, options) = match format {
            Format::Raw | Format::Qcow2 => (
                "org.osbuild.qemu",
                "image",
                json!({"type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
                       "references": {format!("name:{image}"): {"file": "disk.raw"}}}),
                json!({"filename": "disk.qcow2", "format": {"type": "qcow2", "compat": "1.1", "compression_type": "zstd"}}),
            ),
            Format::Tar => (
                "org.osbuild.tar",
                "tree",
                tree(os),
                json!({"filename": "root.tar.zst", "compression": "zstd", "numeric-owner": true}),
            ),
            Format::Oci => (
                "org.osbuild.oci-archive",
                "base",
                tree(os),
                json!({"architecture": self.lock.architecture, "filename": "image.oci.tar",
                       "config": {"Cmd": ["/bin/sh"]}}),
            ),
        };
        json!({"type": kind, "inputs": {input_name: input}, "options": options})
    }

    fn pipeline(&self, name: &str, stages: Vec<Value>, with_tools: bool) -> Value {
        let mut pipeline = json!({"name": name, "source-epoch": self.lock.epoch, "stages": stages});
        if with_tools && self.spec.build == Build::Packages {
            pipeline["build"] = json!("name:build");
        }
        pipeline
    }

    /// Installs all packages of a system, a stage a set.
    fn all_packages(&self, variant: Option<&Variant>) -> Vec<Value> {
        let more = variant.map(|variant| Set::Variant(variant.name.clone()));
        let more = more.filter(|set| self.lock.of(set).next().is_some());
        let sets = [Set::Essential, Set::System].into_iter().chain(more);
        sets.map(|set| self.packages(&set)).collect()
    }

    /// Installs a set of packages.
    fn packages(&self, set: &Set) -> Value {
        let references: Vec<String> = self.lock.of(set).map(item).collect();
        let input = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references});
        let mut options = Map::new();
        if matches!(set, Set::System | Set::Variant(_)) && !self.spec.debconf.is_empty() {
            options.insert("debconf".into(), json!(self.spec.debconf));
        }
        if *set != Set::Tools && !self.spec.exclude.is_empty() {
            options.insert("exclude".into(), json!(self.spec.exclude));
        }
        if let Some(timeout) = self.spec.script_timeout {
            options.insert("timeout".into(), json!(timeout));
        }
        json!({"type": "org.osbc.deb", "inputs": {"packages": input}, "options": options})
    }

    fn os(&mut self, variant: Option<&Variant>, with_disk: bool) -> Vec<Value> {
        let (spec, root) = (self.spec, self.id("root"));
        let mut stages = self.all_packages(variant);
        let mut add = |kind: &str, options: Value| stages.push(json!({"type": kind, "options": options}));
        add("org.osbuild.timezone", json!({"zone": spec.timezone}));
        let mut directories = vec!["/etc/systemd/network", "/etc/systemd/system/multi-user.target.wants"];
        let mut links = vec![("systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service")];
        let locale = format!("LANG={}\n", spec.locale);
        let mut files = vec![
            // Where Debian has it, whatever machine builds it.
            ("/etc/default/locale", locale.as_str()),
            ("/etc/hosts", HOSTS),
            ("/etc/systemd/network/80-dhcp.network", NETWORK),
        ];
        if spec.boot_report {
            files.push(("/etc/systemd/system/osbc-boot.service", REPORT));
            links.push(("osbc-boot.service", "/etc/systemd/system/osbc-boot.service"));
        }
        if self.has("openssh-server", variant) {
            files.push(("/etc/systemd/system/osbc-ssh-keys.service", SSH_KEYS));
            links.push(("osbc-ssh-keys.service", "/etc/systemd/system/osbc-ssh-keys.service"));
        }
        if with_disk && spec.boots_by(Firmware::Uefi) {
            directories.push("/boot/efi");
        }
        let directory = |path: &&str| json!({"path": path, "parents": true, "exist_ok": true});
        add("org.osbuild.mkdir", json!({"paths": directories.iter().map(directory).collect::<Vec<_>>()}));
        let link = |(name, target): &(&str, &str)| {
            let place = format!("tree:///etc/systemd/system/multi-user.target.wants/{name}");
            json!({"target": target, "link_name": place, "symbolic": true})
        };
        add("org.osbuild.ln", json!({"paths": links.iter().map(link).collect::<Vec<_>>()}));
        if with_disk {
            let mut systems = vec![json!({"uuid": root, "vfs_type": "ext4", "path": "/", "passno": 1})];
            if spec.boots_by(Firmware::Uefi) {
                let id = self.volume_id().to_ascii_uppercase();
                let uuid = format!("{}-{}", &id[..4], &id[4..]);
                let options = "umask=0077,nofail";
                systems.push(json!({"uuid": uuid, "vfs_type": "vfat", "path": "/boot/efi", "options": options}));
            }
            add("org.osbuild.fstab", json!({"filesystems": systems}));
        }
        let enable: Vec<&String> = spec.enable.iter().chain(variant.iter().flat_map(|one| &one.enable)).collect();
        if !enable.is_empty() {
            add("org.osbuild.systemd", json!({"enabled_services": enable, "tools": "tree"}));
        }
        let users: Vec<_> = spec.users.iter().chain(variant.iter().flat_map(|one| &one.users)).collect();
        if !users.is_empty() {
            let user = |(name, user): (&String, &crate::spec::User)| {
                let shell = user.shell.as_deref().unwrap_or("/bin/bash");
                let home = if name == "root" { "/root".to_owned() } else { format!("/home/{name}") };
                let mut entry = json!({"home": home, "shell": shell, "groups": user.groups, "keys": user.keys});
                if let Some(password) = &user.password {
                    entry["password"] = json!(password);
                }
                (name.clone(), entry)
            };
            let users: Map<_, _> = users.into_iter().map(user).collect();
            add("org.osbuild.users", json!({"users": users, "tools": "tree"}));
        }
        if with_disk && spec.boots_by(Firmware::Bios) {
            let serial = spec.kernel_opts.iter().any(|word| word.starts_with("console=ttyS0"));
            let options = json!({"root": root, "kernel_opts": spec.kernel_opts, "serial": serial, "timeout": 1});
            let mut stage = json!({"type": "org.osbc.grub-debian", "options": options});
            if spec.build == Build::Packages {
                stage["inputs"] = json!({"grub": tree("build")});
            }
            stages.push(stage);
        }
        let copied = self.files(&files);
        stages.push(copied);
        let hostname = match variant {
            None => spec.hostname().to_owned(),
            Some(one) => one.hostname.clone().unwrap_or_else(|| format!("{}-{}", spec.hostname(), one.name)),
        };
        stages.push(json!({"type": "org.osbuild.hostname", "options": {"hostname": hostname}}));
        stages
    }

    /// Whether a package is among those of a system.
    fn has(&self, name: &str, variant: Option<&Variant>) -> bool {
        let variant = variant.map(|variant| Set::Variant(variant.name.clone()));
        let sets: Vec<Set> = [Set::Essential, Set::System].into_iter().chain(variant).collect();
        self.lock.packages.iter().any(|one| one.name == name && one.sets.iter().any(|set| sets.contains(set)))
    }

    /// Writes files whose content the manifest holds.
    fn files(&mut self, files: &[(&str, &str)]) -> Value {
        let (mut references, mut paths) = (Vec::new(), Vec::new());
        for (path, content) in files {
            let digest = osbc_ir::hex(&Sha256::digest(content));
            let name = format!("sha256:{digest}");
            paths.push(json!({"from": format!("input://files/{name}"), "to": format!("tree://{path}")}));
            let data = BASE64_STANDARD.encode(content);
            self.inline.insert(name.clone(), json!({"encoding": "base64", "data": data}));
            references.push(name);
        }
        let input = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references});
        json!({"type": "org.osbuild.copy", "inputs": {"files": input}, "options": {"paths": paths}})
    }

    fn uki(&self, system: &str) -> Value {
        let file = |path: &str| {
            json!({"type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
                   "references": {format!("name:{system}"): {"file": path}}})
        };
        let mut words = vec![format!("root=UUID={}", self.id("root"))];
        words.extend(self.spec.kernel_opts.iter().cloned());
        json!({
            "type": "org.osbuild.uki",
            "inputs": {"kernel": file("/vmlinuz"), "initrd": file("/initrd.img"), "osrel": file("/etc/os-release")},
            "options": {"filename": "linux.efi", "kernel": {"opts": words}}
        })
    }

    /// The type of the root's partition, by which systemd finds it.
    fn root_type(&self) -> &'static str {
        if self.lock.architecture == "i386" { ROOT_I386 } else { ROOT_AMD64 }
    }

    /// Makes the core image of GRUB, which finds the rest in the last partition.
    fn grub(&self, with_esp: bool) -> Value {
        let number = if with_esp { 2 } else { 1 };
        let core = json!({"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4", "binary": "grub-mkimage"});
        let prefix = json!({"type": "partition", "partlabel": "gpt", "number": number, "path": "/boot/grub"});
        let options = json!({"filename": "core.img", "platform": "i386-pc", "core": core, "prefix": prefix});
        json!({"type": "org.osbuild.grub2.inst", "options": options})
    }

    fn image(&self, os: &str, uki: Option<&str>) -> Value {
        let mut inputs = json!({"os": tree(os)});
        let mut partitions = Vec::new();
        if self.spec.boots_by(Firmware::Bios) {
            inputs["grub"] = tree("grub");
            let core = "input://grub/core.img";
            partitions.push(json!({"type": BIOS_BOOT, "uuid": self.id("bios-boot"), "size": MIB, "grub": core}));
        }
        if let Some(uki) = uki {
            inputs["uki"] = tree(uki);
            let paths = json!([{"from": "input://uki/linux.efi", "to": "/EFI/BOOT/BOOTX64.EFI"}]);
            let system = json!({"type": "fat", "volid": self.volume_id(), "label": "ESP", "paths": paths});
            let size = self.spec.disk.esp * MIB;
            partitions.push(json!({"type": ESP, "uuid": self.id("esp-partition"), "size": size, "filesystem": system}));
        }
        let system = json!({"type": "ext4", "uuid": self.id("root"), "label": "root", "from": "input://os/"});
        let root =
            json!({"type": self.root_type(), "uuid": self.id("root-partition"), "name": "root", "filesystem": system});
        partitions.push(root);
        let options = json!({
            "filename": "disk.raw", "size": self.spec.disk.size * MIB, "uuid": self.id("disk"), "partitions": partitions
        });
        json!({"type": "org.osbc.disk", "inputs": inputs, "options": options})
    }

    /// An identifier that follows from what the system is called.
    fn id(&self, what: &str) -> String {
        let name = format!("osbc debian {} {} {what}", self.spec.name, self.spec.release);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    /// The same for a FAT file system.
    fn volume_id(&self) -> String {
        self.id("esp")[..8].to_owned()
    }

    /// Where each package is.
    fn addresses(&self, urls: &BTreeMap<String, String>) -> Result<Map<String, Value>, Error> {
        let address = |package: &Locked| Ok((item(package), json!(package.url(urls)?)));
        let used =
            |package: &&Locked| self.spec.build == Build::Packages || package.sets.iter().any(|set| *set != Set::Tools);
        self.lock.packages.iter().filter(used).map(address).collect()
    }
}

fn item(package: &Locked) -> String {
    format!("sha256:{}", package.sha256)
}

/// The tree of a pipeline, as an input.
fn tree(pipeline: &str) -> Value {
    let reference = format!("name:{pipeline}");
    json!({"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [reference]})
}
