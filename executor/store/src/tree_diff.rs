//! What is different between two trees, entry by entry: for people who want to know why a build does not repeat itself.
//!
//! Knows open directories; what they are trees of is its caller's part.
//!
//! Times of the run itself are passed over, as they are in digests ([`crate::digest`]): those that are not before the
//! moment at which the tree's build began.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use serde::Serialize;

use crate::fs::copy::attributes_of;
use crate::fs::long_path;

/// How many bytes are compared at a time, and how many of those that differ are shown.
const BLOCK: usize = 256 << 10;
const SHOWN: usize = 16;

/// A tree, and when the build that made it began, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// Its root.
    pub root: BorrowedFd<'a>,
    /// From when on times are those of the run.
    pub began: i64,
}

/// An attribute in which an entry is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Difference {
    /// Only one tree has the entry.
    Missing {
        /// Whether it is the first one that has it.
        first_has_it: bool,
    },
    /// The entries are of different types.
    Type {
        /// The first one's.
        first: String,
        /// The second one's.
        second: String,
    },
    /// The permissions.
    Mode {
        /// The first one's.
        first: u32,
        /// The second one's.
        second: u32,
    },
    /// User and group.
    Owner {
        /// The first one's.
        first: (u32, u32),
        /// The second one's.
        second: (u32, u32),
    },
    /// The modification time, in seconds and nanoseconds since 1970.
    Time {
        /// The first one's.
        first: (i64, i64),
        /// The second one's.
        second: (i64, i64),
    },
    /// An extended attribute.
    Attribute {
        /// Its name.
        name: String,
    },
    /// The target of a symbolic link.
    Target {
        /// The first one's.
        first: String,
        /// The second one's.
        second: String,
    },
    /// The numbers of a device.
    Device,
    /// The bytes of a file.
    Content {
        /// The size of the first one.
        first_size: u64,
        /// The size of the second one.
        second_size: u64,
        /// The first place where they differ: at the end of the shorter one, if that is where the longer one begins.
        offset: u64,
        /// A few bytes from there on.
        first: Vec<u8>,
        /// A few bytes from there on.
        second: Vec<u8>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Missing { first_has_it: true } => f.write_str("only in the first"),
            Difference::Missing { first_has_it: false } => f.write_str("only in the second"),
            Difference::Type { first, second } => write!(f, "type: {first} and {second}"),
            Difference::Mode { first, second } => write!(f, "mode: {first:o} and {second:o}"),
            Difference::Owner { first, second } => {
                write!(f, "owner: {}:{} and {}:{}", first.0, first.1, second.0, second.1)
            }
            Difference::Time { first, second } => {
                write!(f, "modified: {}.{:09} and {}.{:09}", first.0, first.1, second.0, second.1)
            }
            Difference::Attribute { name } => write!(f, "extended attribute {name}"),
            Difference::Target { first, second } => write!(f, "links to: {first} and {second}"),
            Difference::Device => f.write_str("device numbers"),
            Difference::Content { first_size, second_size, offset, first, second } => {
                if first_size != second_size {
                    write!(f, "size: {first_size} and {second_size}; ")?;
                }
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
                write!(f, "content from byte {offset} on: {} and {}", hex(first), hex(second))
            }
        }
    }
}

/// An entry that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// Its path in the trees, `/` for the root.
    pub path: PathBuf,
    /// In what.
    pub differences: Vec<Difference>,
}

