//! The file systems of a disk image that belong to one system, mounted one below the other. Which file systems they are,
//! `mount` of the build root finds out.

use std::fs::File;
use std::path::{Path, PathBuf};

use osbc_module_api::*;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::mounted_image::{Part, attach};
use crate::partition_table::SECTOR;

/// Mounts below a folder, until this is closed or dropped.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    folder: TempDir,
    mounts: Vec<PathBuf>,
}

impl MountedRoot {
    /// Mounts partitions of an image, by their numbers, at these places.
    ///
    /// # Errors
    /// The image has no such partition, or it cannot be mounted.
    pub(crate) fn mount(cx: &StageContext, image: &Path, parts: &[(u64, &str)]) -> Result<Self, Error> {
        let table = cx.tool("sfdisk")?.arg("--json").arg(image).output()?;
        let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        let mut mounted = Self { folder, mounts: Vec::new() };
        let file = File::options().read(true).write(true).open(image).map_err(Error::io("open", image))?;
        for (number, target) in parts {
            let part = partition(&table, *number)
                .ok_or_else(|| Error::failed(format!("{} has no partition {number}", image.display())))?;
            let device = attach(&file, part)?;
            // Opened each time: what was mounted last may lie on the root.
            let place = Tree::open(mounted.path())?.path_for_tools(target)?;
            cx.tool("mount")?.args(["-o", "rw"]).arg(device.node()).arg(&place).run()?;
            // The device stays as long as it is mounted.
            mounted.mounts.push(place);
        }
        Ok(mounted)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Unmounts all.
    ///
    /// # Errors
    /// Something is still in use.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        while let Some(place) = self.mounts.pop() {
            unmount(&place, UnmountFlags::NOFOLLOW).map_err(Error::io("unmount", place))?;
        }
        Ok(())
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        while let Some(place) = self.mounts.pop() {
            // What cannot be taken away here ends with the stage's mount namespace.
            unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
    }
}

/// A partition by the number at the end of its node, in what sfdisk says of an image.
fn partition(table: &[u8], number: u64) -> Option<Part> {
    let table: Value = serde_json::from_slice(table).ok()?;
    let partitions = table.pointer("/partitiontable/partitions")?.as_array()?;
    let sector = table.pointer("/partitiontable/sectorsize").and_then(Value::as_u64).unwrap_or(SECTOR);
    let digits = number.to_string();
    let found = partitions.iter().find(|partition| {
        let node = partition.get("node").and_then(Value::as_str).unwrap_or_default();
        node.trim_end_matches(|letter: char| letter.is_ascii_digit()).len() + digits.len() == node.len()
            && node.ends_with(&digits)
    })?;
    let sectors = |name: &str| found.get(name).and_then(Value::as_u64);
    Some(Part { offset: sectors("start")? * sector, size: sectors("size")? * sector })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_found_by_their_numbers() {
        let table = br#"{"partitiontable": {"sectorsize": 512, "partitions": [
            {"node": "metal1", "start": 34, "size": 2}, {"node": "metal14", "start": 40, "size": 4}]}}"#;
        assert_eq!(partition(table, 14), Some(Part { offset: 40 * 512, size: 4 * 512 }));
        assert_eq!(partition(table, 4), None);
        assert_eq!(partition(b"", 1), None);
    }
}
