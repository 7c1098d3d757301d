//! ext4 file systems with contents in a part of an image, made by mke2fs without a mount or a device.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::trees::room::Room;

/// What mke2fs goes by besides its arguments.
pub(crate) const CONFIGURATION: &str = "/etc/mke2fs.conf";

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// The inode of a file system's root.
const ROOT_INODE: u64 = 2;
/// That of `lost+found`, behind which those of files come one after the other.
const FIRST_INODE: u64 = 11;
/// Where the superblock begins, and what is in it: free blocks and free inodes.
const SUPERBLOCK: u64 = 1024;
const FREE_BLOCKS: usize = 12;
const FREE_INODES: usize = 16;
/// The longest target that a symbolic link's inode holds.
const SHORT_LINK: u64 = 59;

/// A file system to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ext4<'a> {
    /// The image.
    pub(crate) image: &'a Path,
    /// The first byte of its part.
    pub(crate) start: u64,
    /// How many bytes its part has.
    pub(crate) size: u64,
    /// Its identifier.
    pub(crate) uuid: &'a str,
    /// Its label.
    pub(crate) label: Option<&'a str>,
    /// The directory whose files it has.
    pub(crate) from: Option<&'a str>,
}

impl Ext4<'_> {
    /// Makes the file system.
    ///
    /// # Errors
    /// The directory is not there, its files do not fit, or a tool is missing or fails.
    pub(crate) fn make(&self, cx: &StageContext) -> Result<(), Error> {
        let Some(from) = self.from else { return self.finish(cx, self.tool(cx)?, FIRST_INODE) };
        let Location { tree, path, .. } = cx.location(from)?;
        let needs = Needs::of(&tree, &path)?;
        let tool = self.tool(cx)?.arg("-d").arg(tree.path_for_tools(&path)?);
        self.finish(cx, tool, FIRST_INODE + needs.inodes).map_err(|error| match error {
            Error::ToolFailed { .. } => self.too_small(cx, &needs).unwrap_or(error),
            error => error,
        })
    }

    /// `mke2fs` with all arguments but the image and those for contents.
    fn tool(&self, cx: &StageContext) -> Result<Tool, Error> {
        let Self { start, uuid, .. } = self;
        // All that mke2fs would draw by lot comes from the identifier.
        let extended = format!("offset={start},hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0");
        let tool = cx.tool("mke2fs")?.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-U", uuid, "-E", &extended]);
        Ok(match self.label.filter(|label| !label.is_empty()) {
            Some(label) => tool.args(["-L", label]),
            None => tool,
        })
    }

    /// Runs `mke2fs`, and sets the times of all inodes below `inodes` to the source epoch.
    fn finish(&self, cx: &StageContext, tool: Tool, inodes: u64) -> Result<(), Error> {
        let place: [PathBuf; 2] = [self.image.to_owned(), format!("{}k", self.size / 1024).into()];
        let Some(epoch) = cx.meta.source_epoch.map(|epoch| epoch.to_string()) else {
            return tool.args(place).run();
        };
        tool.env("SOURCE_DATE_EPOCH", &epoch).env("E2FSPROGS_FAKE_TIME", &epoch).args(place).run()?;
        // When files were last read and changed says when the tree was made, and mke2fs takes it over.
        let all = std::iter::once(ROOT_INODE).chain(FIRST_INODE..inodes);
        let script: String =
            all.map(|inode| format!("sif <{inode}> atime @{epoch}\nsif <{inode}> ctime @{epoch}\n")).collect();
        let place = format!("{}?offset={}", self.image.display(), self.start);
        let tool = cx.tool("debugfs")?.env("E2FSPROGS_FAKE_TIME", &epoch);
        // It repeats each command.
        tool.args(["-w", "-f", "-"]).arg(place).stdin(script).output().map(drop)
    }

    /// Returns the failure that what it shall hold does not fit, if that is so; the image is made anew for that, and
    /// empty.
    fn too_small(&self, cx: &StageContext, needs: &Needs) -> Option<Error> {
        self.finish(cx, self.tool(cx).ok()?, FIRST_INODE).ok()?;
        let mut superblock = [0; FREE_INODES + 4];
        File::open(self.image).and_then(|image| image.read_exact_at(&mut superblock, self.start + SUPERBLOCK)).ok()?;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| superblock[at + byte]));
        let (blocks, inodes) = (u64::from(number(FREE_BLOCKS)), u64::from(number(FREE_INODES)));
        if needs.inodes > inodes {
            let files = needs.inodes;
            return Some(Error::failed(format!(
                "the ext4 file system has room for {inodes} files, and is to hold {files}; raise its `size`"
            )));
        }
        let room = Room { need: needs.blocks * BLOCK, have: blocks * BLOCK };
        room.lacking().map(|lacking| Error::failed(format!("the ext4 file system is too small: {lacking}")))
    }
}

/// What the files of a directory take of a file system.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// Inodes, with that of `lost+found` in place of the directory's own.
    inodes: u64,
    blocks: u64,
}

impl Needs {
    fn of(tree: &Tree, directory: &Path) -> Result<Self, Error> {
        let (mut needs, mut linked) = (Self::default(), HashSet::new());
        tree.walk(directory, |_, metadata| {
            let kind = metadata.file_type();
            let again = metadata.nlink() > 1 && !kind.is_dir() && !linked.insert(metadata.ino());
            // A socket is left out.
            if again || kind.is_socket() {
                return Ok(());
            }
            needs.inodes += 1;
            needs.blocks += if kind.is_dir() {
                1
            } else if kind.is_file() {
                // Holes stay holes.
                metadata.len().div_ceil(BLOCK).min((metadata.blocks() * 512).div_ceil(BLOCK))
            } else {
                u64::from(kind.is_symlink() && metadata.len() > SHORT_LINK)
            };
            Ok(())
        })?;
        Ok(needs)
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::builtin::find;

    #[test]
    fn needs_are_counted_once_for_each_file() {
        let def = find(Kind::Stage, "org.osbc.disk").unwrap().def;
        let case = Case::new(def).file("a/one", vec![1; 5000]).link("a/short", "one").link("a/long", "x".repeat(60));
        let tree = case.tree();
        tree.hard_link("a/one", "a/two").unwrap();
        tree.open_file("a/hole", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o644)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert_eq!(Needs::of(tree, Path::new("a")).unwrap(), Needs { inodes: 5, blocks: 1 + 2 + 1 });
    }
}
