//! Makes the live system of a CoreOS: an ISO image, and the kernel, initrd and root of it for PXE.
//!
//! The root is that of the disk image `metal`, as squashfs or erofs. With it go descriptions of both disk images, by
//! which they are made anew from the root; `coreos-installer` of the input `deployed-tree` makes them, and the data by
//! which a minimal image is made from the whole one. The menus of the image are those of the tree's
//! `/usr/share/coreos-assembler/live`.
//!
//! The build root has to have `genisoimage`, `cpio` and `mksquashfs` or `mkfs.erofs`; on x86 `isohybrid` and the files
//! of syslinux too, on POWER `grub2-mkrescue`, on s390x `xorrisofs`, `mk-s390image` and the templates of lorax.
//!
//! ```json
//! {
//!   "type": "org.osbuild.coreos.live-artifacts.mono",
//!   "options": {
//!     "filenames": {
//!       "live-iso": "live.iso",
//!       "live-kernel": "live-kernel",
//!       "live-initramfs": "live-initramfs.img",
//!       "live-rootfs": "live-rootfs.img"
//!     }
//!   },
//!   "inputs": {
//!     "deployed-tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:deployed-tree"] },
//!     "metal": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:metal": { "file": "/metal.raw" } }
//!     },
//!     "metal4k": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:metal4k": { "file": "/metal4k.raw" } }
//!     }
//!   }
//! }
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use osbc_module_api::loopdev::{Config, LoopDevice};
use osbc_module_api::*;

