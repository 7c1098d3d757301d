//! The bytes of one file: shared by a reflink where the file system can, else copied inside the kernel, holes kept.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use osbc_module_api::data_extents::data_extents;
use rustix::io::Errno;

use super::writeback::{PORTION, Writeback};
use super::{Destination, Sharing};

/// What is copied at a time where the kernel cannot copy by itself.
const BLOCK: usize = 1 << 20;

/// Copies `size` bytes of `from` to the empty file `to`. `clones` says whether reflinks are worth a try, and is
/// taken back when they are not.
pub(crate) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    sharing: Sharing,
    destination: Destination,
    clones: &AtomicBool,
) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    if sharing == Sharing::Always {
        return Ok(rustix::fs::ioctl_ficlone(to, from)?);
    }
    if sharing == Sharing::IfPossible && clones.load(Ordering::Relaxed) {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => clones.store(false, Ordering::Relaxed),
            // This one file cannot be cloned.
            Err(_) => {}
        }
    }
    let mut copy = Copying { from, to, writeback: Writeback::of(to, size, destination) };
    for (start, length) in data_extents(from, size)? {
        if sharing == Sharing::Never {
            // The kernel's own copying shares bytes where it can.
            copy.by_hand(start, start + length)?;
        } else {
            copy.in_the_kernel(start, start + length)?;
        }
    }
    Ok(rustix::fs::ftruncate(to, size)?)
}

/// A file that is being copied.
struct Copying<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    writeback: Writeback<'a>,
}

impl Copying<'_> {
    fn in_the_kernel(&mut self, start: u64, end: u64) -> io::Result<()> {
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            self.writeback.reached(read_at);
            let length = usize::try_from(PORTION.min(end - read_at)).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(self.from, Some(&mut read_at), self.to, Some(&mut write_at), length) {
                // Nothing although the file has more: some file systems only read by reading.
                Ok(0) => return self.by_hand(read_at, end),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                    return self.by_hand(read_at, end);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn by_hand(&mut self, start: u64, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; BLOCK.min(usize::try_from(end - start).unwrap_or(BLOCK))];
        let mut position = start;
        while position < end {
            self.writeback.reached(position);
            let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(BLOCK));
            let got = rustix::io::retry_on_intr(|| rustix::io::pread(self.from, &mut buffer[..wanted], position))?;
            if got == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was copied",
                ));
            }
            let mut written = 0;
            while written < got {
                let at = position + written as u64;
                written += rustix::io::retry_on_intr(|| rustix::io::pwrite(self.to, &buffer[written..got], at))?;
            }
            position += got as u64;
        }
        Ok(())
    }
}
