//! Operations on files, and what they return: the same code for a plain directory and for a tree of a store.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::look;

/// How many files may be held open.
pub(super) const SLOTS: usize = 3;

/// What is done to a tree. Paths are relative to its root.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Opens for writing, which makes the file where there is none.
    Write {
        path: PathBuf,
        offset: u64,
        length: usize,
        byte: u8,
        flags: OFlags,
    },
    Truncate {
        path: PathBuf,
        size: u64,
    },
    Allocate {
        path: PathBuf,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    },
    /// Writes through shared memory.
    Map {
        path: PathBuf,
        offset: u64,
        byte: u8,
    },
    CopyRange {
        from: PathBuf,
        to: PathBuf,
        from_offset: u64,
        to_offset: u64,
        length: usize,
    },
    MakeDirectory {
        path: PathBuf,
        mode: u32,
    },
    MakeNode {
        path: PathBuf,
        kind: FileType,
        mode: u32,
        device: (u32, u32),
    },
    MakeSymlink {
        path: PathBuf,
        target: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    /// Writes a file without a name, and links it.
    LinkUnnamed {
        directory: PathBuf,
        path: PathBuf,
        length: usize,
        byte: u8,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        flags: RenameFlags,
    },
    Unlink {
        path: PathBuf,
    },
    RemoveDirectory {
        path: PathBuf,
    },
    /// Removes a directory with all that it holds.
    RemoveAll {
        path: PathBuf,
    },
    ChangeMode {
        path: PathBuf,
        mode: u32,
    },
    ChangeOwner {
        path: PathBuf,
        user: u32,
        group: u32,
    },
    SetTime {
        path: PathBuf,
        seconds: i64,
        nanoseconds: i64,
    },
    SetAttribute {
        path: PathBuf,
        name: String,
        value: Vec<u8>,
        flags: XattrFlags,
    },
    RemoveAttribute {
        path: PathBuf,
        name: String,
    },
    /// Opens for reading and writing, and keeps the descriptor.
    Hold {
        slot: usize,
        path: PathBuf,
    },
    WriteHeld {
        slot: usize,
        offset: u64,
        length: usize,
        byte: u8,
    },
    ChangeModeHeld {
        slot: usize,
        mode: u32,
    },
    LinkHeld {
        slot: usize,
        path: PathBuf,
    },
    LookHeld {
        slot: usize,
    },
    Release {
        slot: usize,
    },
    /// Reads everything about one entry.
    Look {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
}

/// What an operation returns.
pub(super) type Outcome = Result<String, Errno>;

/// A tree that is open, with the files that are held open in it.
#[derive(Default)]
pub(super) struct World {
    root: Option<OwnedFd>,
    held: [Option<File>; SLOTS],
}

impl World {
    pub(super) fn open(root: OwnedFd) -> Self {
        Self { root: Some(root), held: Default::default() }
    }

    /// The path of its root while it is open.
    pub(super) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_ref().expect("is open").as_raw_fd()))
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root().join(path)
    }

    pub(super) fn apply(&mut self, operation: &Operation) -> Outcome {
        use Operation::*;
        match operation {
            Write { path, offset, length, byte, flags } => {
                let file = self.file(path, OFlags::WRONLY | *flags)?;
                write(&file, *offset, *length, *byte)
            }
            Truncate { path, size } => done(rustix::fs::ftruncate(self.file(path, OFlags::WRONLY)?, *size)),
            Allocate { path, flags, offset, length } => {
                done(rustix::fs::fallocate(self.file(path, OFlags::RDWR)?, *flags, *offset, *length))
            }
            Map { path, offset, byte } => map(&self.file(path, OFlags::RDWR)?, *offset, *byte),
            CopyRange { from, to, from_offset, to_offset, length } => {
                let (from, to) = (self.file(from, OFlags::RDONLY)?, self.file(to, OFlags::WRONLY)?);
                let (mut from_offset, mut to_offset) = (*from_offset, *to_offset);
                let copied =
                    rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), *length)?;
                Ok(format!("{copied} bytes"))
            }
            MakeDirectory { path, mode } => done(rustix::fs::mkdirat(CWD, self.at(path), Mode::from(*mode))),
            MakeNode { path, kind, mode, device } => {
                let device = rustix::fs::makedev(device.0, device.1);
                done(rustix::fs::mknodat(CWD, self.at(path), *kind, Mode::from(*mode), device))
            }
            MakeSymlink { path, target } => done(rustix::fs::symlinkat(target, CWD, self.at(path))),
            Link { from, to } => done(rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())),
            LinkUnnamed { directory, path, length, byte } => {
                let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::open(self.at(directory), flags, Mode::from(0o640))?);
                write(&file, 0, *length, *byte)?;
                self.link_descriptor(&file, path)
            }
            Rename { from, to, flags } => done(rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), *flags)),
            Unlink { path } => done(rustix::fs::unlinkat(CWD, self.at(path), AtFlags::empty())),
            RemoveDirectory { path } => done(rustix::fs::unlinkat(CWD, self.at(path), AtFlags::REMOVEDIR)),
            RemoveAll { path } => done(std::fs::remove_dir_all(self.at(path)).map_err(errno)),
            ChangeMode { path, mode } => {
                done(rustix::fs::chmodat(CWD, self.at(path), Mode::from(*mode), AtFlags::empty()))
            }
            ChangeOwner { path, user, group } => {
                let (user, group) = (Some(Uid::from_raw(*user)), Some(Gid::from_raw(*group)));
                done(rustix::fs::chownat(CWD, self.at(path), user, group, AtFlags::SYMLINK_NOFOLLOW))
            }
            SetTime { path, seconds, nanoseconds } => {
                let last_modification = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
                done(rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW))
            }
            SetAttribute { path, name, value, flags } => {
                done(rustix::fs::lsetxattr(self.at(path), name.as_str(), value, *flags))
            }
            RemoveAttribute { path, name } => done(rustix::fs::lremovexattr(self.at(path), name.as_str())),
            Hold { slot, path } => {
                self.held[*slot] = Some(self.file(path, OFlags::RDWR)?);
                done(Ok(()))
            }
            WriteHeld { slot, offset, length, byte } => write(self.held(*slot)?, *offset, *length, *byte),
            ChangeModeHeld { slot, mode } => done(rustix::fs::fchmod(self.held(*slot)?, Mode::from(*mode))),
            LinkHeld { slot, path } => self.link_descriptor(self.held(*slot)?, path),
            LookHeld { slot } => Ok(look::at_file(self.held(*slot)?)?),
            Release { slot } => {
                self.held[*slot] = None;
                done(Ok(()))
            }
            Look { path } => Ok(format!("{:?}", look::at_entry(&self.at(path)).map_err(errno)?)),
            List { path } => {
                let entries = std::fs::read_dir(self.at(path)).map_err(errno)?;
                let mut names =
                    entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>().map_err(errno)?;
                names.sort();
                Ok(format!("{names:?}"))
            }
        }
    }

    fn held(&self, slot: usize) -> Result<&File, Errno> {
        self.held[slot].as_ref().ok_or(Errno::BADF)
    }

    /// Opens a file; nothing waits for the other end of a pipe, and no device is used.
    fn file(&self, path: &Path, flags: OFlags) -> Result<File, Errno> {
        let at = self.at(path);
        match rustix::fs::lstat(&at).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile | FileType::Directory | FileType::Symlink) | Err(_) => {}
            Ok(_) => return Err(Errno::NXIO),
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::open(at, flags, Mode::from(0o644))?))
    }

    fn link_descriptor(&self, file: &File, path: &Path) -> Outcome {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        done(rustix::fs::linkat(CWD, name, CWD, self.at(path), AtFlags::SYMLINK_FOLLOW))
    }
}