use crate::archives::single_file;
use crate::boot::live_config::{self, Areas};
use crate::boot::live_initrd;
use crate::boot::live_medium::{self, Architecture, Medium};
use crate::disks::mounted_image::{MountedImage, Part, attach};
use crate::disks::partition_table::Report;
use crate::downloads::checksum;
use crate::trees::chroot::Program;
use crate::trees::kernel_devices::KernelDevices;
use crate::trees::runners::os_release;
use osbc_pytext::json::to_string_sorted as indented;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.coreos.live-artifacts.mono",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[
        Requirement::LoopDevices(|_| if Architecture::of_machine().has_uefi() { 3 } else { 2 }),
        Requirement::Tool("sfdisk"),
        Requirement::Tool("mount"),
        Requirement::MayCall("mkfs.erofs"),
        Requirement::MayCall("mksquashfs"),
        Requirement::MayCall("cpio"),
        Requirement::MayCall("genisoimage"),
        Requirement::MayCall("xorrisofs"),
        Requirement::MayCall("isohybrid"),
        Requirement::MayCall("mk-s390image"),
        Requirement::MayCall("grub2-mkrescue"),
        Requirement::MayCall("mkfs.fat"),
        Requirement::MayCall("mcopy"),
        Requirement::Named(|_| live_medium::files()),
        Requirement::TreePrograms,
    ],
    schema: || Schema::stage::<Options>().inputs(&["deployed-tree", "metal", "metal4k"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {"deployed-tree": {}, "metal": {}, "metal4k": {}}}"#,
        r#"{"options": {"filenames": {"live-iso": "a", "live-kernel": "b", "live-initramfs": "c"}}, "inputs": {"deployed-tree": {}, "metal": {}, "metal4k": {}}}"#,
        r#"{"options": {"filenames": {"live-iso": "a", "live-kernel": "b", "live-initramfs": "c", "live-rootfs": 1}}, "inputs": {"deployed-tree": {}, "metal": {}, "metal4k": {}}}"#,
        r#"{"options": {"filenames": {"live-iso": "a", "live-kernel": "b", "live-initramfs": "c", "live-rootfs": "d"}}, "inputs": {"metal": {}, "metal4k": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the artifacts are called
    filenames: Names,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Names {
    /// The ISO image
    live_iso: String,
    /// The kernel
    live_kernel: String,
    /// The initrd
    live_initramfs: String,
    /// What is appended to the initrd, with the root in it
    live_rootfs: String,
}

/// What the tree's `coreos-installer` sees of the build.
const SHARED: &[&str] = &["dev", "sys", "run", "tmp"];
const ASSEMBLER: &str = "usr/share/coreos-assembler";
const FIXTURE: &str = "usr/share/coreos-assembler/coreos-installer-test-fixture";

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filenames } = cx.options()?;
    let deployed = Tree::open(&cx.input("deployed-tree")?.path)?;
    let architecture = Architecture::of_machine();
    // In the tree, which has room.
    let directory = cx.tree.path_for_tools("/")?;
    let work = tempfile::tempdir_in(&directory).map_err(Error::io("create a directory in", &directory))?;
    let live = Live { cx, deployed: &deployed, work: Tree::open(work.path())?, directory: work.path() };
    for directory in ["iso/coreos", "iso/isolinux", "iso/images/pxeboot", "initrd/etc/coreos", "rootfs/etc"] {
        live.work.create_dir_all(directory, 0o777)?;
    }
    let images = [(single_file::path(cx, "metal")?, 512), (single_file::path(cx, "metal4k")?, 4096)];
    let release = os_release(&deployed.read_to_string("etc/os-release")?);
    let fact = |name: &str| {
        release.get(name).cloned().ok_or_else(|| Error::failed(format!("/etc/os-release of the tree has no {name}")))
    };
    let version = fact("OSTREE_VERSION")?;
    live.stamps(&version)?;
    live.describe(&images, &fact("PRETTY_NAME")?)?;
    let root = live.root(&images[0].0, architecture)?;
    let name = match root.name {
        Some(name) => name,
        None => match release.get("VARIANT_ID") {
            Some(variant) => format!("{}-{variant}", fact("ID")?),
            None => fact("ID")?,
        },
    };
    live.archives()?;

    let volume_set = format!("{name}-{version}");
    let volume: String = volume_set.chars().take(32).collect();
    let arguments = live_config::arguments(&root.arguments, &volume);
    let iso = live.work.subtree("iso")?;
    let areas = Areas::copy(&deployed.subtree(format!("{ASSEMBLER}/live"))?, &arguments, &iso)?;
    let fixture = deployed.exists(FIXTURE)?;
    let mut medium =
        Medium { cx, deployed: &deployed, iso, directory: work.path(), volume, volume_set, architecture, areas };
    let tool = medium.prepare(fixture)?;
    medium.write(&tool, "live.iso")?;
    let artifacts = [
        ("iso/images/pxeboot/vmlinuz", &filenames.live_kernel),
        ("iso/images/pxeboot/initrd.img", &filenames.live_initramfs),
        ("iso/images/pxeboot/rootfs.img", &filenames.live_rootfs),
    ];
    artifacts.into_iter().try_for_each(|(from, to)| live.export(from, to))?;
    // The same without what is large: by it coreos-installer can make a small image of the whole one.
    for path in ["iso/images/pxeboot/rootfs.img", "iso/coreos/miniso.dat"] {
        live.work.remove_file(path)?;
    }
    medium.write(&tool, "live.iso.minimal")?;
    let place = |name: &str| work.path().join(name);
    live.installer()?
        .args(["pack", "minimal-iso"])
        .arg(place("live.iso"))
        .arg(place("live.iso.minimal"))
        .arg("--consume")
        .run()?;
    live.export("live.iso", &filenames.live_iso)?;
    work.close().map_err(Error::io("remove a directory in", directory))
}

/// What was found out while the root was made.
struct Root {
    /// What the system is called, where its image says so.
    name: Option<String>,
    /// The kernel's arguments.
    arguments: Vec<String>,
}

/// The artifacts in the making.
struct Live<'a> {
    cx: &'a StageContext,
    deployed: &'a Tree,
    /// Where they are made.
    work: Tree,
    directory: &'a Path,
}

