//! Makes a partitioned disk image of the tree.
//!
//! A disk of `size` bytes gets the partitions and file systems that the options name, or one bootable partition for
//! all with `root_fs_uuid`. The tree is copied into the file systems, each at its mount point, and the disk becomes the
//! image `filename` in the format asked for. Disks with a DOS partition table get GRUB 2 unless they name another boot
//! loader, those with GPT only if they name it. The tools are those of the build root: `sfdisk`, `mkfs.*`, `cp`,
//! `grub2-mkimage` and the files below `/usr/lib/grub`, `zipl`, and `qemu-img` for other formats than `raw`, `raw.xz`
//! and `qcow2`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.qemu",
//!   "options": {
//!     "filename": "disk.qcow2",
//!     "format": "qcow2",
//!     "size": 1073741824,
//!     "ptuuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
//!     "pttype": "gpt",
//!     "partitions": [
//!       {
//!         "start": 2048,
//!         "size": 204800,
//!         "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
//!         "filesystem": { "type": "vfat", "uuid": "7B77-95E7", "label": "EFI", "mountpoint": "/boot/efi" }
//!       },
//!       {
//!         "filesystem": { "type": "ext4", "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "mountpoint": "/" }
//!       }
//!     ]
//!   }
//! }
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use osbc_module_api::*;
use rustix::fs::OFlags;
use tempfile::{NamedTempFile, TempPath};

use crate::archives::compression;
use crate::archives::single_file;
use crate::boot::bootloader::{self, Disk};
use crate::boot::grub;
use crate::disks::ext4;
use crate::disks::filesystem::{FileSystem, FileSystemType};
use crate::disks::image_conversion::{Conversion, VmdkLayout};
use crate::disks::mounted_image::{self, MountedImage, Part};
use crate::disks::partition_table::{Partition, PartitionTable, SECTOR, Written};
use crate::disks::qcow2::Compression;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.qemu",
    revision: 2,
    capabilities: &[],
    requires: &[
        Requirement::LoopDevices(loop_devices),
        Requirement::Tool("sfdisk"),
        Requirement::Tool("cp"),
        Requirement::Tool("mount"),
        Requirement::ToolFor("mkfs.ext4", |options| makes(options, "ext4")),
        Requirement::ToolFor("mkfs.xfs", |options| makes(options, "xfs")),
        Requirement::ToolFor("mkfs.btrfs", |options| makes(options, "btrfs")),
        Requirement::ToolFor("mkfs.vfat", |options| makes(options, "vfat")),
        Requirement::ToolFor("qemu-img", |options| {
            ["vdi", "vmdk", "vpc", "vhdx"].iter().any(|format| options["format"] == *format)
        }),
        Requirement::Named(|options| {
            let platform = options["bootloader"]["platform"].as_str().unwrap_or(bootloader::BIOS);
            let ext4 = makes(options, "ext4").then(|| ext4::CONFIGURATION.to_owned());
            std::iter::once(grub::files(platform)).chain(ext4).collect()
        }),
        Requirement::MayCall("grub2-mkimage"),
        Requirement::MayCall("grub-mkimage"),
        Requirement::ToolFor("zipl", |options| options["bootloader"]["type"] == "zipl"),
    ],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512, "pttype": "gpt"}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512, "root_fs_uuid": "r", "pttype": "gpt", "partitions": []}}"#,
        r#"{"options": {"format": "iso", "filename": "x", "ptuuid": "u", "size": 512, "root_fs_uuid": "r"}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": "1G", "root_fs_uuid": "r"}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512, "root_fs_uuid": "r", "extra": 1}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512, "root_fs_uuid": "r", "bootloader": {"type": "lilo"}}}"#,
        r#"{"options": {"format": "raw", "filename": "x", "ptuuid": "u", "size": 512, "pttype": "gpt", "partitions": [{"filesystem": {"type": "ext4", "uuid": "u"}}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["root_fs_uuid"]}, {"required": ["pttype", "partitions"]}]))]
