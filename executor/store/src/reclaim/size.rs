//! How much the store takes: one number in a file, kept up to date by whoever adds or removes something, so that nobody
//! has to count.
//!
//! A process that dies in between leaves too large a number at most; whoever evicts counts, and puts the right one
//! there.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};

use crate::error::StoreError;
use crate::fs::regular;
use crate::store::Store;

/// Adds to the number, and returns the new one; `None` if it is not known.
pub(crate) fn add(path: &Path, difference: i64) -> io::Result<Option<u64>> {
    let mut file = open(path)?;
    let Some(total) = parse(&mut file)?.map(|total| total.saturating_add_signed(difference)) else { return Ok(None) };
    write(&file, total)?;
    Ok(Some(total))
}

/// Puts the number there that was counted.
pub(crate) fn set(path: &Path, total: u64) -> io::Result<()> {
    write(&open(path)?, total)
}

/// The number, where it is known.
pub(crate) fn read(path: &Path) -> Option<u64> {
    parse(&mut regular::open(path, OFlags::RDONLY, regular::FOR_ALL).ok()?).ok()?
}

/// Opens the file for this process alone.
fn open(path: &Path) -> io::Result<File> {
    let file = regular::open(path, OFlags::RDWR | OFlags::CREATE, regular::FOR_ALL)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

fn parse(file: &mut File) -> io::Result<Option<u64>> {
    let mut text = String::new();
    match file.take(100).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        other => other.map(|_| text.strip_suffix('\n').and_then(|number| number.trim_start().parse().ok())),
    }
}

/// Always of the same length, so that no shorter number leaves a rest of a longer one.
fn write(file: &File, total: u64) -> io::Result<()> {
    file.write_all_at(format!("{total:>20}\n").as_bytes(), 0)
}

/// What became of something that was to appear in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    There,
    Taken,
}

impl Store {
    /// Counts so many bytes no more.
    pub(crate) fn uncount(&self, bytes: u64) {
        if bytes > 0 {
            // Too large a number does no harm.
            add(&self.layout().usage(), -i64::try_from(bytes).unwrap_or(i64::MAX)).ok();
        }
    }

    /// Counts what takes so many bytes when it appears: before it does, so that a process that dies in between makes
    /// the number too large and never too small.
    pub(crate) fn count(
        &self,
        bytes: u64,
        appear: impl FnOnce() -> Result<Placed, StoreError>,
    ) -> Result<Placed, StoreError> {
        let path = self.layout().usage();
        let difference = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.change("write", &path, || add(&path, difference))?;
        let placed = appear();
        if !matches!(placed, Ok(Placed::There)) {
            self.uncount(bytes);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_known_until_somebody_counts() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("usage");
        assert_eq!(read(&path), None);
        for damaged in ["", "12", "1x\n", "\u{fffd}\n"] {
            std::fs::write(&path, damaged).expect("writes");
            assert_eq!(add(&path, 7).expect("adds"), None, "{damaged:?}");
        }
        set(&path, 1000).expect("sets");
        assert_eq!(add(&path, 24).expect("adds"), Some(1024));
        assert_eq!(add(&path, -1020).expect("adds"), Some(4));
        assert_eq!(add(&path, -9).expect("adds"), Some(0));
        assert_eq!(read(&path), Some(0));
    }
}
