//! Files of lines that many processes append to at the same time, each whole lines by one write, and that forget their
//! older half when they grow long.
//!
//! Knows nothing of what the lines say.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rustix::fs::OFlags;

use crate::fs::regular;

/// Appends whole lines to a file, which is created if it is not there. From `limit` bytes on, its older half is dropped.
///
/// # Errors
/// The file cannot be opened, read or written, or is not a regular file.
pub fn append(path: &Path, lines: &[u8], limit: u64) -> io::Result<()> {
    let mut file = regular::open(path, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE, regular::FOR_ALL)?;
    file.write_all(lines)?;
    if file.metadata()?.len() > limit { forget_older_half(path, file, limit) } else { Ok(()) }
}

fn forget_older_half(path: &Path, mut file: File, limit: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(limit / 2))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let start = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut newer = tempfile::Builder::new().prefix(".newer-").tempfile_in(directory)?;
    newer.write_all(&rest[start..])?;
    newer.persist(path)?;
    Ok(())
}
