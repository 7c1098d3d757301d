//! Installs GRUB 2 to a disk image, for machines without UEFI.
//!
//! Calls `grub2-mkimage` of the build root, which Debian calls `grub-mkimage`, to make the core image. It goes to the
//! sector `location` of the image; on `i386-pc` the boot image goes to the first sector and leads to it. Without
//! `location`, or with 0, the core image becomes the whole file, as for an ISO image (`iso9660`).
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.inst",
//!   "options": {
//!     "filename": "disk.img",
//!     "platform": "i386-pc",
//!     "location": 2048,
//!     "core": { "type": "mkimage", "partlabel": "gpt", "filesystem": "ext4" },
//!     "prefix": { "type": "partition", "partlabel": "gpt", "number": 2, "path": "/boot/grub2" }
//!   }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.inst",
//!   "options": {
//!     "filename": "images/eltorito.img",
//!     "platform": "i386-pc",
//!     "core": { "type": "mkimage", "partlabel": "gpt", "filesystem": "iso9660", "binary": "grub2-mkimage" },
//!     "prefix": { "path": "/boot/grub2/" }
//!   }
//! }
//! ```

use std::path::Path;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::boot::bootloader::{BIOS, Place, embed, make_image};
use crate::boot::grub;
use crate::disks::partition_table::SECTOR;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2.inst",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::MayCall("grub2-mkimage"),
        Requirement::MayCall("grub-mkimage"),
        Requirement::Named(|options| {
            let platform = options["platform"].as_str().unwrap_or(BIOS);
            let binary = options["core"]["binary"].as_str();
            std::iter::once(grub::files(platform)).chain(binary.map(str::to_owned)).collect()
        }),
    ],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4"}}}"#,
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "vfat"}, "prefix": {"path": "/boot"}}}"#,
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "own", "partlabel": "gpt", "filesystem": "ext4"}, "prefix": {"path": "/boot"}}}"#,
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4"}, "prefix": {"path": "boot"}}}"#,
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4"}, "prefix": {"number": 1, "path": "/boot"}}}"#,
        r#"{"options": {"filename": "x", "platform": "i386-pc", "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4"}, "prefix": {"path": "/boot"}, "location": "1"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The disk image, which must be there if `location` is given
    filename: String,
    /// GRUB's name of the platform, such as `i386-pc`
    platform: String,
    /// The sector that the core image goes to
    location: Option<i64>,
    /// How to get the core image
    core: Core,
    /// Where GRUB finds its configuration
    #[schemars(schema_with = "prefix_schema")]
    prefix: Prefix,
    /// Bytes in a sector
    #[serde(rename = "sector-size", default = "usual_size")]
    #[schemars(with = "f64")]
    sector_size: u64,
}

