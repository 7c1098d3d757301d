//! Makes a file system image of the tree.
//!
//! The image `filename` of `size` bytes holds a file system of type `fs_type` with the tree in it. Parts that nothing
//! was written to take no room. The tools are those of the build root: `mkfs.ext4`, `mkfs.xfs` or `mkfs.btrfs`, and
//! `cp`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rawfs",
//!   "options": {
//!     "filename": "root.img",
//!     "root_fs_uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d",
//!     "size": 536870912,
//!     "fs_type": "xfs"
//!   }
//! }
//! ```

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::disks::ext4;
use crate::disks::filesystem::{FileSystem, FileSystemType};
use crate::disks::mounted_image::{self, MountedImage, Part};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.rawfs",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::LoopDevices(|_| 1),
        Requirement::Tool("cp"),
        Requirement::Tool("mount"),
        Requirement::ToolFor("mkfs.ext4", |options| options["fs_type"].as_str().is_none_or(|kind| kind == "ext4")),
        Requirement::File(ext4::CONFIGURATION),
        Requirement::ToolFor("mkfs.xfs", |options| options["fs_type"] == "xfs"),
        Requirement::ToolFor("mkfs.btrfs", |options| options["fs_type"] == "btrfs"),
    ],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {"filename": "x", "size": 1}}"#,
        r#"{"options": {"filename": "x", "size": 1, "root_fs_uuid": "short"}}"#,
        r#"{"options": {"filename": "x", "size": "1G", "root_fs_uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d"}}"#,
        r#"{"options": {"filename": "x", "size": 1, "root_fs_uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d", "fs_type": "vfat"}}"#,
        r#"{"options": {"filename": "x", "size": 1, "root_fs_uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
    /// Identifier of the file system
    #[schemars(regex(pattern = r"^[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}$"))]
    root_fs_uuid: String,
    /// Size of the image in bytes
    size: i64,
    /// Type of the file system
    #[serde(default)]
    fs_type: Type,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Type {
    #[default]
    Ext4,
    Xfs,
    Btrfs,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let size = u64::try_from(options.size).map_err(|_| Error::failed("the size of an image cannot be negative"))?;
    let name = &options.filename;
    let kind = match options.fs_type {
        Type::Ext4 => FileSystemType::Ext4,
        Type::Xfs => FileSystemType::Xfs,
        Type::Btrfs => FileSystemType::Btrfs,
    };
    let image = cx.tree.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC, 0o666)?;
    image.set_len(size).map_err(Error::io("set the size of", name))?;
    let file_system = FileSystem { kind, uuid: options.root_fs_uuid, label: None };
    file_system.make(cx, &cx.tree.path_for_tools(name)?)?;
    let mut mounted = MountedImage::new()?;
    mounted.mount(mounted_image::attach(&image, Part { offset: 0, size })?, kind.name(), "/")?;
    cx.tool("cp")?.arg("-a").arg(cx.input("tree")?.path.join(".")).arg(mounted.root()).run()?;
    mounted.close()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    // Its own: mkfs.btrfs refuses one that a device of another test has at the moment.
    const UUID: &str = "0d1a6b0e-4f0c-4f57-9c1a-5b8ad4a0c6f1";

    #[test]
    fn root_the_image_holds_the_tree_in_each_type_of_file_system() {
        if !has_root() {
            return;
        }
        for (name, megabytes) in [("ext4", 64_u64), ("xfs", 320), ("btrfs", 128)] {
            if !has_tool(&format!("mkfs.{name}")) || !has_tool("blkid") {
                return;
            }
            let case = Case::new(&MODULE).input("tree", json!({}), |tree| {
                tree.create_dir("etc", 0o750).unwrap();
                tree.write("etc/hostname", "web\n").unwrap();
                tree.chown("etc/hostname", Some(1000), Some(100)).unwrap();
                tree.symlink("hostname", "etc/link").unwrap();
                tree.chmod("/", 0o711).unwrap();
            });
            let size = megabytes << 20;
            let options = json!({"filename": "image", "root_fs_uuid": UUID, "size": size, "fs_type": name});
            let done = case.run(options).ok();
            let path = done.tree.path_for_tools("image").unwrap();
            assert_eq!(done.tree.metadata("image").unwrap().len(), size);
            let report = Command::new("blkid").args(["-o", "export"]).arg(&path).output().unwrap();
            let report = String::from_utf8(report.stdout).unwrap();
            assert!(report.contains(&format!("TYPE={name}")) && report.contains(&format!("UUID={UUID}")), "{report}");

            let mut mounted = MountedImage::new().unwrap();
            let image = File::options().read(true).write(true).open(&path).unwrap();
            mounted.mount(mounted_image::attach(&image, Part { offset: 0, size }).unwrap(), name, "/").unwrap();
            let tree = Tree::open(mounted.root()).unwrap();
            use std::os::unix::fs::MetadataExt;
            assert_eq!(tree.read_to_string("etc/link").unwrap(), "web\n");
            assert_eq!(tree.metadata("etc/hostname").unwrap().uid(), 1000);
            assert_eq!(tree.metadata("etc").unwrap().mode() & 0o7777, 0o750);
            assert_eq!(tree.metadata("/").unwrap().mode() & 0o7777, 0o711);
            drop(tree);
            mounted.close().unwrap();
        }
    }

    #[test]
    fn root_a_tree_that_does_not_fit_is_an_error_and_nothing_stays_mounted() {
        if !has_root() || !has_tool("mkfs.ext4") {
            return;
        }
        let case = Case::new(&MODULE).input("tree", json!({}), |tree| tree.write("large", vec![1; 8 << 20]).unwrap());
        let done = case.run(json!({"filename": "image", "root_fs_uuid": UUID, "size": 4 << 20}));
        assert!(done.err().contains("cp"), "{}", done.err());
        let image = done.tree.path_for_tools("image").unwrap().display().to_string();
        let loops = Command::new("losetup").arg("-a").output().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!String::from_utf8_lossy(&loops.stdout).contains(&image));
    }
}
