//! Files in FAT file systems that lie in images: put there by mtools, without a mount or a device.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use osbc_module_api::*;

/// Something that is copied into a file system.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The file or folder: `input://NAME/PATH` or a path of the tree
    pub(crate) from: String,
    /// Its absolute path in the file system
    #[schemars(regex(pattern = r#"^(/[^/":*?<>|\\]+)+$"#))]
    pub(crate) to: String,
}

/// Copies files and folders into the FAT file system that begins at a byte of an image. Times are those of the files.
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
            let folder = &entry.to[..at];
            if made.insert(folder) {
                let there = tool("mdir")?.arg("-b").arg(format!("::{folder}")).output();
                match there {
                    Err(Error::ToolFailed { .. }) => tool("mmd")?.arg(format!("::{folder}")).run()?,
                    result => drop(result?),
                }
            }
        }
        let from = source(cx, &entry.from)?;
        // With what is in folders, with times, over what is there; and no further after an error.
        tool("mcopy")?.args(["-s", "-m", "-o", "-Q"]).arg(from).arg(format!("::{}", entry.to)).run()?;
    }
    Ok(())
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
