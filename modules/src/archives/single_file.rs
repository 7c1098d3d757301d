//! The stages that make one file of one file: what they take, where they read and write. Knows nothing of what is
//! done to the data.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::archives::compression::Format;

/// The path of the file that the input `name` hands over.
///
/// # Errors
/// There is no such input, or it has not exactly one file.
pub(crate) fn path(cx: &StageContext, name: &str) -> Result<PathBuf, Error> {
    let input = cx.input(name)?;
    let files = input.data.get("files").and_then(Value::as_object);
    let mut names = files.into_iter().flat_map(Map::keys);
    match (names.next(), names.next()) {
        (Some(file), None) => Ok(input.path.join(file)),
        _ => Err(Error::failed(format!(
            "the input `{name}` must have exactly one file, but has {}",
            files.map_or(0, Map::len)
        ))),
    }
}

/// Opens the file `path` of the tree for writing, emptied if it was there.
///
/// # Errors
/// Its directory is not there, or it is a directory itself.
pub(crate) fn create(tree: &Tree, path: &str) -> Result<File, Error> {
    tree.open_file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o666)
}

/// Compresses the one file of the input `file` to the file `target` of the tree.
///
/// # Errors
/// The input has not exactly one file, or reading or writing fails.
pub(crate) fn compress(cx: &StageContext, format: Format, level: u32, target: &str) -> Result<(), Error> {
    let source = path(cx, "file")?;
    let mut input = File::open(&source).map_err(Error::io("open", &source))?;
    let size = input.metadata().map_err(Error::io("inspect", &source))?.len();
    let output = create(&cx.tree, target)?;
    let attempt = || -> io::Result<()> {
        let mut encoder = format.encoder(level, Some(size), output)?;
        io::copy(&mut input, &mut encoder)?;
        encoder.finish()?.flush()
    };
    attempt().map_err(Error::io("compress to", target))
}
