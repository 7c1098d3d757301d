//! Where sparse files have data.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Start and length of each piece of data among the first `length` bytes of a file, in bytes, ascending.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn data_extents(file: &File, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < length {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system without an answer: it may all be data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                extents.push((position, length - position));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        if start >= length {
            break;
        }
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        extents.push((start, end - start));
        position = end;
    }
    Ok(extents)
}