struct Options {
    /// The boot loader
    bootloader: Option<Bootloader>,
    /// The format of the image
    format: Format,
    /// Version of the format qcow2
    qcow2_compat: Option<String>,
    /// Layout of the extents of the format vmdk
    vmdk_subformat: Option<VmdkLayout>,
    /// The image
    filename: String,
    /// The partitions, in order
    partitions: Option<Vec<Described>>,
    /// Identifier of the partition table
    ptuuid: String,
    /// Kind of the partition table
    #[serde(default)]
    pttype: Label,
    /// Identifier of the only file system
    root_fs_uuid: Option<String>,
    /// Size of the disk in bytes
    size: i64,
    /// Type of the only file system
    #[serde(default)]
    root_fs_type: RootType,
}

/// A boot loader; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Bootloader {
    /// Its name
    #[serde(rename = "type")]
    kind: Option<BootloaderType>,
    /// GRUB's name of the platform, `i386-pc` unless given
    #[schemars(skip)]
    platform: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BootloaderType {
    Grub2,
    Zipl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Raw,
    #[serde(rename = "raw.xz")]
    RawXz,
    Qcow2,
    Vdi,
    Vmdk,
    Vpc,
    Vhdx,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Label {
    Mbr,
    #[default]
    Dos,
    Gpt,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RootType {
    #[default]
    Ext4,
    Xfs,
    Btrfs,
}

/// A partition; what it has besides these properties does not count.
#[derive(Debug, Default, Deserialize, JsonSchema)]
struct Described {
    /// Whether the firmware boots from it (dos)
    #[serde(default)]
    bootable: bool,
    /// Its name (gpt)
    name: Option<String>,
    /// Its size in sectors
    size: Option<i64>,
    /// Its first sector
    start: Option<i64>,
    /// Its type: a UUID or, in dos tables, a hexadecimal number
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Its identifier (gpt)
    uuid: Option<String>,
    /// The file system on it
    filesystem: Option<DescribedFileSystem>,
}

/// A file system; what it has besides these properties does not count.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct DescribedFileSystem {
    /// Its label
    label: Option<String>,
    /// Which directory of the tree it holds
    mountpoint: String,
    /// Its type
    #[serde(rename = "type")]
    kind: AnyType,
    /// Its identifier
    uuid: String,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AnyType {
    Ext4,
    Xfs,
    Vfat,
    Btrfs,
}

impl From<AnyType> for FileSystemType {
    fn from(kind: AnyType) -> Self {
        match kind {
            AnyType::Ext4 => FileSystemType::Ext4,
            AnyType::Xfs => FileSystemType::Xfs,
            AnyType::Vfat => FileSystemType::Vfat,
            AnyType::Btrfs => FileSystemType::Btrfs,
        }
    }
}

/// A file system and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    /// The index of its partition.
    partition: usize,
    mountpoint: String,
    file_system: FileSystem,
}

impl Options {
    /// The partition table, and the file systems in the order in which they are mounted.
    fn layout(&mut self) -> (PartitionTable, Vec<Placed>) {
        let partitions = self.partitions.take().unwrap_or_else(|| {
            let kind = match self.root_fs_type {
                RootType::Ext4 => AnyType::Ext4,
                RootType::Xfs => AnyType::Xfs,
                RootType::Btrfs => AnyType::Btrfs,
            };
            let uuid = self.root_fs_uuid.clone().unwrap_or_default();
            let root = DescribedFileSystem { label: None, mountpoint: "/".to_owned(), kind, uuid };
            let kind = Some("83".to_owned());
            vec![Described { bootable: true, kind, filesystem: Some(root), ..Described::default() }]
        });
        let placed = |(partition, described): (usize, &Described)| {
            let found = described.filesystem.clone()?;
            let file_system = FileSystem { kind: found.kind.into(), uuid: found.uuid, label: found.label };
            Some(Placed { partition, mountpoint: found.mountpoint, file_system })
        };
        let mut file_systems: Vec<Placed> = partitions.iter().enumerate().filter_map(placed).collect();
        file_systems.sort_by_key(|placed| placed.mountpoint.chars().count());
        let label = if self.pttype == Label::Gpt { "gpt" } else { "dos" };
        let partitions = partitions.into_iter().map(Partition::from).collect();
        (PartitionTable { label, id: self.ptuuid.clone(), partitions }, file_systems)
    }

    /// The boot loader to install, if any.
    fn bootloader(&self) -> Option<BootloaderType> {
        let named = self.bootloader.as_ref().and_then(|bootloader| bootloader.kind);
        named.or((self.pttype != Label::Gpt).then_some(BootloaderType::Grub2))
    }

    /// How the image is made of the disk; in no way that QEMU knows for raw ones.
    fn conversion(&self) -> Result<Option<Conversion>, Error> {
        Ok(Some(match self.format {
            Format::Raw | Format::RawXz => return Ok(None),
            Format::Qcow2 => Conversion::to_qcow2(self.qcow2_compat.as_deref(), Some(Compression::Zlib))?,
            Format::Vdi => Conversion::by_tool("vdi", false, &[]),
            Format::Vmdk => {
                let layout = self.vmdk_subformat.map(VmdkLayout::option);
                let options: Vec<String> = layout.into_iter().collect();
                Conversion::by_tool("vmdk", true, &options)
            }
            Format::Vpc => Conversion::by_tool("vpc", false, &["subformat=fixed,force_size".to_owned()]),
            Format::Vhdx => Conversion::by_tool("vhdx", false, &[]),
        }))
    }
}

impl From<Described> for Partition {
    fn from(described: Described) -> Self {
        Partition {
            number: None,
            start: described.start,
            size: described.size,
            kind: described.kind,
            name: described.name,
            uuid: described.uuid,
            attributes: Vec::new(),
            bootable: described.bootable,
        }
    }
}

/// The file system that holds `/boot`.
fn boot_of(file_systems: &[Placed]) -> Result<&Placed, Error> {
    let at = |place: &str| file_systems.iter().find(|placed| placed.mountpoint == place);
    at("/boot").or_else(|| at("/")).ok_or_else(|| Error::failed("the boot loader needs a partition for / or /boot"))
}

/// How many are open at a time: all file systems are mounted, and zipl gets the whole disk too.
fn loop_devices(options: &Value) -> u64 {
    let file_systems = match options["partitions"].as_array() {
        Some(partitions) => partitions.iter().filter(|partition| partition["filesystem"].is_object()).count(),
        None => 1,
    };
    file_systems as u64 + u64::from(options["bootloader"]["type"] == "zipl")
}

/// Whether the options ask for a file system of that type.
fn makes(options: &Value, kind: &str) -> bool {
    match options["partitions"].as_array() {
        Some(partitions) => partitions.iter().any(|partition| partition["filesystem"]["type"] == kind),
        None => options["root_fs_type"].as_str().unwrap_or("ext4") == kind,
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let mut options: Options = cx.options()?;
    let size = u64::try_from(options.size).ok().filter(|size| size % SECTOR == 0);
    let size = size.ok_or_else(|| Error::failed(format!("the size of a disk must be a multiple of {SECTOR}")))?;
    let (table, file_systems) = options.layout();

    let (disk, path, _aside) = new_disk(cx, &options)?;
    disk.set_len(size).map_err(Error::io("set the size of", &path))?;
    table.write(cx.tool("sfdisk")?, &path)?;
    let partitions = table.read_back(cx.tool("sfdisk")?, &path)?;
    let bootloader = options.bootloader();
    if bootloader == Some(BootloaderType::Grub2) {
        let boot = boot_of(&file_systems)?;
        let described = options.bootloader.as_ref().and_then(|bootloader| bootloader.platform.as_deref());
        let platform = described.unwrap_or(bootloader::BIOS);
        let directory = if boot.mountpoint == "/boot" { "grub2" } else { "boot/grub2" };
        let grub = Disk { gpt: table.label == "gpt", partitions: &partitions, boot: boot.partition };
        bootloader::install_grub(cx, &disk, grub, platform, boot.file_system.kind, directory)?;
    }
    let zipl = bootloader == Some(BootloaderType::Zipl);
    fill(cx, &disk, size, &partitions, &file_systems, zipl)?;
    deliver(cx, &options, disk, &path)
}

/// The disk, empty, and its path: the image itself where that is the disk as it is, otherwise a scratch file that goes
/// away with the last value.
fn new_disk(cx: &StageContext, options: &Options) -> Result<(File, PathBuf, Option<TempPath>), Error> {
    const SCRATCH: &str = "/var/tmp";
    if options.format == Format::Raw {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let disk = cx.tree.open_file(&options.filename, flags, 0o666)?;
        return Ok((disk, cx.tree.path_for_tools(&options.filename)?, None));
    }
    let scratch = NamedTempFile::new_in(SCRATCH).map_err(Error::io("create a file in", SCRATCH))?;
    let (disk, path) = scratch.into_parts();
    Ok((disk, path.to_path_buf(), Some(path)))
}

/// Makes the file systems and copies the tree into them.
fn fill(
    cx: &StageContext,
    disk: &File,
    size: u64,
    partitions: &[Written],
    file_systems: &[Placed],
    zipl: bool,
) -> Result<(), Error> {
    let mut mounted = MountedImage::new()?;
    for Placed { partition, mountpoint, file_system } in file_systems {
        let Written { start, size, .. } = &partitions[*partition];
        let device = mounted_image::attach(disk, Part { offset: start * SECTOR, size: size * SECTOR })?;
        file_system.make(cx, &device.node())?;
        mounted.mount(device, file_system.kind.name(), mountpoint)?;
    }
    cx.tool("cp")?.arg("-a").arg(cx.input("tree")?.path.join(".")).arg(mounted.root()).run()?;
    if zipl {
        let whole = mounted_image::attach(disk, Part { offset: 0, size })?;
        let boot = &partitions[boot_of(file_systems)?.partition];
        bootloader::install_zipl(cx, mounted.root(), &whole.node(), boot)?;
    }
    mounted.close()
}

/// Makes the image of the disk.
fn deliver(cx: &StageContext, options: &Options, mut disk: File, path: &Path) -> Result<(), Error> {
    let target = &options.filename;
    if let Some(conversion) = options.conversion()? {
        return conversion.run(cx, path, target);
    }
    if options.format == Format::RawXz {
        let output = single_file::create(&cx.tree, target)?;
        let compress = || -> io::Result<()> {
            io::Seek::rewind(&mut disk)?;
            let mut encoder = compression::Format::Xz.encoder(0, None, output)?;
            io::copy(&mut disk, &mut encoder)?;
            encoder.finish()?.flush()
        };
        compress().map_err(Error::io("compress to", target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};

    use super::*;
    use crate::disks::qcow2::Version;

    const UUID: &str = "9c6ae55b-cf88-45b8-84e8-64990759f39d";

    fn options(more: Value) -> Options {
        let mut options = json!({"format": "raw", "filename": "image", "ptuuid": UUID, "size": 20 << 20});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Options::deserialize(options).unwrap()
    }

    #[test]
    fn without_partitions_one_bootable_partition_holds_everything() {
        let (table, file_systems) = options(json!({"root_fs_uuid": UUID, "root_fs_type": "xfs"})).layout();
        assert_eq!((table.label, table.partitions.len()), ("dos", 1));
        assert!(table.partitions[0].bootable);
        let [root] = file_systems.as_slice() else { panic!("{file_systems:?}") };
        assert_eq!((root.mountpoint.as_str(), root.file_system.kind), ("/", FileSystemType::Xfs));
    }

    #[test]
    fn file_systems_are_mounted_from_the_root_down() {
        let file_system = |mountpoint: &str| json!({"mountpoint": mountpoint, "type": "ext4", "uuid": UUID});
        let (table, file_systems) = options(json!({"pttype": "gpt", "partitions": [
            {"filesystem": file_system("/boot/efi")}, {"size": 1}, {"filesystem": file_system("/boot")},
            {"filesystem": file_system("/")},
        ]}))
        .layout();
        assert_eq!((table.label, table.partitions.len()), ("gpt", 4));
        let order: Vec<_> = file_systems.iter().map(|placed| (placed.partition, placed.mountpoint.as_str())).collect();
        assert_eq!(order, [(3, "/"), (2, "/boot"), (0, "/boot/efi")]);
        assert_eq!(boot_of(&file_systems).unwrap().partition, 2);
    }

    #[test]
    fn dos_tables_get_grub_and_gpt_only_on_request() {
        assert_eq!(options(json!({"root_fs_uuid": UUID})).bootloader(), Some(BootloaderType::Grub2));
        assert_eq!(options(json!({"pttype": "gpt", "partitions": []})).bootloader(), None);
        let named = json!({"pttype": "gpt", "partitions": [], "bootloader": {"type": "zipl"}});
        assert_eq!(options(named).bootloader(), Some(BootloaderType::Zipl));
    }

    #[test]
    fn each_format_is_converted_to_in_its_way() {
        let tool = |arguments: &str| Some(Conversion::Tool(arguments.split(' ').map(str::to_owned).collect()));
        let qcow2 = |version| Some(Conversion::Qcow2 { version, compression: Some(Compression::Zlib) });
        for (more, expected) in [
            (json!({"format": "raw.xz"}), None),
            (json!({"format": "qcow2"}), qcow2(Version::V3)),
            (json!({"format": "qcow2", "qcow2_compat": "0.10"}), qcow2(Version::V2)),
            (json!({"format": "vmdk", "qcow2_compat": "0.10"}), tool("convert -O vmdk -c")),
            (
                json!({"format": "vmdk", "vmdk_subformat": "streamOptimized"}),
                tool("convert -O vmdk -c -o subformat=streamOptimized"),
            ),
            (json!({"format": "vpc"}), tool("convert -O vpc -o subformat=fixed,force_size")),
            (json!({"format": "vdi"}), tool("convert -O vdi")),
            (json!({"format": "vhdx"}), tool("convert -O vhdx")),
        ] {
            assert_eq!(options(more).conversion().unwrap(), expected);
        }
    }

    fn case() -> Case {
        Case::new(&MODULE).input("tree", json!({}), |tree| {
            tree.create_dir_all("boot/loader", 0o755).unwrap();
            tree.write("boot/kernel", "kernel").unwrap();
            tree.write("file", "content").unwrap();
        })
    }

    fn two_partitions() -> Value {
        json!({"filename": "image", "ptuuid": UUID, "size": 64 << 20, "pttype": "gpt", "partitions": [
            {"start": 2048, "size": 40960, "uuid": UUID, "name": "boot",
             "filesystem": {"type": "ext4", "uuid": UUID, "label": "boot", "mountpoint": "/boot"}},
            {"filesystem": {"type": "ext4", "uuid": UUID, "mountpoint": "/"}},
        ]})
    }

    /// Mounts a partition of the disk image and reads files of it.
    fn read(done: &Done, start: u64, size: u64, files: &[&str]) -> Vec<String> {
        let image = done.tree.open_file("image", OFlags::RDWR, 0).unwrap();
        let mut mounted = MountedImage::new().unwrap();
        let part = Part { offset: start * SECTOR, size: size * SECTOR };
        mounted.mount(mounted_image::attach(&image, part).unwrap(), "ext4", "/").unwrap();
        let tree = Tree::open(mounted.root()).unwrap();
        let texts = files.iter().map(|file| tree.read_to_string(file).unwrap()).collect();
        drop(tree);
        mounted.close().unwrap();
        texts
    }

    #[test]
    fn root_the_tree_is_spread_over_the_partitions() {
        if !has_root() || !has_tool("sfdisk") || !has_tool("mkfs.ext4") {
            return;
        }
        let mut options = two_partitions();
        options["format"] = json!("raw");
        let done = case().run(options).ok();
        let path = done.tree.path_for_tools("image").unwrap();
        let report = Command::new("sfdisk").arg("--json").arg(path).output().unwrap();
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        let table = &report["partitiontable"];
        assert_eq!((&table["label"], &table["id"]), (&json!("gpt"), &json!(UUID.to_uppercase())));
        let partitions = table["partitions"].as_array().unwrap();
        assert_eq!((&partitions[0]["name"], &partitions[0]["size"]), (&json!("boot"), &json!(40960)));
        assert_eq!(read(&done, 2048, 40960, &["kernel"]), ["kernel"]);
        let number = |key: &str| partitions[1][key].as_u64().unwrap();
        assert_eq!(read(&done, number("start"), number("size"), &["file"]), ["content"]);
    }

    #[test]
    fn root_other_formats_hold_the_same_disk() {
        if !has_root() || !has_tool("sfdisk") || !has_tool("mkfs.ext4") || !has_tool("qemu-img") {
            return;
        }
        for format in ["qcow2", "vdi", "vmdk", "vpc", "vhdx"] {
            let mut options = two_partitions();
            options["format"] = json!(format);
            let done = case().run(options).ok();
            let path = done.tree.path_for_tools("image").unwrap();
            let raw = path.with_extension("raw");
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", format, "-O", "raw"]).arg(&path).arg(&raw);
            assert!(convert.status().unwrap().success(), "{format}");
            done.tree.rename("image.raw", "image").unwrap();
            assert_eq!(read(&done, 2048, 40960, &["kernel"]), ["kernel"], "{format}");
        }
        let mut options = two_partitions();
        options["format"] = json!("raw.xz");
        let done = case().run(options).ok();
        let packed = done.tree.read("image").unwrap();
        let mut raw = Vec::new();
        io::Read::read_to_end(&mut compression::decoder(&packed[..]).unwrap().unwrap(), &mut raw).unwrap();
        assert_eq!(raw.len(), 64 << 20);
        done.tree.write("image", raw).unwrap();
        assert_eq!(read(&done, 2048, 40960, &["kernel"]), ["kernel"]);
    }

    #[test]
    fn root_grub_is_installed_to_dos_disks() {
        let grub = Path::new("/usr/lib/grub/i386-pc/boot.img");
        if !has_root() || !has_tool("sfdisk") || !has_tool("mkfs.ext4") || !has_tool("grub-mkimage") {
            return;
        }
        if !grub.is_file() {
            assert!(std::env::var_os("CI").is_none(), "this test needs GRUB's files for i386-pc, which CI must have");
            return;
        }
        let options = json!({
            "filename": "image", "format": "raw", "ptuuid": UUID, "size": 64 << 20, "root_fs_uuid": UUID,
        });
        let done = case().run(options).ok();
        let image = done.tree.read("image").unwrap();
        let boot = std::fs::read(grub).unwrap();
        assert_eq!(image[..0x5c], boot[..0x5c]);
        assert_eq!(image[0x5c..0x64], 1u64.to_le_bytes());
        assert_eq!(image[510..512], [0x55, 0xaa]);
        assert!(image[512..1024].iter().any(|byte| *byte != 0), "no core image");
        assert_eq!(read(&done, 2048, (64 << 11) - 2048, &["boot/kernel"]), ["kernel"]);
    }

    #[test]
    fn every_file_system_and_zipl_have_a_loop_device() {
        let of = |options: Value| loop_devices(&options);
        assert_eq!(of(json!({"root_fs_type": "ext4"})), 1);
        let partitions = json!([{"size": 1}, {"filesystem": {"type": "xfs"}}, {"filesystem": {"type": "vfat"}}]);
        assert_eq!(of(json!({"partitions": partitions})), 2);
        assert_eq!(of(json!({"partitions": partitions, "bootloader": {"type": "zipl"}})), 3);
    }

    #[test]
    fn a_size_that_is_no_multiple_of_a_sector_is_refused() {
        let options = json!({"filename": "x", "format": "raw", "ptuuid": UUID, "size": 1000, "root_fs_uuid": UUID});
        assert!(case().run(options).err().contains("multiple of 512"));
    }
}
