//! Deletes trees, in parallel and whatever their depth.
//!
//! Knows nothing of objects: renaming a tree aside first, so that nobody meets a half of it, is the caller's part.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::directories::{Cursor, Directories, ROOT};
use crate::fs::walk::walk;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deletes what is at `path`, with all that is in it; nothing there is fine.
///
/// Symbolic links are not followed, and neither marks against deletion nor missing permissions of the owner's own
/// directories stand in the way.
///
/// # Errors
/// The first entry that cannot be deleted; the others are deleted all the same.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match open_directory(CWD, path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlink(CWD, path, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };
    let job = Job { directories: Mutex::default(), failure: Mutex::default() };
    let start = Directory { parent: Arc::new(root.try_clone()?), name: CString::from(c"."), number: ROOT };
    walk(start, |directory, waiting| {
        job.empty(directory, waiting).unwrap_or_else(|error| {
            job.note(Err(error));
            1
        })
    });
    let directories = job.directories.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failure = job.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut cursor = Cursor::new(&directories, root.as_fd())?;
    // What is in a directory goes before it.
    for number in directories.in_order().into_iter().skip(1).rev() {
        let name = Path::new(OsStr::from_bytes(directories.name(number).to_bytes()));
        let removed = cursor.go_to(directories.parent(number));
        if let Err(error) = removed.and_then(|parent| Ok(unlink(parent, name, AtFlags::REMOVEDIR)?)) {
            failure.get_or_insert(error);
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(unlink(CWD, path, AtFlags::REMOVEDIR)?),
    }
}

/// A directory that is still to be emptied: not opened yet, since descriptors are few.
struct Directory {
    parent: Arc<OwnedFd>,
    name: CString,
    number: usize,
}

struct Job {
    /// The root and the directories below it, which are removed last.
    directories: Mutex<Directories>,
    failure: Mutex<Option<io::Error>>,
}

impl Job {
    fn note(&self, result: rustix::io::Result<()>) {
        if let Err(error) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.into());
        }
    }

    /// Removes all entries of a directory but its directories, which are put to those that wait; returns how many there
    /// were.
    fn empty(&self, directory: Directory, waiting: &mut Vec<Directory>) -> rustix::io::Result<usize> {
        let Directory { parent, name, number } = directory;
        let opened = Arc::new(open_directory(parent.as_fd(), name.as_c_str())?);
        drop(parent);
        let mut entries = 0;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            entries += 1;
            if is_directory(&opened, name, entry.file_type()) {
                let number = self.directories.lock().unwrap_or_else(PoisonError::into_inner).add(number, name);
                waiting.push(Directory { parent: Arc::clone(&opened), name: CString::from(name), number });
            } else {
                let name = Path::new(OsStr::from_bytes(name.to_bytes()));
                self.note(unlink(opened.as_fd(), name, AtFlags::empty()));
            }
        }
        Ok(entries)
    }
}

fn is_directory(directory: &OwnedFd, name: &CStr, kind: FileType) -> bool {
    if kind != FileType::Unknown {
        return kind == FileType::Directory;
    }
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory, its owner's permissions restored where they were taken away.
fn open_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let opened = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
    let opened = match opened {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }?;
    // Entries of a directory that its owner may not write to, or that is marked, cannot be deleted: as root the mode
    // does not matter, and the mark is met when the first entry is refused.
    if !rustix::process::geteuid().is_root() {
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

/// Removes one entry of `parent`, or of a directory below it.
fn unlink(parent: BorrowedFd<'_>, name: &Path, flags: AtFlags) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::PERM) => {
            let directory = name.parent().filter(|directory| !directory.as_os_str().is_empty());
            clear_marks(parent, directory.unwrap_or(Path::new(".")));
            clear_marks(parent, name);
            rustix::fs::unlinkat(parent, name, flags)
        }
        other => other,
    }
}

/// Takes the marks `immutable` and `append only` from a file or directory; nothing else can have them.
fn clear_marks(parent: BorrowedFd<'_>, name: &Path) {
    let markable = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Directory | FileType::RegularFile));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if markable
        && let Ok(entry) = rustix::fs::openat(parent, name, flags, Mode::empty())
        && let Ok(marks) = rustix::fs::ioctl_getflags(&entry)
    {
        // Whether it worked shows when the entry is deleted.
        rustix::fs::ioctl_setflags(&entry, marks - (IFlags::IMMUTABLE | IFlags::APPEND)).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_not_there_is_gone_already() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        remove_tree(&directory.path().join("nothing")).expect("is fine");
    }

    #[test]
    fn links_are_removed_not_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("keep")).expect("makes");
        fs::write(path("keep/file"), "x").expect("writes");
        fs::create_dir_all(path("tree/a/b")).expect("makes");
        symlink(path("keep"), path("tree/a/link")).expect("links");
        symlink(path("keep"), path("link")).expect("links");
        remove_tree(&path("tree")).expect("removes");
        remove_tree(&path("link")).expect("removes");
        assert!(path("keep/file").exists());
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }

    #[test]
    fn closed_directories_are_no_obstacle() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner")).expect("makes");
        fs::write(tree.join("closed/inner/file"), "x").expect("writes");
        for name in ["closed/inner", "closed"] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o000)).expect("sets");
        }
        remove_tree(&tree).expect("removes");
        assert!(!tree.exists());
    }

    #[test]
    fn root_marked_files_are_no_obstacle() {
        if !osbc_fixtures::has_root() {
            return;
        }
        let directory = crate::testing::directory();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("marked/inner")).expect("makes");
        fs::write(tree.join("marked/file"), "x").expect("writes");
        for name in ["marked/file", "marked/inner", "marked"] {
            let file = fs::File::open(tree.join(name)).expect("opens");
            rustix::fs::ioctl_setflags(&file, IFlags::IMMUTABLE).expect("marks");
        }
        assert!(fs::remove_file(tree.join("marked/file")).is_err());
        remove_tree(&tree).expect("removes");
        assert!(!tree.exists());
    }
}
