//! Makes a disk image with partitions, and file systems that have contents, in one go.
//!
//! Neither a loop device nor a mount is needed, nor privileges: osbc writes the partition table (GPT) itself, `mke2fs`
//! of the build root an ext4 file system with the files of a directory in it, `mkfs.fat` and mtools a FAT one.
//! Partitions come one after the other, each at a whole MiB; one without a `size` takes what is left. A partition
//! without a `filesystem` stays empty. One with `grub` holds GRUB's core image, as `org.osbuild.grub2.inst` makes it
//! without a `location`; the first sector then starts it, by `boot.img` of the build root, on machines with a BIOS.
//!
//! With a source epoch the same contents give the same image: identifiers take the place of what would be drawn by lot,
//! and files have been read and changed at the epoch. The order of names in ext4 directories is that of the store's
//! file system where e2fsprogs is older than 1.47.1.
//!
//! ```json
//! {
//!   "type": "org.osbc.disk",
//!   "inputs": {
//!     "grub": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:grub"] },
//!     "os": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:os"] },
//!     "uki": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:uki"] }
//!   },
//!   "options": {
//!     "filename": "disk.img",
//!     "size": 1610612736,
//!     "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
//!     "partitions": [
//!       { "type": "21686148-6449-6E6F-744E-656564454649", "size": 1048576, "grub": "input://grub/core.img" },
//!       { "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "size": 134217728,
//!         "filesystem": { "type": "fat", "volid": "7b7795e7", "label": "ESP",
//!           "paths": [{ "from": "input://uki/image.efi", "to": "/EFI/BOOT/BOOTX64.EFI" }] } },
//!       { "type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "name": "root",
//!         "filesystem": { "type": "ext4", "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root",
//!           "from": "input://os/" } }
//!     ]
//!   }
//! }
//! ```

use std::fs::File;
use std::path::Path;

use osbc_module_api::*;
use uuid::Uuid;

use crate::archives::single_file;
use crate::boot::bootloader::{BIOS, Place, embed};
use crate::boot::grub;
use crate::disks::ext4::{self, Ext4};
use crate::disks::fat;
use crate::disks::gpt;
use crate::disks::partition_table::SECTOR;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbc.disk",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::Named(|options| {
            let partitions = options["partitions"].as_array();
            let has_grub = partitions.is_some_and(|all| all.iter().any(|partition| partition["grub"].is_string()));
            let ext4 = makes(options, "ext4").then(|| ext4::CONFIGURATION.to_owned());
            has_grub.then(boot_sector).into_iter().chain(ext4).collect()
        }),
        Requirement::ToolFor("mke2fs", |options| makes(options, "ext4")),
        Requirement::ToolFor("debugfs", |options| makes(options, "ext4")),
        Requirement::ToolFor("mkfs.fat", |options| makes(options, "fat")),
        Requirement::ToolFor("mcopy", |options| makes(options, "fat")),
        Requirement::ToolFor("mmd", |options| makes(options, "fat")),
        Requirement::ToolFor("mdir", |options| makes(options, "fat")),
    ],
    schema: || Schema::stage::<Options>().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {"size": 4194304, "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": [{"type": "L"}]}}"#,
        r#"{"options": {"filename": "x", "size": "4 MiB", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": [{"type": "L"}]}}"#,
        r#"{"options": {"filename": "x", "size": 4194304, "uuid": "u", "partitions": [{"type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"}]}}"#,
        r#"{"options": {"filename": "x", "size": 4194304, "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": []}}"#,
        r#"{"options": {"filename": "x", "size": 4194304, "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": [{"type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "filesystem": {"type": "xfs"}}]}}"#,
        r#"{"options": {"filename": "x", "size": 4194304, "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": [{"type": "21686148-6449-6E6F-744E-656564454649", "grub": true}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image, which is made anew
    filename: String,
    /// Its size in bytes
    #[schemars(range(min = 1))]
    size: u64,
    /// Identifier of the partition table
    #[schemars(regex(pattern = UUID))]
    uuid: String,
    /// The partitions, in order
    #[schemars(length(min = 1))]
    partitions: Vec<Partition>,
}

