//! Large files that are copied out of the store: their bytes are on their way to the disk while the copy goes on, and
//! then leave the page cache, where what builds read has its place.
//!
//! Memory that is used again is faster than new one, too.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::Destination;

/// Bytes that are written and handed on at a time. A file of a few of them stays in memory.
pub(crate) const PORTION: u64 = 16 << 20;
/// How long handing on a portion may take: a slower disk (500 MB/s) would hold the copy up, and is left to the kernel.
const PORTION_TIMEOUT: Duration = Duration::from_millis(32);

/// A file that is written from its beginning to its end.
pub(crate) struct Writeback<'a> {
    file: BorrowedFd<'a>,
    /// Up to where the disk was asked to take it.
    handed_on: u64,
    /// Up to where memory was asked to forget it.
    forgotten: u64,
    /// Whether it goes no further: since nobody wanted it to, or the disk is too slow.
    stays: bool,
}

impl<'a> Writeback<'a> {
    /// That of a file that will have so many bytes; a small one, and one for the store, stays.
    pub(crate) fn of(file: BorrowedFd<'a>, size: u64, destination: Destination) -> Self {
        let stays = destination == Destination::Store || size <= 4 * PORTION;
        Self { file, handed_on: 0, forgotten: 0, stays }
    }

    /// Takes notice that the file is written up to a position. That it leaves memory is a help, no duty: what the
    /// system refuses is left.
    pub(crate) fn reached(&mut self, position: u64) {
        if self.stays || position < self.handed_on + PORTION {
            return;
        }
        let begun = Instant::now();
        write_out(self.file, self.handed_on, position - self.handed_on);
        // What was handed on last is still on its way.
        if let Some(length) = std::num::NonZeroU64::new(self.handed_on.saturating_sub(PORTION + self.forgotten)) {
            fadvise(self.file, self.forgotten, Some(length), Advice::DontNeed).ok();
            self.forgotten += length.get();
        }
        self.handed_on = position;
        self.stays = begun.elapsed() > PORTION_TIMEOUT;
    }
}

/// Has the kernel begin to write these bytes to the disk, and does not wait for it.
fn write_out(file: BorrowedFd<'_>, start: u64, length: u64) {
    let (Ok(start), Ok(length)) = (i64::try_from(start), i64::try_from(length)) else { return };
    #[expect(unsafe_code, reason = "no dependency wraps sync_file_range")]
    // SAFETY: the call reads nothing but its arguments, and the descriptor is open.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), start, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn nothing_is_lost_and_small_files_stay() {
        let mut file = tempfile::tempfile().unwrap();
        for (size, destination) in [(4 * PORTION, Destination::Elsewhere), (8 * PORTION, Destination::Store)] {
            assert!(Writeback::of(file.as_fd(), size, destination).stays);
        }
        let reader = file.try_clone().unwrap();
        let mut writeback = Writeback::of(reader.as_fd(), 8 * PORTION, Destination::Elsewhere);
        assert!(!writeback.stays);
        let portion: Vec<u8> = (0..PORTION).map(|index| (index % 251).to_le_bytes()[0]).collect();
        for number in 0..8 {
            file.write_all(&portion).unwrap();
            writeback.reached((number + 1) * PORTION);
        }
        assert!(writeback.stays || writeback.forgotten == 6 * PORTION, "{}", writeback.forgotten);
        let mut again = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        File::read_to_end(&mut file, &mut again).unwrap();
        assert!(again.chunks(portion.len()).all(|chunk| chunk == portion));
    }
}