impl Live<'_> {
    fn installer(&self) -> Result<Program<'_>, Error> {
        // It reads the disk images' partitions, which it mounts.
        Ok(Program::find(self.deployed, "coreos-installer")?.shares(SHARED))
    }

    /// Copies the kernel and the initrd, and says in initrd and root which system they are of and what it can do.
    fn stamps(&self, version: &str) -> Result<(), Error> {
        for (name, copy) in [("vmlinuz", "vmlinuz"), ("initramfs.img", "initrd.img")] {
            let found = only(self.deployed, "usr/lib/modules", name)?;
            let mut from = self.deployed.open_file(&found, rustix::fs::OFlags::RDONLY, 0)?;
            let mut to = single_file::create(&self.work, &format!("iso/images/pxeboot/{copy}"))?;
            io::copy(&mut from, &mut to).map_err(Error::io("copy", found))?;
        }
        self.work.write("initrd/etc/coreos-live-initramfs", format!("{version}\n"))?;
        self.work.write("rootfs/etc/coreos-live-rootfs", format!("{version}\n"))?;
        let example = self.deployed.read_to_string("usr/share/coreos-installer/example-config.yaml")?;
        let features = indented(&live_config::features(&example)?, 2) + "\n";
        self.work.write("initrd/etc/coreos/features.json", &features)?;
        self.work.write("iso/coreos/features.json", features)
    }

    /// Puts to the root what is in the disk images besides the root.
    fn describe(&self, images: &[(PathBuf, u32)], system: &str) -> Result<(), Error> {
        for (image, sector_size) in images {
            let file = File::open(image).map_err(Error::io("open", image))?;
            let config = Config { partscan: true, read_only: true, sector_size: *sector_size, ..Config::default() };
            let device = LoopDevice::attach(&file, &config, Path::new("/dev"))
                .map_err(Error::io("make a loop device of", image))?;
            let node = device.node();
            let mut content = File::open(&node).map_err(Error::io("open", &node))?;
            let sum = checksum::sha256(&mut content).map_err(Error::io("read", &node))?;
            let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let output = self.directory.join("rootfs").join(format!("{name}.osmet"));
            // With the nodes of partitions.
            let _devices = KernelDevices::mount()?;
            let tool = self.installer()?.args(["pack", "osmet"]).arg(&node).args(["--description", system]);
            tool.args(["--checksum", &sum, "--output"]).arg(output).run()?;
        }
        Ok(())
    }

    /// Makes the root of a copy of the disk image, which is changed to what a live system needs.
    fn root(&self, image: &Path, architecture: Architecture) -> Result<Root, Error> {
        let settings: Value = serde_json::from_str(&self.deployed.read_to_string(format!("{ASSEMBLER}/image.json"))?)
            .map_err(|error| Error::failed(format!("/{ASSEMBLER}/image.json is no JSON: {error}")))?;
        let text = |name: &str| settings.get(name).and_then(Value::as_str);
        let kind = text("live-rootfs-fstype").unwrap_or("squashfs");
        let usual = if kind == "squashfs" { "-comp zstd" } else { "--quiet" };
        let options: Vec<&str> = text("live-rootfs-fsoptions").unwrap_or(usual).split(' ').collect();
        let copy = self.directory.join("metal");
        fs::copy(image, &copy).map_err(Error::io("copy", image))?;
        let mut parts = vec![(4, "/"), (3, "/boot")];
        if architecture.has_uefi() {
            parts.push((2, "/boot/efi"));
        }
        let mounted = mount(self.cx, &copy, &parts)?;
        let tree = Tree::open(mounted.root())?;
        adapt(&tree)?;
        let target = self.directory.join("rootfs").join(format!("root.{kind}"));
        let source = mounted.root();
        if kind == "erofs" {
            // Its temporary files may be large.
            let tool = self.cx.tool("mkfs.erofs")?.env("TMPDIR", "/var/tmp");
            tool.args(options).arg(target).arg(source).run()?;
        } else {
            let tool = self.cx.tool("mksquashfs")?.arg(source).arg(target).arg("-root-becomes").arg(source);
            tool.args(["-wildcards", "-no-recovery"]).args(options).run()?;
        }
        let entry = tree.read_to_string(only_entry(&tree)?)?;
        let arguments = entry.lines().find_map(|line| line.strip_prefix("options ")).unwrap_or_default();
        let arguments: Vec<String> = arguments.trim().split(' ').map(str::to_owned).collect();
        if arguments == [""] {
            return Err(Error::failed("the boot entry of `metal` has no options of the kernel"));
        }
        let aleph: Value = serde_json::from_str(&tree.read_to_string(".aleph-version.json")?)
            .map_err(|error| Error::failed(format!("/.aleph-version.json of `metal` is no JSON: {error}")))?;
        let labels = aleph.pointer("/container-image/image-labels");
        let name = labels.and_then(|labels| labels.get("com.coreos.osname")).and_then(Value::as_str).map(str::to_owned);
        drop(tree);
        mounted.close()?;
        fs::remove_file(&copy).map_err(Error::io("remove", copy))?;
        Ok(Root { name, arguments })
    }

    /// Makes the archives of root and initrd.
    fn archives(&self) -> Result<(), Error> {
        let place = |name: &str| self.directory.join("iso/images/pxeboot").join(name);
        // Not compressed, for the root is mounted as a part of the file.
        live_initrd::append(self.cx, &self.work.subtree("rootfs")?, &place("rootfs.img"), false)?;
        check_root(&place("rootfs.img"))?;
        self.work.write("initrd/etc/coreos-live-want-rootfs", live_initrd::stream_hash(&place("rootfs.img"))?)?;
        live_initrd::append(self.cx, &self.work.subtree("initrd")?, &place("initrd.img"), true)
    }

    /// Copies a file to the tree.
    fn export(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.directory.join(from);
        let mut source = File::open(&path).map_err(Error::io("open", &path))?;
        let mut target = single_file::create(&self.cx.tree, to)?;
        io::copy(&mut source, &mut target).map(drop).map_err(Error::io("write", to))
    }
}