const UUID: &str = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Partition {
    /// Its type
    #[serde(rename = "type")]
    #[schemars(regex(pattern = UUID))]
    kind: String,
    /// Its name
    name: Option<String>,
    /// Its identifier; one that follows from that of the table unless given
    #[schemars(regex(pattern = UUID))]
    uuid: Option<String>,
    /// Its size in bytes, a whole number of MiB; all that is left unless given
    #[schemars(range(min = 1_048_576))]
    size: Option<u64>,
    /// What is in it
    filesystem: Option<FileSystem>,
    /// GRUB's core image in place of a file system: `input://NAME/PATH` or a path of the tree
    grub: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
enum FileSystem {
    Ext4 {
        /// Its identifier
        #[schemars(regex(pattern = UUID))]
        uuid: String,
        /// Its label
        #[schemars(length(max = 16))]
        label: Option<String>,
        /// The directory whose files it has: `input://NAME/PATH` or a path of the tree; none unless given
        from: Option<String>,
    },
    Fat {
        /// Its identifier: eight hexadecimal digits
        #[schemars(regex(pattern = "^[0-9a-fA-F]{8}$"))]
        volid: String,
        /// Its label
        #[schemars(length(max = 11))]
        label: Option<String>,
        /// What is copied into it
        #[serde(default)]
        paths: Vec<fat::Entry>,
    },
}

/// Whether the options ask for a file system of that type.
fn makes(options: &Value, kind: &str) -> bool {
    let partitions = options["partitions"].as_array();
    partitions.is_some_and(|all| all.iter().any(|partition| partition["filesystem"]["type"] == kind))
}

/// What partitions are aligned to.
const MIB: u64 = 1 << 20;
/// What GPT takes at the end of a disk.
const TAIL: u64 = MIB;

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let places = places(&options)?;
    let file = single_file::create(&cx.tree, &options.filename)?;
    file.set_len(options.size).map_err(Error::io("make", &options.filename))?;
    let image = cx.tree.path_for_tools(&options.filename)?;
    let id = identifier(&options.uuid)?;
    let partitions = options.partitions.iter().zip(&places).map(|(partition, &(start, size))| {
        Ok(gpt::Partition {
            kind: identifier(&partition.kind)?,
            // One that is not given follows from that of the table and where the partition begins.
            id: match &partition.uuid {
                Some(uuid) => identifier(uuid)?,
                None => Uuid::new_v5(&id, &start.to_le_bytes()),
            },
            start: start / SECTOR,
            size: size / SECTOR,
            name: partition.name.clone().unwrap_or_default(),
        })
    });
    let partitions = partitions.collect::<Result<Vec<_>, Error>>()?;
    gpt::write(&file, options.size / SECTOR, id, &partitions)
        .map_err(Error::io("write the partition table of", &options.filename))?;
    for (index, (partition, &place)) in options.partitions.iter().zip(&places).enumerate() {
        let named = |error| match error {
            Error::Failed { reason } => Error::failed(format!("{}: {reason}", partition.title(index))),
            error => error,
        };
        fill(cx, &file, &image, partition, place).map_err(named)?;
    }
    Ok(())
}

/// Makes what is in a partition.
fn fill(
    cx: &StageContext,
    file: &File,
    image: &Path,
    partition: &Partition,
    (start, size): (u64, u64),
) -> Result<(), Error> {
    match &partition.filesystem {
        Some(FileSystem::Ext4 { uuid, label, from }) => {
            Ext4 { image, start, size, uuid, label: label.as_deref(), from: from.as_deref() }.make(cx)?;
        }
        Some(FileSystem::Fat { volid, label, paths }) => {
            let mut tool =
                cx.tool("mkfs.fat")?.args(["-I", "--invariant", "-i", volid, "-S", "512", "-F", width(size)]);
            if let Some(label) = label.as_deref().filter(|label| !label.is_empty()) {
                tool = tool.args(["-n", label]);
            }
            let place = ["--offset".to_owned(), (start / SECTOR).to_string()];
            tool.args(place).arg(image).arg((size / 1024).to_string()).run()?;
            fat::populate(cx, image, start, paths)?;
        }
        None => {}
    }
    match &partition.grub {
        Some(core) => embed_grub(cx, file, (start, size), core),
        None => Ok(()),
    }
}

/// The file of the build root that becomes the first sector.
fn boot_sector() -> String {
    format!("{}/boot.img", grub::files(BIOS))
}

