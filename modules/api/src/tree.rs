//! A tree by directory handle: every path is resolved inside it, so no symlink in it leads out.
//!
//! Paths may begin with `/` or not; either way they start at the tree's root. Absolute symlinks and `..` in a tree
//! are resolved as if its root were `/`. Methods follow a symlink in the last component as the system calls they are
//! named after do: [`Tree::chown`] follows, [`Tree::lchown`] does not, and what creates, removes or renames names never
//! follows. A trailing `/` is ignored.
//!
//! This file resolves paths and knows files, directories and links; modes, owners, times and extended attributes are in
//! `tree/attributes.rs`, walking and removing in `tree/walk.rs`, copying in [`copy`].

mod attributes;
mod copy;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::outside;

pub use attributes::Times;
pub use copy::Copy;

/// The umask of every stage, which its new files and directories get their modes by.
pub const STAGE_UMASK: u32 = 0o022;

/// A handle on the root directory of a tree.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl From<OwnedFd> for Tree {
    /// Takes an open directory for the root of a tree.
    fn from(root: OwnedFd) -> Self {
        Self { root }
    }
}

impl Tree {
    /// Opens the tree whose root is the directory `path` of the caller's own root.
    ///
    /// # Errors
    /// It is no directory or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open the tree", path))?;
        Ok(Self { root })
    }

    /// The directory `path` as a tree of its own: links in it no longer lead to the rest of this one.
    ///
    /// # Errors
    /// It is no directory or cannot be opened.
    pub fn subtree(&self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let root = self.open_directory(path).map_err(cannot("open the directory", path))?;
        Ok(Self { root })
    }

    /// Another handle on the same tree.
    ///
    /// # Errors
    /// The process has no file descriptors left.
    pub fn try_clone(&self) -> Result<Self, Error> {
        Ok(Self { root: self.root.try_clone().map_err(cannot("open", "/"))? })
    }

    /// Returns what is in the regular file `path`, which goes into memory as a whole.
    ///
    /// # Errors
    /// It is not there, is something else or larger than a gigabyte, or cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, 0).map_err(cannot("read", path))?;
        outside::read_open(file, outside::WHOLE).map_err(cannot("read", path))
    }

    /// What is in the text file `path`.
    ///
    /// # Errors
    /// It cannot be read or is not UTF-8.
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> Result<String, Error> {
        let path = path.as_ref();
        let not_text = |_| cannot("read", path)(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"));
        String::from_utf8(self.read(path)?).map_err(not_text)
    }

    /// Makes `bytes` the content of the file `path`: an existing one keeps its mode and owner, a new one gets mode 0666
    /// less the umask.
    ///
    /// Follows links, and a link that dangles gets its target.
    ///
    /// # Errors
    /// Its directory is not there, it is a directory, or it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write_with(path.as_ref(), bytes.as_ref(), OFlags::TRUNC)
    }

    /// Adds `bytes` to the end of the file `path`; a new one is created as by [`Tree::write`].
    ///
    /// # Errors
    /// As for [`Tree::write`].
    pub fn append(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write_with(path.as_ref(), bytes.as_ref(), OFlags::APPEND)
    }

    /// Creates the file `path`, which must not be there, not even as a link that dangles.
    ///
    /// # Errors
    /// Something is there already, or it cannot be written.
    pub fn write_new(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write_with(path.as_ref(), bytes.as_ref(), OFlags::EXCL)
    }

    fn write_with(&self, path: &Path, bytes: &[u8], flags: OFlags) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | flags;
        let mut file = self.open_at(path, flags, 0o666).map_err(cannot("write", path))?;
        file.write_all(bytes).map_err(cannot("write", path))
    }

    /// Puts a new file of that mode (whatever the umask) at `path` in one step, in place of the file or link that may
    /// be there.
    ///
    /// # Errors
    /// Its directory is not there, it is a directory itself, or it cannot be written.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        let attempt = || -> io::Result<()> {
            let (directory, name) = self.locate(path)?;
            let beside = [name.as_bytes(), b".osbc-new"].concat();
            let beside = OsStr::from_bytes(&beside);
            unless_missing(rustix::fs::unlinkat(&directory, beside, AtFlags::empty()))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&directory, beside, flags, Mode::from_raw_mode(0o600))?);
            file.write_all(bytes.as_ref())?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            rustix::fs::renameat(&directory, beside, &directory, &name).inspect_err(|_| {
                rustix::fs::unlinkat(&directory, beside, AtFlags::empty()).ok();
            })?;
            Ok(())
        };
        attempt().map_err(cannot("replace", path))
    }

    /// Opens the file `path` with these flags (close-on-exec is added); a file that the flags create gets `mode` less
    /// the umask.
    ///
    /// Does not wait for the other end of a fifo.
    ///
    /// # Errors
    /// It is a fifo, or the OS error.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags, mode: u32) -> Result<File, Error> {
        let path = path.as_ref();
        let open = || {
            if flags.contains(OFlags::PATH) {
                return self.open_at(path, flags, mode);
            }
            let file = self.open_at(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY, mode)?;
            if file.metadata()?.file_type().is_fifo() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a fifo, no file"));
            }
            Ok(file)
        };
        open().map_err(cannot("open", path))
    }

    /// Creates the directory `path` with `mode` less the umask.
    ///
    /// # Errors
    /// Something is there already, or its parent is not.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        self.make_directory(path, mode).map_err(cannot("create the directory", path))
    }

    /// Creates the directory `path` with `mode` less the umask unless it is there, and the directories above it with
    /// mode 0777 less the umask.
    ///
    /// # Errors
    /// Something else is in the way, such as a file or a link that dangles.
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        self.make_directories(path, mode).map_err(cannot("create the directory", path))
    }

    /// Whether there is something at `path`, where links lead; no if they dangle, or if a directory on the way is none.
    ///
    /// # Errors
    /// The path cannot be looked up.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, Error> {
        Ok(self.metadata_if_there(path)?.is_some())
    }

    /// Whether there is a directory at `path`, where links lead.
    ///
    /// # Errors
    /// The path cannot be looked up.
    pub fn is_dir(&self, path: impl AsRef<Path>) -> Result<bool, Error> {
        Ok(self.metadata_if_there(path)?.is_some_and(|metadata| metadata.is_dir()))
    }

    /// Whether there is a regular file at `path`, where links lead.
    ///
    /// # Errors
    /// The path cannot be looked up.
    pub fn is_file(&self, path: impl AsRef<Path>) -> Result<bool, Error> {
        Ok(self.metadata_if_there(path)?.is_some_and(|metadata| metadata.is_file()))
    }

    fn metadata_if_there(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Error> {
        let path = path.as_ref();
        match self.pin(path, true).and_then(|file| file.metadata()) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(cannot("inspect", path)(error)),
        }
    }

    /// Type, mode, owner, size and times of `path`, where links lead.
    ///
    /// # Errors
    /// It is not there.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        let path = path.as_ref();
        self.pin(path, true).and_then(|file| file.metadata()).map_err(cannot("inspect", path))
    }

    /// Type, mode, owner, size and times of `path` itself, which may be a link.
    ///
    /// # Errors
    /// It is not there.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        let path = path.as_ref();
        self.pin(path, false).and_then(|file| file.metadata()).map_err(cannot("inspect", path))
    }

    /// What the link `path` says, as it stands there.
    ///
    /// # Errors
    /// It is not there or no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = path.as_ref();
        let target = self.at(path, |directory, name| rustix::fs::readlinkat(directory, name, Vec::new()));
        let target = target.map_err(cannot("read the link", path))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// The names in the directory `path`, sorted by their bytes, without `.` and `..`.
    ///
    /// # Errors
    /// It is not there or no directory.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, Error> {
        let path = path.as_ref();
        self.open_directory(path).and_then(|directory| names_in(&directory)).map_err(cannot("list", path))
    }

    /// Creates the link `path` that says `target`.
    ///
    /// # Errors
    /// Something is there already, or its directory is not.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.at(path, |directory, name| rustix::fs::symlinkat(target.as_ref(), directory, name))
            .map_err(cannot("create the link", path))
    }

    /// Gives the file (or link) `from` the second name `to`.
    ///
    /// # Errors
    /// `from` is not there or a directory, something is at `to`, or they are on two file systems.
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (source, source_name) = self.locate(from).map_err(cannot("link", from))?;
        self.at(to, |directory, name| rustix::fs::linkat(&source, &source_name, directory, name, AtFlags::empty()))
            .map_err(cannot("create the hard link", to))
    }

    /// Renames `from` to `to`, in place of what may be there.
    ///
    /// A directory that can only be copied is copied: one on another file system, and without root one of a layer
    /// below.
    ///
    /// # Errors
    /// `from` is not there, or `to` is a directory that is not empty.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (source, source_name) = self.locate(from).map_err(cannot("rename", from))?;
        match self.at(to, |directory, name| rustix::fs::renameat(&source, &source_name, directory, name)) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices && self.symlink_metadata(from)?.is_dir() => {
                self.at(to, |directory, name| {
                    unless_missing(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))
                })
                .map_err(cannot("rename to", to))?;
                Copy::default().run(self, from, self, to)?;
                self.remove_dir_all(from)
            }
            renamed => renamed.map_err(cannot("rename to", to)),
        }
    }

    /// Removes the file or link `path`.
    ///
    /// # Errors
    /// It is not there or a directory.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.at(path, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
            .map_err(cannot("remove", path))
    }

    /// A path outside of the tree's own terms for what is at `path`, where links lead: absolute, without links, to be
    /// handed to a tool.
    ///
    /// What is not there yet must have its directory there.
    ///
    /// # Errors
    /// Its directory is not there, or it is a link that dangles.
    pub fn path_for_tools(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = path.as_ref();
        let attempt = || -> io::Result<PathBuf> {
            match self.pin(path, true) {
                Ok(file) => real_path(&file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let (directory, name) = self.locate(path)?;
                    match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => Ok(real_path(&directory)?.join(name)),
                        _ => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        };
        attempt().map_err(cannot("find", path))
    }

    /// Opens `path` inside the tree.
    fn open_at(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode));
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, mode, resolve) {
                // Something was renamed anywhere in the system while `..` was resolved.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(File::from(result?)),
            }
        }
    }

    /// A handle on what is at `path` that neither reads nor writes it.
    fn pin(&self, path: &Path, follow: bool) -> io::Result<File> {
        self.open_at(path, OFlags::PATH | if follow { OFlags::empty() } else { OFlags::NOFOLLOW }, 0)
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, 0).map(OwnedFd::from)
    }

    /// The directory that holds `path`, and its name in there; for the root and for what ends in `.` or `..` the
    /// directory itself and `.`, which no system call creates, removes or renames.
    fn locate(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let (parent, name) = split(path);
        let named = !matches!(name.as_bytes(), b"" | b"." | b"..");
        let (directory, name) = if named { (parent, name) } else { (path, OsStr::new(".")) };
        Ok((self.open_at(directory, OFlags::PATH | OFlags::DIRECTORY, 0)?.into(), name.to_owned()))
    }

    /// Calls a system call that acts on a name in a directory.
    fn at<T>(&self, path: &Path, call: impl FnOnce(BorrowedFd, &OsStr) -> Result<T, Errno>) -> io::Result<T> {
        let (directory, name) = self.locate(path)?;
        Ok(call(directory.as_fd(), &name)?)
    }

    fn make_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.at(path, |directory, name| rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(mode)))
    }

    fn make_directories(&self, path: &Path, mode: u32) -> io::Result<()> {
        match self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, 0) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (parent, _) = split(path);
        if !parent.as_os_str().is_empty() {
            self.make_directories(parent, 0o777)?;
        }
        match self.make_directory(path, mode) {
            // Somebody else made it, `a/..` came to be with `a`, or a link that dangles is in the way.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, 0).map(drop)
            }
            result => result,
        }
    }
}

/// Puts what was tried, and where inside the tree, to a system error.
fn cannot<E: Into<io::Error>>(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
    // Without the `.` that stand for the content of directories.
    Error::io(act, Path::new("/").join(path).components().collect::<PathBuf>())
}

/// A path's last component and all before it, as they stand there: unlike [`Path::file_name`] this distinguishes
/// `link/.` from `link`.
fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    (Path::new(OsStr::from_bytes(&bytes[..start])), OsStr::from_bytes(&bytes[start..end]))
}

/// The names in an open directory, sorted by their bytes.
fn names_in(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = entries_in(directory)?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    Ok(names)
}

/// The names in an open directory, with their types where the file system has them, in no order.
fn entries_in(directory: impl AsFd) -> io::Result<Vec<(OsString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}

/// The path by which the calling thread's process sees an open file.
fn real_path(file: impl AsFd) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(CWD, handle_path(&file), Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

/// The path of an open file by its number, which leads to it and nowhere else: even a link opened as such is not
/// followed.
///
/// Works for handles that neither read nor write.
fn handle_path(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Whether an error says that there is nothing at a path.
fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Takes "there is none" for success.
fn unless_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
