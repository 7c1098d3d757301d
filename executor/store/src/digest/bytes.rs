//! The bytes of one file.
//!
//! Cut into blocks so that a large one is hashed by many threads, and so that holes cost nothing: a block of zeros is
//! left out, whether it lies on the disk or not.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use osbc_module_api::data_extents::data_blocks;
use rayon::prelude::*;

use super::{Encoder, Hash};

const CONTEXT: &str = "osbc file content 1";
const BLOCK: u64 = 256 << 10;

/// The hash of a file's content.
pub(crate) fn hash(file: BorrowedFd<'_>, size: u64) -> io::Result<Hash> {
    let mut encoder = Encoder::new(CONTEXT);
    encoder.raw(&size.to_le_bytes());
    let count = size.div_ceil(BLOCK);
    if count <= 1 {
        add(&mut encoder, block(file, 0, size)?);
        return Ok(encoder.finish());
    }
    let wanted = data_blocks(file, size, BLOCK)?;
    let hashed: io::Result<Vec<_>> = wanted.into_par_iter().map(|index| block(file, index, size)).collect();
    for one in hashed? {
        add(&mut encoder, one);
    }
    Ok(encoder.finish())
}

fn add(encoder: &mut Encoder, block: Option<(u64, Hash)>) {
    if let Some((index, hash)) = block {
        encoder.raw(&index.to_le_bytes());
        encoder.raw(&hash);
    }
}

/// A block's index and hash; `None` if it is all zeros.
fn block(file: BorrowedFd<'_>, index: u64, size: u64) -> io::Result<Option<(u64, Hash)>> {
    let start = index * BLOCK;
    let length = usize::try_from(BLOCK.min(size - start)).expect("a block fits");
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let at = start + filled as u64;
        match rustix::io::retry_on_intr(|| rustix::io::pread(file.as_fd(), &mut buffer[filled..], at))? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read")),
            got => filled += got,
        }
    }
    let is_zero = buffer.iter().all(|&byte| byte == 0);
    Ok((!is_zero).then(|| (index, blake3::hash(&buffer).into())))
}