/// Puts GRUB's core image into a partition, and what leads there into the first sector.
fn embed_grub(cx: &StageContext, image: &File, (start, size): (u64, u64), core: &str) -> Result<(), Error> {
    let Location { tree, path, .. } = cx.location(core)?;
    let core = tree.read(path)?;
    if core.len() as u64 > size {
        let length = core.len();
        return Err(Error::failed(format!("GRUB's core image has {length} bytes, but its partition has {size}")));
    }
    let boot = boot_sector();
    let boot = outside::read(&boot, outside::WHOLE).map_err(Error::io("read", &boot))?;
    embed(image, &core, Some(&boot), Place { sector: start / SECTOR, sector_size: SECTOR, says_rest: true })
}

/// How wide the entries of a FAT file system of so many bytes are: mkfs.fat goes by the size of the whole image.
fn width(bytes: u64) -> &'static str {
    match bytes / MIB {
        0..8 => "12",
        8..512 => "16",
        _ => "32",
    }
}

fn identifier(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|error| Error::failed(format!("`{text}` is no UUID: {error}")))
}

impl Partition {
    /// What a message calls it.
    fn title(&self, index: usize) -> String {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        format!("partition {}{}", index + 1, name.map(|name| format!(" (`{name}`)")).unwrap_or_default())
    }

    /// Why it can be in no table; `None` if it can.
    fn problem(&self) -> Option<String> {
        if self.grub.is_some() && self.filesystem.is_some() {
            return Some("has both `grub` and a `filesystem`; give it one".to_owned());
        }
        if self.name.as_deref().is_some_and(|name| name.encode_utf16().count() > gpt::LONGEST_NAME) {
            return Some(format!("has a name of more than {} letters, which is all that GPT holds", gpt::LONGEST_NAME));
        }
        let size = self.size.filter(|size| size % MIB != 0)?;
        Some(format!("has {size} bytes, which is no whole number of MiB"))
    }
}

