//! Copies files into a FAT file system in a disk image, without mounting it.
//!
//! Calls `mdir`, `mmd` and `mcopy` (mtools) of the build root on the file `filename` of the tree, in which the file
//! system begins at the sector `start`. Directories are made as they are needed. Neither a device nor a kernel that
//! knows FAT is needed, nor privileges.
//!
//! ```json
//! {
//!   "type": "org.osbc.fat.populate",
//!   "inputs": {
//!     "uki": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:uki"] }
//!   },
//!   "options": {
//!     "filename": "disk.img",
//!     "start": 4096,
//!     "paths": [{ "from": "input://uki/image.efi", "to": "/EFI/BOOT/BOOTX64.EFI" }]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::fat::{self, Entry as Path};
use crate::disks::partition_table::SECTOR;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbc.fat.populate",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mcopy"), Requirement::MayCall("mmd"), Requirement::MayCall("mdir")],
    schema: || Schema::stage::<Options>().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {"paths": []}}"#,
        r#"{"options": {"filename": "x", "paths": []}}"#,
        r#"{"options": {"filename": "x", "paths": [{"from": "/a"}]}}"#,
        r#"{"options": {"filename": "x", "paths": [{"from": "/a", "to": "b"}]}}"#,
        r#"{"options": {"filename": "x", "paths": [{"from": "/a", "to": "/b/"}]}}"#,
        r#"{"options": {"filename": "x", "start": -1, "paths": [{"from": "/a", "to": "/b"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
    /// The first sector of the file system
    #[serde(default)]
    #[schemars(range(min = 0))]
    start: u64,
    /// What is copied
    #[schemars(length(min = 1))]
    paths: Vec<Path>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let image = cx.tree.path_for_tools(&options.filename)?;
    fat::populate(cx, &image, options.start * SECTOR, &options.paths)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn files_and_directories_come_to_their_places() {
        if !["mkfs.fat", "mcopy", "mtype", "fsck.fat"].into_iter().all(has_tool) {
            return;
        }
        let case = Case::new(&MODULE).file("disk.img", "").file("boot/a", "content of a").file("boot/deep/b", "of b");
        let image = case.path().join("disk.img");
        std::fs::File::options().write(true).open(&image).unwrap().set_len(40 << 20).unwrap();
        let mut tool = Command::new("/usr/sbin/mkfs.fat");
        tool.args(["-i", "12345678", "-F", "16", "--offset", "2048"]).arg(&image).arg("38000");
        let made = tool.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let options = json!({"filename": "disk.img", "start": 2048, "paths": [
            {"from": "/boot/a", "to": "/EFI/BOOT/BOOTX64.EFI"},
            {"from": "tree:///boot", "to": "/EFI/copied"},
        ]});
        let done = case.run(options).ok();
        let image = done.tree.path_for_tools("disk.img").unwrap();
        let read = |path: &str| {
            let drive = format!("{}@@1048576", image.display());
            let output =
                Command::new("mtype").args(["-i", &drive, path]).env("MTOOLS_SKIP_CHECK", "1").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(read("::/EFI/BOOT/BOOTX64.EFI"), "content of a");
        assert_eq!((read("::/EFI/copied/a"), read("::/EFI/copied/deep/b")), ("content of a".into(), "of b".into()));
        let whole = std::fs::read(&image).unwrap();
        let part = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(part.path(), &whole[1 << 20..]).unwrap();
        let check = Command::new("/usr/sbin/fsck.fat").arg("-n").arg(part.path()).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_an_error() {
        if !["mkfs.fat", "mcopy"].into_iter().all(has_tool) {
            return;
        }
        let case = || Case::new(&MODULE).file("disk.img", vec![0; 1 << 20]).file("large", vec![1; 2 << 20]);
        let paths = |from: &str| json!({"filename": "disk.img", "paths": [{"from": from, "to": "/x"}]});
        assert!(case().run(paths("/missing")).err().contains("/missing"));
        assert!(case().run(paths("/large")).err().contains("mcopy"), "no file system");
        let case = case();
        let made = Command::new("/usr/sbin/mkfs.fat").arg(case.path().join("disk.img")).output().unwrap();
        assert!(made.status.success());
        let error = case.run(paths("/large")).err();
        assert!(error.starts_with("the FAT file system is too small: "), "{error}");
    }
}
