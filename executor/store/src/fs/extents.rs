//! How many bytes of files lie in blocks of the disk that other files have too, as reflinks make them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Mode, OFlags};

use crate::fs::walk;

/// Extents asked for at a time.
const MANY: usize = 64;

// Of <linux/fs.h> and <linux/fiemap.h>.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
const LAST: u32 = 0x1;
const SHARED: u32 = 0x2000;

/// What is asked, and the kernel's answer.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; MANY],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// The bytes of all files below `root` that lie in blocks which files have in common, within the tree or without.
///
/// # Errors
/// A file cannot be read, or the file system does not report its extents.
pub(crate) fn shared_below(root: &Path) -> io::Result<u64> {
    let bytes = AtomicU64::new(0);
    walk::entries(root, |entry| {
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::RegularFile && entry.stat.st_blocks > 0 {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
            let file = rustix::fs::openat(entry.directory, entry.name, flags, Mode::empty())?;
            bytes.fetch_add(shared(file.as_fd())?, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(bytes.into_inner())
}

/// The same of one file.
fn shared(file: BorrowedFd<'_>) -> io::Result<u64> {
    let (mut start, mut bytes) = (0, 0);
    loop {
        let mut request = Request {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            count: MANY as u32,
            reserved: 0,
            extents: [Extent::default(); MANY],
        };
        #[expect(unsafe_code, reason = "no safe wrapper for this ioctl in our dependencies")]
        // SAFETY: the kernel writes to `request` only, and to no more extents than `count` says.
        let asked = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut request) };
        if asked < 0 {
            return Err(io::Error::last_os_error());
        }
        let reported = &request.extents[..(request.mapped as usize).min(MANY)];
        bytes += reported.iter().filter(|extent| extent.flags & SHARED != 0).map(|extent| extent.length).sum::<u64>();
        match reported.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical + last.length,
            _ => return Ok(bytes),
        }
    }
}