fn usual_size() -> u64 {
    SECTOR
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Core {
    /// Made by `grub2-mkimage`
    Mkimage {
        /// Kind of the partition table
        partlabel: Label,
        /// The file system that holds the rest of GRUB
        filesystem: FileSystem,
        /// The tool
        binary: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Label {
    Gpt,
    Dos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    Iso9660,
}

/// Where GRUB finds its configuration: on a partition if there is a `number`, else on what it was started from.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
enum Prefix {
    Partition(OnPartition),
    Path(OnDisk),
}

impl TryFrom<Value> for Prefix {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value.get("number") {
            Some(_) => OnPartition::deserialize(value).map(Prefix::Partition),
            None => OnDisk::deserialize(value).map(Prefix::Path),
        }
    }
}

fn prefix_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"oneOf": [options_schema::<OnPartition>(), options_schema::<OnDisk>()]})
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnPartition {
    /// That it is on a partition
    #[serde(rename = "type")]
    _kind: PartitionWord,
    /// Kind of the partition table
    partlabel: Label,
    /// Number of the partition, starting at 0
    #[schemars(with = "f64")]
    number: u64,
    /// Path in the partition
    #[schemars(regex(pattern = "/.*"))]
    path: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PartitionWord {
    Partition,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    /// Path on the disk
    #[schemars(regex(pattern = "/.*"))]
    path: String,
}

impl Prefix {
    /// As GRUB writes it.
    fn text(&self) -> String {
        match self {
            Prefix::Partition(place) => {
                let table = match place.partlabel {
                    Label::Gpt => "gpt",
                    Label::Dos => "msdos",
                };
                format!("(,{table}{})/{}", u128::from(place.number) + 1, place.path.trim_start_matches('/'))
            }
            Prefix::Path(place) => place.path.clone(),
        }
    }
}

/// Returns the arguments of the tool other than the target.
fn arguments(options: &Options) -> Vec<String> {
    let Core::Mkimage { partlabel, filesystem, .. } = &options.core;
    let format = match filesystem {
        FileSystem::Iso9660 => "i386-pc-eltorito",
        _ => &options.platform,
    };
    let table = match partlabel {
        Label::Gpt => "part_gpt",
        Label::Dos => "part_msdos",
    };
    let file_system = match filesystem {
        FileSystem::Ext4 => "ext2",
        FileSystem::Xfs => "xfs",
        FileSystem::Btrfs => "btrfs",
        FileSystem::Iso9660 => "iso9660",
    };
    let mut arguments = vec!["--verbose".to_owned(), "--directory".to_owned(), grub::files(&options.platform)];
    let more = ["--prefix", &options.prefix.text(), "--format", format, "--compression", "auto"];
    arguments.extend(more.map(str::to_owned));
    let disk = (options.platform == BIOS).then_some("biosdisk");
    arguments.extend(disk.into_iter().chain([table, file_system]).map(str::to_owned));
    arguments
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let Core::Mkimage { binary, .. } = &options.core;
    let workspace = tempfile::tempdir().map_err(Error::io("create a directory in", std::env::temp_dir()))?;
    let core = workspace.path().join("core.img");
    let tool = match binary.as_deref() {
        None | Some("grub2-mkimage") => make_image(cx)?,
        Some(name) => cx.tool(name)?,
    };
    tool.args(arguments(&options)).arg("--output").arg(&core).run()?;
    let core = outside::read(&core, outside::WHOLE).map_err(Error::io("read", &core))?;
    let Some(location) = options.location.filter(|location| *location != 0) else {
        return cx.tree.write(&options.filename, core);
    };
    let sector = u64::try_from(location).map_err(|_| Error::failed("`location` lies before the disk"))?;
    let boot = Path::new(&grub::files(&options.platform)).join("boot.img");
    let boot = match options.platform.as_str() {
        BIOS => Some(outside::read(&boot, outside::WHOLE).map_err(Error::io("read", &boot))?),
        _ => None,
    };
    // Beyond the gap behind the first sector it is a BIOS boot partition.
    let says_rest = boot.is_some() && sector.saturating_mul(options.sector_size) > SECTOR;
    let image = cx.tree.open_file(&options.filename, OFlags::WRONLY, 0)?;
    embed(&image, &core, boot.as_deref(), Place { sector, sector_size: options.sector_size, says_rest })
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_file, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    fn options(prefix: Value, location: Value, filesystem: &str) -> Value {
        json!({
            "filename": "/disk.img", "platform": "i386-pc", "location": location,
            "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": filesystem},
            "prefix": prefix,
        })
    }

    fn on_partition() -> Value {
        json!({"type": "partition", "partlabel": "dos", "number": 0, "path": "/boot/grub2"})
    }

    #[test]
    fn the_tool_gets_the_place_of_the_rest_and_the_modules_to_read_it() {
        let arguments_of = |options: Value| arguments(&Options::deserialize(options).unwrap()).join(" ");
        assert_eq!(
            arguments_of(options(on_partition(), json!(1), "xfs")),
            "--verbose --directory /usr/lib/grub/i386-pc --prefix (,msdos1)/boot/grub2 --format i386-pc \
             --compression auto biosdisk part_gpt xfs"
        );
        let mut other = options(json!({"path": "/boot/"}), json!(0), "iso9660");
        other["platform"] = json!("powerpc-ieee1275");
        assert_eq!(
            arguments_of(other),
            "--verbose --directory /usr/lib/grub/powerpc-ieee1275 --prefix /boot/ --format i386-pc-eltorito \
             --compression auto part_gpt iso9660"
        );
    }

    #[test]
    fn the_core_image_goes_to_its_sector_and_the_boot_image_leads_there() {
        if !has_tool("grub-mkimage") || !has_file("/usr/lib/grub/i386-pc/boot.img") {
            return;
        }
        for (location, rest) in [(1, false), (4, true)] {
            let case = Case::new(&MODULE).file("disk.img", vec![0xee; 64 << 10]);
            let done = case.run(options(on_partition(), json!(location), "ext4")).ok();
            let image = done.tree.read("disk.img").unwrap();
            let place = location as usize * 512;
            assert_eq!(image[0x5c..0x64], (location as u64).to_le_bytes());
            assert!(image[440..512].iter().all(|byte| *byte == 0xee), "the partition table is touched");
            assert_eq!(image[place + 500..place + 508] == (location as u64 + 1).to_le_bytes(), rest || location == 1);
        }
    }

    #[test]
    fn without_a_place_the_core_image_is_the_file() {
        if !has_tool("grub-mkimage") || !has_file("/usr/lib/grub/i386-pc/boot.img") {
            return;
        }
        let case = Case::new(&MODULE).file("disk.img", "Just testing");
        let done = case.run(options(json!({"path": "/boot/grub2/"}), json!(0), "iso9660")).ok();
        assert!(!done.tree.read("disk.img").unwrap().starts_with(b"Just testing"));
    }

    #[test]
    fn an_image_that_is_not_there_is_no_place_for_it() {
        if !has_tool("grub-mkimage") || !has_file("/usr/lib/grub/i386-pc/boot.img") {
            return;
        }
        let done = Case::new(&MODULE).run(options(on_partition(), json!(1), "ext4"));
        assert!(done.err().starts_with("cannot open /disk.img"), "{}", done.err());
    }
}
