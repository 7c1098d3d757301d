//! Boot loaders on disk images: GRUB 2 for BIOS and Open Firmware, zipl for s390x.
//!
//! Owns where their parts lie on the disk; takes the parts themselves from the build root.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::boot::grub;
use crate::disks::filesystem::FileSystemType;
use crate::disks::partition_table::{SECTOR, Written};

/// The platform of GRUB for the BIOS.
pub(crate) const BIOS: &str = "i386-pc";
/// The platform of GRUB for Open Firmware.
const OPEN_FIRMWARE: &str = "powerpc-ieee1275";

const PREP_DOS: &str = "41";
const PREP_GPT: &str = "9E1A2D38-C612-4316-AA26-8B49521E5A8B";
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

/// How much of GRUB's boot image goes into the first sector: what follows there is the partition table.
const BOOT_CODE: usize = 440;
/// Where the boot image says in which sector the core image begins: `GRUB_BOOT_MACHINE_KERNEL_SECTOR`.
const CORE_SECTOR: u64 = 0x5c;
/// Where the core image says in which sector it goes on: its first sector's end less `GRUB_BOOT_MACHINE_LIST_SIZE`.
const CORE_REST: u64 = SECTOR - 12;

/// A disk whose partitions are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk<'a> {
    /// Whether its table is GPT; DOS otherwise.
    pub(crate) gpt: bool,
    /// Its partitions, in order.
    pub(crate) partitions: &'a [Written],
    /// The index of the partition that holds `/boot`.
    pub(crate) boot: usize,
}

impl Disk<'_> {
    fn of_type(&self, kinds: &[&str]) -> Option<&Written> {
        let is = |kind: &String| kinds.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted));
        self.partitions.iter().find(|partition| partition.kind.as_ref().is_some_and(is))
    }

    /// Where GRUB's core image goes: the sector, the bytes that it may have there, and whether that is a BIOS boot
    /// partition, in which it has to say where it goes on.
    fn place_of_core(&self, platform: &str) -> Result<(u64, u64, bool), Error> {
        let missing = |what: &str| Error::failed(format!("GRUB needs a {what} partition, but there is none"));
        if platform == OPEN_FIRMWARE {
            let prep = self.of_type(&[if self.gpt { PREP_GPT } else { PREP_DOS }]).ok_or_else(|| missing("PReP"))?;
            return Ok((prep.start, (prep.size * SECTOR).saturating_sub(SECTOR), false));
        }
        if self.gpt {
            let place = self.of_type(&[BIOS_BOOT]).ok_or_else(|| missing("BIOS boot"))?;
            return Ok((place.start, place.size * SECTOR, true));
        }
        let first = self.partitions.first().ok_or_else(|| Error::failed("GRUB needs a partition to boot from"))?;
        Ok((1, (first.start * SECTOR).saturating_sub(SECTOR), false))
    }
}

/// Installs GRUB 2 to a disk image. `file_system` is that of the partition which holds `/boot`, `directory` the path of
/// GRUB's files in there.
///
/// # Errors
/// The build root lacks a part of GRUB, the disk has no place for it, or the image cannot be written.
pub(crate) fn install_grub(
    cx: &StageContext,
    image: &File,
    disk: Disk<'_>,
    platform: &str,
    file_system: FileSystemType,
    directory: &str,
) -> Result<(), Error> {
    let files = PathBuf::from(grub::files(platform));
    let place = format!("{}{}", if disk.gpt { "gpt" } else { "msdos" }, disk.boot + 1);
    let workspace = tempfile::tempdir().map_err(Error::io("create a directory in", std::env::temp_dir()))?;
    let core = workspace.path().join("core.img");
    make_image(cx)?
        .args(["--verbose", "--directory"])
        .arg(&files)
        .args([
            "--prefix",
            &format!("(,{place})/{directory}"),
            "--format",
            platform,
            "--compression",
            "auto",
            "--output",
        ])
        .arg(&core)
        .args(modules(platform, disk.gpt, file_system)?)
        .run()?;
    let core = outside::read(&core, outside::WHOLE).map_err(Error::io("read", &core))?;
    let boot = files.join("boot.img");
    let boot = match platform {
        BIOS => Some(outside::read(&boot, outside::WHOLE).map_err(Error::io("read", &boot))?),
        _ => None,
    };
    write_grub(image, disk, platform, &core, boot.as_deref())
}