/// All entries that are different, by path.
///
/// # Errors
/// An entry cannot be read.
pub fn differ(first: Tree<'_>, second: Tree<'_>) -> io::Result<Vec<Differing>> {
    let mut found = Vec::new();
    let stats = (rustix::fs::fstat(first.root)?, rustix::fs::fstat(second.root)?);
    let mut at_root = Vec::new();
    attributes((&first, first.root), (&second, second.root), c".", &stats, &mut at_root)?;
    add(&mut found, Path::new("/"), at_root);
    let mut directories = vec![PathBuf::from(".")];
    while let Some(path) = directories.pop() {
        let (one, other) = (open_directory(first.root, &path)?, open_directory(second.root, &path)?);
        let (names, other_names) = (names(&one)?, names(&other)?);
        for name in names.union(&other_names) {
            let at = path.join(OsStr::from_bytes(name.to_bytes()));
            let place = Path::new("/").join(at.strip_prefix(".").unwrap_or(&at));
            let mut differences = Vec::new();
            if names.contains(name) && other_names.contains(name) {
                let pair = ((&first, one.as_fd()), (&second, other.as_fd()));
                if entry(pair.0, pair.1, name, &mut differences)? {
                    directories.push(at);
                }
            } else {
                differences.push(Difference::Missing { first_has_it: names.contains(name) });
            }
            add(&mut found, &place, differences);
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn add(found: &mut Vec<Differing>, path: &Path, differences: Vec<Difference>) {
    if !differences.is_empty() {
        found.push(Differing { path: path.to_owned(), differences });
    }
}

/// A tree and an open directory of it.
type Place<'a> = (&'a Tree<'a>, BorrowedFd<'a>);

/// Compares an entry that both have; says whether it is a directory in both.
fn entry(one: Place<'_>, other: Place<'_>, name: &CStr, found: &mut Vec<Difference>) -> io::Result<bool> {
    let stat = |place: Place<'_>| rustix::fs::statat(place.1, name, AtFlags::SYMLINK_NOFOLLOW);
    let stats = (stat(one)?, stat(other)?);
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    let kinds = (kind(&stats.0), kind(&stats.1));
    if kinds.0 != kinds.1 {
        found.push(Difference::Type { first: word(kinds.0), second: word(kinds.1) });
        return Ok(false);
    }
    attributes(one, other, name, &stats, found)?;
    match kinds.0 {
        FileType::RegularFile => {
            let open = |place: Place<'_>| {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(place.1, name, flags, Mode::empty())
            };
            found.extend(content(&open(one)?, &open(other)?, (stats.0.st_size as u64, stats.1.st_size as u64))?);
        }
        FileType::Symlink => {
            let target = |place: Place<'_>| -> io::Result<String> {
                Ok(rustix::fs::readlinkat(place.1, name, Vec::new())?.to_string_lossy().into_owned())
            };
            let (first, second) = (target(one)?, target(other)?);
            if first != second {
                found.push(Difference::Target { first, second });
            }
        }
        FileType::BlockDevice | FileType::CharacterDevice if stats.0.st_rdev != stats.1.st_rdev => {
            found.push(Difference::Device);
        }
        _ => {}
    }
    Ok(kinds.0 == FileType::Directory)
}