/// Start and size of each partition in bytes.
fn places(options: &Options) -> Result<Vec<(u64, u64)>, Error> {
    let (disk, count) = (options.size, options.partitions.len());
    if count > gpt::MOST_PARTITIONS {
        let most = gpt::MOST_PARTITIONS;
        return Err(Error::failed(format!("there are {count} partitions, and a table has room for {most}")));
    }
    let end = (disk / MIB * MIB).saturating_sub(TAIL);
    let mut start = MIB;
    let mut places = Vec::new();
    for (index, partition) in options.partitions.iter().enumerate() {
        let title = partition.title(index);
        if let Some(problem) = partition.problem() {
            return Err(Error::failed(format!("{title} {problem}")));
        }
        let size = match partition.size {
            Some(size) => size,
            // At least as much as partitions are aligned to.
            None if index + 1 == count => end.saturating_sub(start).max(MIB),
            None => {
                return Err(Error::failed("only the last partition may take what is left; give the others a `size`"));
            }
        };
        let missing = start.saturating_add(size).saturating_sub(end);
        if missing > 0 {
            let least = start.saturating_add(size).saturating_add(TAIL);
            return Err(Error::failed(format!(
                "{title} does not fit into the disk of {disk} bytes: {missing} are missing; raise the disk's `size` to at \
                 least {least}, or make partitions smaller"
            )));
        }
        places.push((start, size));
        start += size;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::{has_file, has_tool};
    use osbc_module_api::testing::{Case, Done};
    use osbc_module_api::tree;

    use super::*;

    const ID: &str = "d209c89e-ea5e-4fbd-b161-b461cce297e0";

    fn disk(case: Case, size: u64, partitions: Value) -> Done {
        case.run(json!({"filename": "disk.img", "size": size, "uuid": ID, "partitions": partitions}))
    }

    fn said(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_disk_has_its_partitions_and_what_is_in_them() {
        if !["sfdisk", "mke2fs", "mkfs.fat", "mcopy", "debugfs", "e2fsck"].into_iter().all(has_tool) {
            return;
        }
        let made = || {
            let case = Case::new(&MODULE).file("boot.efi", "loader").source_epoch(1_700_000_000);
            let times = tree::Times { accessed: (5, 0), modified: (1_000_000_000, 0) };
            case.tree().set_times("boot.efi", times).unwrap();
            let case = case.input("os", json!({}), |tree| {
                tree.create_dir_all("etc", 0o750).unwrap();
                tree.write("etc/hostname", "disk\n").unwrap();
                tree.symlink("hostname", "etc/link").unwrap();
                let times = tree::Times { accessed: (5, 0), modified: (5, 0) };
                // What is the same has the same times.
                for path in ["etc/hostname", "etc/link", "etc", "/"] {
                    tree.set_times(path, times).unwrap();
                }
            });
            disk(
                case,
                64 << 20,
                json!([
                    {"type": "21686148-6449-6E6F-744E-656564454649", "size": 1 << 20},
                    {"type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "size": 34 << 20, "name": "esp", "uuid": ID,
                     "filesystem": {"type": "fat", "volid": "7b7795e7", "label": "ESP",
                                    "paths": [{"from": "/boot.efi", "to": "/EFI/BOOT/BOOTX64.EFI"}]}},
                    {"type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
                     "filesystem": {"type": "ext4", "uuid": ID, "label": "root", "from": "input://os/"}},
                ]),
            )
            .ok()
        };
        let done = made();
        let image = done.tree.path_for_tools("disk.img").unwrap().to_string_lossy().into_owned();
        let table: Value = serde_json::from_str(&said("/usr/sbin/sfdisk", &["--json", &image])).unwrap();
        let starts: Vec<(u64, u64)> = table["partitiontable"]["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["start"].as_u64().unwrap(), one["size"].as_u64().unwrap()))
            .collect();
        assert_eq!(starts, [(2048, 2048), (4096, 69_632), (73_728, 55_296)]);
        assert_eq!(said("mtype", &["-i", &format!("{image}@@{}", 4096 * 512), "::/EFI/BOOT/BOOTX64.EFI"]), "loader");
        let root = format!("{image}?offset={}", 73_728 * 512);
        assert_eq!(said("/usr/sbin/debugfs", &["-R", "cat /etc/hostname", &root]), "disk\n");
        assert!(said("/usr/sbin/e2fsck", &["-fn", &root]).contains("root: "));
        let again = made();
        assert!(done.tree.read("disk.img").unwrap() == again.tree.read("disk.img").unwrap(), "the same again");
    }

    #[test]
    fn a_bios_is_led_to_grub_in_its_partition() {
        let boot = "/usr/lib/grub/i386-pc/boot.img";
        if !has_tool("sfdisk") || !has_file(boot) {
            return;
        }
        let image = |size: usize| {
            let case = Case::new(&MODULE).file("core.img", vec![0xee; size]);
            let kind = "21686148-6449-6E6F-744E-656564454649";
            disk(case, 4 << 20, json!([{"type": kind, "size": 1 << 20, "grub": "/core.img"}]))
        };
        let image_of = image(4096).ok().tree.read("disk.img").unwrap();
        assert_eq!(image_of[..0x5c], fs::read(boot).unwrap()[..0x5c]);
        assert_eq!(image_of[0x5c..0x64], 2048u64.to_le_bytes(), "where the core image is");
        assert_eq!(image_of[1 << 20..(1 << 20) + 500], [0xee; 500]);
        assert_eq!(image_of[(1 << 20) + 500..(1 << 20) + 508], 2049u64.to_le_bytes(), "where it goes on");
        assert_eq!(image_of[510..520], *b"\x55\xaaEFI PART", "the table is whole");
        let large = image((1 << 20) + 1);
        assert_eq!(large.err(), "partition 1: GRUB's core image has 1048577 bytes, but its partition has 1048576");
    }

    #[test]
    fn partitions_that_do_not_fit_are_refused_before_anything_is_made() {
        let kind = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
        for (size, partitions, reason) in [
            (
                4 << 20,
                json!([{"type": kind, "size": 3 << 20}]),
                "partition 1 does not fit into the disk of 4194304 bytes",
            ),
            (2 << 20, json!([{"type": kind}]), "partition 1 does not fit"),
            (8 << 20, json!([{"type": kind}, {"type": kind}]), "only the last partition may take what is left"),
            (8 << 20, json!([{"type": kind, "size": (1 << 20) + 512}]), "no whole number of MiB"),
        ] {
            let done = disk(Case::new(&MODULE), size, partitions);
            assert!(done.err().contains(reason), "{}", done.err());
            assert!(!done.tree.exists("disk.img").unwrap());
        }
    }
}
