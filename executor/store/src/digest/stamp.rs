//! The stamp of one directory or file: of its attributes and those of a directory's entries, without reading any.
//!
//! The change time that a file system keeps cannot be set, so whoever writes to a file, cuts it off, removes or
//! replaces it also changes the stamp of its directory. What it cannot see is a disk that gives other bytes than it was
//! given, which only reading finds; and it changes where nothing is wrong, as when a store is copied or brought back
//! from a backup.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat};

use super::Encoder;
use crate::fs::walk;

const CONTEXT: &str = "osbc directory stamp 1";

/// Looks at the file `root`, or at all that is in the directory; in a large one with all of rayon's threads.
///
/// # Errors
/// A directory cannot be read, or `root` is neither.
pub(crate) fn stamp(root: &Path) -> io::Result<String> {
    let stat = rustix::fs::lstat(root)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(encode(vec![(PathBuf::new(), stat)]));
    }
    let seen: Mutex<Vec<(PathBuf, Stat)>> = Mutex::default();
    walk::entries(root, |entry| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((entry.path.to_owned(), entry.stat));
        Ok(())
    })?;
    Ok(encode(seen.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn encode(mut seen: Vec<(PathBuf, Stat)>) -> String {
    seen.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut encoder = Encoder::new(CONTEXT);
    for (path, stat) in seen {
        encoder.bytes(path.as_os_str().as_bytes());
        let numbers = [stat.st_ino as i64, stat.st_size, stat.st_ctime, stat.st_ctime_nsec as i64];
        numbers.into_iter().for_each(|number| encoder.number(number));
    }
    blake3::Hash::from_bytes(encoder.finish()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_change_shows_and_a_look_does_not() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("a byte, and the time set back", |root| {
                let file = fs::OpenOptions::new().write(true).open(root.join("d/file")).expect("opens");
                let time = file.metadata().and_then(|metadata| metadata.modified()).expect("has a time");
                file.write_all_at(b"X", 2).expect("writes");
                file.set_modified(time).expect("sets");
            }),
            ("a length", |root| {
                fs::OpenOptions::new()
                    .write(true)
                    .open(root.join("d/file"))
                    .and_then(|file| file.set_len(3))
                    .expect("cuts");
            }),
            ("a missing file", |root| fs::remove_file(root.join("d/file")).expect("removes")),
            ("a missing directory", |root| fs::remove_dir_all(root.join("d")).expect("removes")),
            ("one more", |root| fs::write(root.join("d/more"), "").expect("writes")),
            ("a replaced file", |root| {
                fs::write(root.join("new"), "content").expect("writes");
                fs::rename(root.join("new"), root.join("d/file")).expect("renames");
            }),
        ];
        for (name, change) in changes {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = directory.path().join("tree");
            fs::create_dir_all(root.join("d/e")).expect("makes");
            fs::write(root.join("d/file"), "content").expect("writes");
            let before = stamp(&root).expect("looks");
            assert_eq!(fs::read(root.join("d/file")).expect("reads"), b"content");
            assert_eq!(stamp(&root).expect("looks"), before, "{name}");
            // Change times are only as fine as the kernel's clock ticks.
            std::thread::sleep(Duration::from_millis(20));
            change(&root);
            assert_ne!(stamp(&root).expect("looks"), before, "{name}");
        }
    }
}