fn attributes(
    one: Place<'_>,
    other: Place<'_>,
    name: &CStr,
    (first, second): &(Stat, Stat),
    found: &mut Vec<Difference>,
) -> io::Result<()> {
    let (modes, owner) = ((first.st_mode & 0o7777, second.st_mode & 0o7777), |stat: &Stat| (stat.st_uid, stat.st_gid));
    if modes.0 != modes.1 {
        found.push(Difference::Mode { first: modes.0, second: modes.1 });
    }
    if owner(first) != owner(second) {
        found.push(Difference::Owner { first: owner(first), second: owner(second) });
    }
    let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec as i64);
    let of_the_run = |place: Place<'_>, stat: &Stat| stat.st_mtime >= place.0.began;
    if modified(first) != modified(second) && !(of_the_run(one, first) && of_the_run(other, second)) {
        found.push(Difference::Time { first: modified(first), second: modified(second) });
    }
    let read = |place: Place<'_>| -> io::Result<BTreeMap<CString, Vec<u8>>> {
        Ok(attributes_of(place.1, name)?.into_iter().collect())
    };
    let (first, second) = (read(one)?, read(other)?);
    for name in first.keys().chain(second.keys()).collect::<BTreeSet<_>>() {
        if first.get(name) != second.get(name) {
            found.push(Difference::Attribute { name: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

/// Where the bytes of two files begin to differ.
fn content(one: &OwnedFd, other: &OwnedFd, sizes: (u64, u64)) -> io::Result<Option<Difference>> {
    let (mut first, mut second) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut position = 0;
    loop {
        let got = (fill(one, &mut first, position)?, fill(other, &mut second, position)?);
        let (first, second) = (&first[..got.0], &second[..got.1]);
        if first != second {
            let same = first.iter().zip(second).take_while(|(one, other)| one == other).count();
            let shown = |bytes: &[u8]| bytes[same..bytes.len().min(same + SHOWN)].to_vec();
            return Ok(Some(Difference::Content {
                first_size: sizes.0,
                second_size: sizes.1,
                offset: position + same as u64,
                first: shown(first),
                second: shown(second),
            }));
        }
        if got.0 == 0 {
            return Ok(None);
        }
        position += got.0 as u64;
    }
}

/// Reads as much as there is, up to the length of the buffer.
fn fill(file: &OwnedFd, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[filled..], position + filled as u64))? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

fn names(directory: &OwnedFd) -> io::Result<BTreeSet<CString>> {
    let entries = Dir::read_from(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_owned()));
    let names: io::Result<BTreeSet<CString>> = names.collect();
    Ok(names?.into_iter().filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..").collect())
}

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let place = long_path::place(root, path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(place.directory(), &*place.path, flags, Mode::empty())?)
}

fn word(kind: FileType) -> String {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    type Make = dyn Fn(&Path);

    /// `path: what` of all that is different in trees that are made like that.
    fn reported(began: i64, first: &Make, second: &Make) -> Vec<String> {
        let trees = [first, second].map(|make| {
            let tree = tempfile::tempdir().expect("a temporary directory");
            make(tree.path());
            tree
        });
        let roots = [0, 1].map(|index: usize| fs::File::open(trees[index].path()).expect("opens"));
        let tree = |index: usize| Tree { root: roots[index].as_fd(), began };
        let found = differ(tree(0), tree(1)).expect("reads");
        let line = |entry: &Differing| {
            let words: Vec<_> = entry.differences.iter().map(ToString::to_string).collect();
            format!("{}: {}", entry.path.display(), words.join(", "))
        };
        found.iter().map(line).collect()
    }

    fn write(path: PathBuf, content: &[u8]) {
        fs::write(path, content).expect("writes");
    }

    #[test]
    fn trees_that_only_differ_in_when_they_were_made_are_equal() {
        let make = |root: &Path| {
            fs::create_dir(root.join("directory")).expect("makes");
            write(root.join("directory/file"), b"same");
        };
        let later = move |root: &Path| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            make(root);
        };
        assert_eq!(reported(0, &make, &later), Vec::<String>::new());
    }

    #[test]
    fn a_difference_is_named_with_its_place() {
        let first = |root: &Path| {
            fs::create_dir(root.join("directory")).expect("makes");
            write(root.join("directory/file"), b"some text");
            write(root.join("directory/long"), &[0; 300_000]);
            write(root.join("mode"), b"");
            write(root.join("one"), b"");
            write(root.join("kind"), b"");
            symlink("a", root.join("link")).expect("links");
        };
        let second = |root: &Path| {
            fs::create_dir(root.join("directory")).expect("makes");
            write(root.join("directory/file"), b"some more text");
            let mut long = [0; 300_000];
            long[299_999] = 1;
            write(root.join("directory/long"), &long);
            write(root.join("mode"), b"");
            fs::set_permissions(root.join("mode"), Permissions::from_mode(0o600)).expect("sets");
            write(root.join("other"), b"");
            fs::create_dir(root.join("kind")).expect("makes");
            symlink("b", root.join("link")).expect("links");
        };
        let expected = [
            "/directory/file: size: 9 and 14; content from byte 5 on: 74 65 78 74 and 6d 6f 72 65 20 74 65 78 74",
            "/directory/long: content from byte 299999 on: 00 and 01",
            "/kind: type: file and directory",
            "/link: links to: a and b",
            "/mode: mode: 644 and 600",
            "/one: only in the first",
            "/other: only in the second",
        ];
        assert_eq!(reported(0, &first, &second), expected);
    }

    #[test]
    fn a_time_that_was_set_counts() {
        let make = |seconds| {
            move |root: &Path| {
                write(root.join("file"), b"");
                let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                let file = fs::File::open(root.join("file")).expect("opens");
                file.set_times(fs::FileTimes::new().set_modified(time)).expect("sets");
            }
        };
        assert_eq!(reported(100, &make(1), &make(2)), ["/file: modified: 1.000000000 and 2.000000000"]);
        assert_eq!(reported(100, &make(101), &make(102)), Vec::<String>::new());
    }
}