/// Mounts partitions of an image, by their numbers, one below the other at these places.
fn mount(cx: &StageContext, image: &Path, parts: &[(u64, &str)]) -> Result<MountedImage, Error> {
    let table = Report::of(cx.tool("sfdisk")?, image)?;
    let mut mounted = MountedImage::new()?;
    let file = File::options().read(true).write(true).open(image).map_err(Error::io("open", image))?;
    for (number, target) in parts {
        let found = table.numbered(*number);
        let found = found.ok_or_else(|| Error::failed(format!("{} has no partition {number}", image.display())))?;
        let part = Part { offset: found.start * table.sector_size, size: found.size * table.sector_size };
        mounted.mount_any(cx, attach(&file, part)?, target)?;
    }
    Ok(mounted)
}

/// The one file `name` in the directories of a directory.
fn only(tree: &Tree, directory: &str, name: &str) -> Result<String, Error> {
    let mut found = Vec::new();
    for version in tree.read_dir(directory)? {
        let path = format!("{directory}/{}/{name}", version.to_string_lossy());
        if tree.exists(&path)? {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Error::failed(format!("there are {count} files /{directory}/*/{name} in the tree, not one"))),
    }
}

/// The one boot entry.
fn only_entry(tree: &Tree) -> Result<String, Error> {
    let entries = crate::boot::bls::entries(tree, "boot")?;
    match entries.as_slice() {
        [entry] => Ok(entry.clone()),
        more => Err(Error::failed(format!("`metal` has {} boot entries, not one", more.len()))),
    }
}

/// Lets OSTree change the system of a disk, and puts the kernel where dracut looks for it.
fn adapt(root: &Tree) -> Result<(), Error> {
    const REPOSITORY: &str = "ostree/repo/config";
    let config = root.read_to_string(REPOSITORY)?;
    let kept: String = config.split_inclusive('\n').filter(|line| !line.contains("readonly=true")).collect();
    root.write(REPOSITORY, kept)?;
    let (mut kernel, mut sum) = (None, None);
    for deployment in root.read_dir("boot/ostree")? {
        let directory = format!("boot/ostree/{}", deployment.to_string_lossy());
        for name in root.read_dir(&directory)? {
            let name = name.to_string_lossy().into_owned();
            let found = match () {
                () if name.starts_with("vmlinuz") => &mut kernel,
                () if name.starts_with('.') && name.ends_with(".hmac") => &mut sum,
                () => continue,
            };
            found.get_or_insert((format!("{directory}/{name}"), format!("boot/{name}")));
        }
    }
    for (place, what) in [(sum, ".*.hmac"), (kernel, "vmlinuz*")] {
        let (from, to) = place.ok_or_else(|| Error::failed(format!("`metal` has no /boot/ostree/*/{what}")))?;
        root.hard_link(&from, &to)?;
    }
    Ok(())
}

/// That the root is where dracut looks for it: behind the header of the archive's first member.
fn check_root(archive: &Path) -> Result<(), Error> {
    const BEHIND: usize = 124;
    const SQUASHFS: (usize, &[u8]) = (0, b"hsqs");
    const EROFS: (usize, &[u8]) = (1024, b"\xe2\xe1\xf5\xe0");
    let mut start = vec![0; BEHIND + 2048];
    let read = File::open(archive).and_then(|mut file| io::Read::read(&mut file, &mut start));
    read.map_err(Error::io("read", archive))?;
    let there = |(at, magic): (usize, &[u8])| start[BEHIND + at..].starts_with(magic);
    if there(SQUASHFS) || there(EROFS) {
        return Ok(());
    }
    Err(Error::failed("the root is not where dracut looks for it in its archive"))
}
