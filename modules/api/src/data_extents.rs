//! Where sparse files have data.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Start and length of each piece of data among the first `length` bytes of a file, in bytes, ascending.
///
/// # Errors
/// The file cannot be read.
pub fn data_extents(file: impl AsFd, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < length {
        let start = match seek(&file, SeekFrom::Data(position)) {
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
        let end = seek(&file, SeekFrom::Hole(start))?.min(length);
        extents.push((start, end - start));
        position = end;
    }
    Ok(extents)
}

/// The indices of the blocks of `size` bytes that are not wholly in a hole, ascending, of the first `length` bytes of a
/// file.
///
/// # Errors
/// The file cannot be read.
pub fn data_blocks(file: impl AsFd, length: u64, size: u64) -> io::Result<Vec<u64>> {
    let mut blocks: Vec<u64> = Vec::new();
    for (start, length) in data_extents(file, length)? {
        let next = blocks.last().map_or(0, |last| last + 1);
        blocks.extend((start / size).max(next)..(start + length).div_ceil(size));
    }
    Ok(blocks)
}
