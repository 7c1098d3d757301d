//! Files in FAT file systems that lie in images: put there by mtools, without a mount or a device.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::trees::room::Room;

/// Something that is copied into a file system.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The file or directory: `input://NAME/PATH` or a path of the tree
    pub(crate) from: String,
    /// Its absolute path in the file system
    #[schemars(regex(pattern = r#"^(/[^/":*?<>|\\]+)+$"#))]
    pub(crate) to: String,
}

/// Copies files and directories into the FAT file system that begins at a byte of an image. Times are those of the
/// files.
///
/// # Errors
/// Something is not there, does not fit, or mtools cannot do it.
pub(crate) fn populate(cx: &StageContext, image: &Path, start: u64, entries: &[Entry]) -> Result<(), Error> {
    // `::` is mtools' name of the image.
    let drive = format!("{}@@{start}", image.display());
    let tool = |name: &str| Ok::<_, Error>(prepared(cx, cx.tool(name)?).args(["-i", &drive]));
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for entry in entries {
        for (at, _) in entry.to.match_indices('/').skip(1) {
            let directory = &entry.to[..at];
            if made.insert(directory) {
                let there = tool("mdir")?.arg("-b").arg(format!("::{directory}")).output();
                match there {
                    Err(Error::ToolFailed { .. }) => tool("mmd")?.arg(format!("::{directory}")).run()?,
                    result => drop(result?),
                }
            }
        }
        let from = source(cx, &entry.from)?;
        // With what is in directories, with times, over what is there; and no further after an error.
        let copied = tool("mcopy")?.args(["-s", "-m", "-o", "-Q"]).arg(from).arg(format!("::{}", entry.to)).run();
        copied.map_err(|error| match error {
            Error::ToolFailed { .. } => too_small(cx, image, start, entries).unwrap_or(error),
            error => error,
        })?;
    }
    Ok(())
}

/// Returns the failure that all entries do not fit into the file system, if that is so.
fn too_small(cx: &StageContext, image: &Path, start: u64, entries: &[Entry]) -> Option<Error> {
    let mut boot = [0; 40];
    File::open(image).and_then(|image| image.read_exact_at(&mut boot, start)).ok()?;
    let (cluster, have) = clusters(&boot)?;
    let mut need = 0;
    for entry in entries {
        let Location { tree, path, .. } = cx.location(&entry.from).ok()?;
        // Every directory has a cluster at least.
        let taken = |metadata: &Metadata| if metadata.is_file() { metadata.len().div_ceil(cluster) } else { 1 };
        tree.walk(path, |_, metadata| {
            need += taken(metadata) * cluster;
            Ok(())
        })
        .ok()?;
    }
    let lacking = Room { need, have: have * cluster }.lacking()?;
    Some(Error::failed(format!("the FAT file system is too small: {lacking}")))
}

/// Returns how many bytes a cluster has and how many clusters there are, by a file system's first sector.
fn clusters(boot: &[u8; 40]) -> Option<(u64, u64)> {
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let long = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|byte| boot[at + byte])));
    let either = |at: usize, other: usize| Some(short(at)).filter(|number| *number != 0).unwrap_or_else(|| long(other));
    let (sector, per_cluster) = (short(11), u64::from(boot[13]));
    let table = u64::from(boot[16]) * either(22, 36);
    let root = (short(17) * 32).checked_div(sector)?;
    let data = either(19, 32).checked_sub(short(14) + table + root)?;
    Some((sector * per_cluster, data.checked_div(per_cluster)?))
}

/// Where a location is for tools.
fn source(cx: &StageContext, location: &str) -> Result<PathBuf, Error> {
    let Location { tree, path, .. } = cx.location(location)?;
    tree.path_for_tools(path)
}

/// The environment in which mtools makes the same of the same.
pub(crate) fn prepared(cx: &StageContext, tool: Tool) -> Tool {
    let tool = tool.env("MTOOLS_SKIP_CHECK", "1").env("MTOOLSRC", "/dev/null").env("TZ", "UTC");
    match cx.meta.source_epoch {
        Some(epoch) => tool.env("SOURCE_DATE_EPOCH", epoch.to_string()),
        None => tool,
    }
}