/// The tool that makes core images; distributions call it by either name.
///
/// # Errors
/// The build root has neither.
pub(crate) fn make_image(cx: &StageContext) -> Result<Tool, Error> {
    cx.tool("grub2-mkimage").or_else(|error| cx.tool("grub-mkimage").map_err(|_| error))
}

/// The modules that the core image needs to find the others: for the disk, its table and the file system.
fn modules(platform: &str, gpt: bool, file_system: FileSystemType) -> Result<Vec<&'static str>, Error> {
    let table = if gpt { "part_gpt" } else { "part_msdos" };
    let file_system = match file_system {
        FileSystemType::Ext4 => "ext2",
        FileSystemType::Xfs => "xfs",
        FileSystemType::Btrfs => "btrfs",
        FileSystemType::Vfat => return Err(Error::failed("GRUB cannot be installed with /boot on a FAT file system")),
    };
    Ok((platform == BIOS).then_some("biosdisk").into_iter().chain([table, file_system]).collect())
}

fn write_grub(image: &File, disk: Disk<'_>, platform: &str, core: &[u8], boot: Option<&[u8]>) -> Result<(), Error> {
    let (sector, room, says_rest) = disk.place_of_core(platform)?;
    if core.len() as u64 > room {
        return Err(Error::failed(format!("GRUB's core image has {} bytes, but its place has {room}", core.len())));
    }
    embed(image, core, boot, Place { sector, sector_size: SECTOR, says_rest })
}

/// Where GRUB's core image goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The first sector.
    pub(crate) sector: u64,
    /// Bytes in a sector.
    pub(crate) sector_size: u64,
    /// Whether it has to say where it goes on.
    pub(crate) says_rest: bool,
}

/// Writes the core image to its place, and the boot image to the first sector, where it says where the other is.
///
/// # Errors
/// The image cannot be written.
pub(crate) fn embed(image: &File, core: &[u8], boot: Option<&[u8]>, place: Place) -> Result<(), Error> {
    let write = |bytes: &[u8], place| image.write_all_at(bytes, place).map_err(Error::io("write", "the disk image"));
    let start = place
        .sector
        .checked_mul(place.sector_size)
        .filter(|start| i64::try_from(*start).is_ok_and(|start| start.checked_add(1 << 40).is_some()))
        .ok_or_else(|| Error::failed(format!("the sector {} lies beyond any disk", place.sector)))?;
    write(core, start)?;
    if place.says_rest {
        write(&(place.sector + 1).to_le_bytes(), start + CORE_REST)?;
    }
    if let Some(boot) = boot {
        write(&boot[..boot.len().min(BOOT_CODE)], 0)?;
        write(&place.sector.to_le_bytes(), CORE_SECTOR)?;
    }
    Ok(())
}

/// Installs zipl, the boot loader of s390x, to the disk `device` whose file systems are mounted below `root`, for the
/// kernel of the first boot entry that is not for rescue.
///
/// # Errors
/// The tree has no such entry, or zipl is missing or fails.
pub(crate) fn install_zipl(cx: &StageContext, root: &Path, device: &Path, boot: &Written) -> Result<(), Error> {
    let tree = Tree::open(root)?;
    let entry = Entry::find(&tree)?;
    cx.tool("zipl")?
        .args(["--verbose", "--target"])
        .arg(tree.path_for_tools("/boot")?)
        .arg("--image")
        .arg(entry.linux)
        .arg("--ramdisk")
        .arg(entry.initrd)
        .args(["--parameters", &entry.options, "--targetbase"])
        .arg(device)
        .args(["--targettype", "SCSI", "--targetblocksize", "512", "--targetoffset", &boot.start.to_string()])
        .run()
}

/// What a boot entry says.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    linux: PathBuf,
    initrd: PathBuf,
    options: String,
}

