//! Reads files that others wrote, perhaps to do harm: only regular files, and only up to a plausible size.
//!
//! A fifo would keep its reader waiting, a device has no end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The largest file that goes into memory as a whole, in bytes.
pub const WHOLE: u64 = 1 << 30;

/// Reads the regular file `path`, following links, if it has at most `limit` bytes.
///
/// # Errors
/// It is something else, larger, or cannot be read.
pub fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_open(File::from(rustix::fs::open(path.as_ref(), flags, Mode::empty())?), limit)
}

/// Reads all of a regular file that was opened without waiting, if it has at most `limit` bytes.
///
/// # Errors
/// It is something else, larger, or cannot be read.
pub fn read_open(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(wrong("it is no regular file".to_owned()));
    }
    let too_large = |size: u64| Err(wrong(format!("it has {size} bytes; more than {limit} are not read")));
    if metadata.len() > limit {
        return too_large(metadata.len());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile, and files of the kernel do not say how large they are.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { too_large(bytes.len() as u64) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_up_to_the_limit_are_read_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "12345").expect("writable");
        assert_eq!(read(&path, 5).expect("small enough"), b"12345");
        let refused = |path: &Path| read(path, 4).expect_err("it is refused").to_string();
        assert_eq!(refused(&path), "it has 5 bytes; more than 4 are not read");
        assert_eq!(refused(Path::new("/dev/zero")), "it is no regular file");
        assert!(refused(Path::new("/proc/self/status")).contains("more than 4 are not read"));
        assert!(refused(directory.path()).contains("directory"));
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
        assert_eq!(refused(&fifo), "it is no regular file");
    }
}
