//! The stamp of one directory or file: of its attributes and those of a directory's entries, without reading any.
//!
//! The change time that a file system keeps cannot be set, so whoever writes to a file, cuts it off, removes or
//! replaces it also changes the stamp of its directory. What it cannot see is a disk that gives other bytes than it was
//! given, which only reading finds; and it changes where nothing is wrong, as when a store is copied or brought back
//! from a backup.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat};

use super::Encoder;
use crate::fs::directories::{ROOT, Steps};
use crate::fs::walk;

const CONTEXT: &str = "osbc directory stamp 1";

/// Looks at the file `root`, or at all that is in the directory; in a large one with all of rayon's threads.
///
/// # Errors
/// A directory cannot be read, or `root` is neither.
pub(crate) fn stamp(root: &Path) -> io::Result<String> {
    let stat = rustix::fs::lstat(root)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        return Ok(encode(Seen::new(c"", None, &stat), Vec::new()));
    }
    let seen: Mutex<Vec<(usize, Seen)>> = Mutex::default();
    let known = walk::entries(root, |entry| {
        let name = if entry.number == Some(ROOT) { c"" } else { entry.name };
        let one = (entry.within, Seen::new(name, entry.number, &entry.stat));
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        Ok(())
    })?;
    let mut seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter();
    let Some((_, first)) = seen.next() else { return Err(io::ErrorKind::NotFound.into()) };
    let mut within: Vec<Vec<Seen>> = (0..known.len()).map(|_| Vec::new()).collect();
    seen.for_each(|(directory, one)| within[directory].push(one));
    Ok(encode(first, within))
}

/// What counts of an entry.
struct Seen {
    name: CString,
    /// For a directory its number.
    number: Option<usize>,
    inode: [i64; 4],
}

impl Seen {
    fn new(name: &CStr, number: Option<usize>, stat: &Stat) -> Self {
        let inode = [stat.st_ino as i64, stat.st_size, stat.st_ctime, stat.st_ctime_nsec as i64];
        Self { name: name.to_owned(), number, inode }
    }
}

/// Encodes the first of all and what is in the directories, by their numbers: in the order of paths.
fn encode(first: Seen, mut within: Vec<Vec<Seen>>) -> String {
    let mut encoder = Encoder::new(CONTEXT);
    let mut steps = Steps::default();
    let mut waiting = vec![(0, first)];
    while let Some((depth, Seen { name, number, inode })) = waiting.pop() {
        steps.go_to(depth, name.to_bytes());
        encoder.place(steps.path().as_os_str().as_encoded_bytes(), depth, name.to_bytes());
        inode.into_iter().for_each(|number| encoder.number(number));
        let mut next = number.and_then(|number| within.get_mut(number)).map(std::mem::take).unwrap_or_default();
        next.sort_unstable_by(|one, other| other.name.cmp(&one.name));
        waiting.extend(next.into_iter().map(|one| (depth + 1, one)));
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