impl Entry {
    fn find(tree: &Tree) -> Result<Self, Error> {
        const ENTRIES: &str = "/boot/loader/entries";
        for name in tree.read_dir(ENTRIES)? {
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".conf")) else { continue };
            if stem.ends_with("rescue") {
                continue;
            }
            let path = format!("{ENTRIES}/{stem}.conf");
            let text = tree.read_to_string(&path)?;
            let value = |key: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(' '));
                lines.rfind(|(word, _)| *word == key).map(|(_, value)| value.trim())
            };
            let file = |key: &str| {
                let file = value(key).ok_or_else(|| Error::failed(format!("{path} has no line `{key}`")))?;
                tree.path_for_tools(file)
            };
            let options = value("options").unwrap_or_default().to_owned();
            return Ok(Self { linux: file("linux")?, initrd: file("initrd")?, options });
        }
        Err(Error::failed(format!("{ENTRIES} has no entry to boot")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn partition(start: u64, size: u64, kind: &str) -> Written {
        Written { node: String::new(), start, size, kind: Some(kind.to_owned()) }
    }

    fn written(disk: Disk<'_>, platform: &str, core: &[u8], boot: Option<&[u8]>) -> Result<Vec<u8>, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        fs::write(&path, vec![0xff; 16 * 512]).unwrap();
        let image = File::options().write(true).open(&path).unwrap();
        write_grub(&image, disk, platform, core, boot)?;
        Ok(fs::read(&path).unwrap())
    }

    #[test]
    fn in_dos_tables_the_core_image_lies_before_the_first_partition() {
        let partitions = [partition(4, 8, "83")];
        let disk = Disk { gpt: false, partitions: &partitions, boot: 0 };
        let image = written(disk, BIOS, &[1; 1000], Some(&[2; 512])).unwrap();
        assert!(image[..0x5c].iter().all(|byte| *byte == 2));
        assert_eq!(image[0x5c..0x64], 1u64.to_le_bytes());
        assert!(image[0x64..440].iter().all(|byte| *byte == 2));
        assert!(image[440..512].iter().all(|byte| *byte == 0xff), "the partition table is touched");
        assert!(image[512..1512].iter().all(|byte| *byte == 1));
        let error = written(disk, BIOS, &[1; 3 * 512 + 1], Some(&[2; 512])).unwrap_err().to_string();
        assert!(error.contains("its place has 1536"), "{error}");
    }

    #[test]
    fn in_gpt_tables_it_lies_in_the_bios_boot_partition_and_says_where_it_goes_on() {
        let partitions = [partition(2, 2, "83"), partition(8, 4, &BIOS_BOOT.to_lowercase())];
        let disk = Disk { gpt: true, partitions: &partitions, boot: 0 };
        let image = written(disk, BIOS, &[1; 600], Some(&[2; 512])).unwrap();
        assert_eq!(image[8 * 512 + 500..8 * 512 + 508], 9u64.to_le_bytes());
        assert_eq!(image[0x5c..0x64], 8u64.to_le_bytes());
        let disk = Disk { partitions: &partitions[..1], ..disk };
        assert!(written(disk, BIOS, &[1], None).unwrap_err().to_string().contains("BIOS boot partition"));
    }

    #[test]
    fn for_open_firmware_it_lies_in_the_prep_partition_alone() {
        let partitions = [partition(3, 4, "41"), partition(8, 4, "83")];
        let disk = Disk { gpt: false, partitions: &partitions, boot: 1 };
        let image = written(disk, OPEN_FIRMWARE, &[1; 512], None).unwrap();
        assert!(image[3 * 512..4 * 512].iter().all(|byte| *byte == 1));
        assert!(image[..512].iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn the_core_image_has_the_modules_to_reach_boot() {
        assert_eq!(modules(BIOS, false, FileSystemType::Ext4).unwrap(), ["biosdisk", "part_msdos", "ext2"]);
        assert_eq!(modules(OPEN_FIRMWARE, true, FileSystemType::Xfs).unwrap(), ["part_gpt", "xfs"]);
        assert!(modules(BIOS, true, FileSystemType::Vfat).is_err());
    }

    #[test]
    fn the_first_boot_entry_that_is_not_for_rescue_counts() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.create_dir_all("boot/loader/entries", 0o755).unwrap();
        tree.write("boot/loader/entries/0-rescue.conf", "linux /boot/rescue\ninitrd /boot/rescue\n").unwrap();
        assert!(Entry::find(&tree).unwrap_err().to_string().contains("no entry to boot"));
        let text = "title Linux\nlinux /boot/vmlinuz\ninitrd /boot/initrd\noptions root=x  ro\nbroken\n";
        tree.write("boot/loader/entries/1.conf", text).unwrap();
        let boot = directory.path().canonicalize().unwrap().join("boot");
        let options = "root=x  ro".to_owned();
        let expected = Entry { linux: boot.join("vmlinuz"), initrd: boot.join("initrd"), options };
        assert_eq!(Entry::find(&tree).unwrap(), expected);
    }
}