fn done(result: Result<(), Errno>) -> Outcome {
    result.map(|()| "done".to_owned())
}

pub(super) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn write(file: &File, offset: u64, length: usize, byte: u8) -> Outcome {
    let bytes: Vec<u8> = (0..length).map(|index| byte.wrapping_add((index % 13) as u8)).collect();
    done(file.write_all_at(&bytes, offset).map_err(errno))
}

/// Changes a byte through a shared mapping of the page that it is in, and reads it through the descriptor.
pub(super) fn map(file: &File, offset: u64, byte: u8) -> Outcome {
    const PAGE: u64 = 4096;
    let size = file.metadata().map_err(errno)?.len();
    if size == 0 {
        return Err(Errno::INVAL);
    }
    let offset = offset % size;
    let length = std::num::NonZeroUsize::new(PAGE as usize).expect("is not 0");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    #[expect(unsafe_code, reason = "the mapping is used here only")]
    // SAFETY: the page is in the file, nobody truncates it meanwhile, and it is unmapped once.
    unsafe {
        let start = (offset / PAGE * PAGE) as i64;
        let page = mmap(None, length, protection, MapFlags::MAP_SHARED, file, start)
            .map_err(|error| Errno::from_raw_os_error(error as i32))?;
        page.cast::<u8>().add((offset % PAGE) as usize).write_volatile(byte);
        munmap(page, PAGE as usize).map_err(|error| Errno::from_raw_os_error(error as i32))?;
    }
    let mut read = [0];
    file.read_exact_at(&mut read, offset).map_err(errno)?;
    Ok(format!("reads {}", read[0]))
}

/// The bytes of a file that may be large and hollow.
pub(super) fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    File::from(rustix::fs::open(path, flags, Mode::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}
