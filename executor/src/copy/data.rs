//! The bytes of one file: shared by a reflink where the file system can, else copied inside the kernel, holes kept.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::departure::{Departure, PORTION};
use super::{Destination, Sharing};

/// What is copied at a time where the kernel cannot copy by itself.
const BLOCK: usize = 1 << 20;

/// Copies `size` bytes of `from` to the empty file `to`. `clones` says whether reflinks are worth a try, and is
/// taken back when they are not.
pub(super) fn copy(
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
    let mut departure = (destination == Destination::Elsewhere).then(|| Departure::of(to, size)).flatten();
    let mut position = 0;
    while position < size {
        let (start, end) = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            Ok(start) => (start, rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size)),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (position, size),
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            break;
        }
        if sharing == Sharing::Never {
            // The kernel's own copying shares bytes where it can.
            copy_by_hand(from, to, start, end, departure.as_mut())?;
        } else {
            copy_range(from, to, start, end, departure.as_mut())?;
        }
        position = end;
    }
    Ok(rustix::fs::ftruncate(to, size)?)
}

fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
    mut departure: Option<&mut Departure<'_>>,
) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        if let Some(departure) = &mut departure {
            departure.reached(read_at);
        }
        let length = if departure.is_some() { PORTION.min(end - read_at) } else { end - read_at };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            // Nothing although the file has more: some file systems only read by reading.
            Ok(0) => return copy_by_hand(from, to, read_at, end, departure),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                return copy_by_hand(from, to, read_at, end, departure);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
    mut departure: Option<&mut Departure<'_>>,
) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK.min(usize::try_from(end - start).unwrap_or(BLOCK))];
    let mut position = start;
    while position < end {
        if let Some(departure) = &mut departure {
            departure.reached(position);
        }
        let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(BLOCK));
        let got = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer[..wanted], position))?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was copied"));
        }
        let mut written = 0;
        while written < got {
            let at = position + written as u64;
            written += rustix::io::retry_on_intr(|| rustix::io::pwrite(to, &buffer[written..got], at))?;
        }
        position += got as u64;
    }
    Ok(())
}
