//! Loop devices: a file, or a part of it, as a block device.
//!
//! Knows the kernel's interface and nothing of trees or stages. A device is opened with the kernel's `autoclear`: it
//! goes away with its last user, however that one ends. One that somebody else made gets it for a while ([`Guard`]).
//! Nodes are made where the caller says, so nothing relies on a `/dev` that udev fills.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, major, makedev, minor, mknodat};
use rustix::io::Errno;

/// The major number of loop devices.
pub const MAJOR: u32 = 7;

/// How much of the name of its file a loop device can be given, in bytes.
pub const MOST_OF_NAME: usize = 63;

/// The control device.
const CONTROL: &str = "/dev/loop-control";
const CONTROL_MAJOR: u32 = 10;
const CONTROL_MINOR: u32 = 237;

// Of <linux/loop.h>.
const LOOP_SET_STATUS64: libc::c_ulong = 0x4C04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;

/// How often another process may snatch the free device before giving up.
const ATTEMPTS: u32 = 64;

/// How a file becomes a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Where in the file the device begins, in bytes.
    pub offset: u64,
    /// How many bytes of the file it shows; up to the end where none is given.
    pub size: Option<u64>,
    /// Its sector size in bytes: a power of two, 512 or more.
    pub sector_size: u32,
    /// Whether the kernel shall look for partitions on it.
    pub partscan: bool,
    /// Whether writing to it is refused.
    pub read_only: bool,
    /// Whether to hold an exclusive lock (`flock`) on it as long as it is open, which keeps udev from probing it.
    pub lock: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { offset: 0, size: None, sector_size: 512, partscan: false, read_only: false, lock: false }
    }
}

/// An open loop device. It is released when this and every other handle on it is closed.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
    minor: u32,
    nodes: PathBuf,
}

/// A loop device that somebody else made so that it stays: guarded, it goes away with its last user all the same, also
/// when this process is killed.
///
/// [`lift`](Self::lift) leaves it as it was.
#[derive(Debug)]
pub struct Guard {
    device: File,
}

/// A partition that the kernel found on a loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name, e.g. `loop0p1`.
    pub name: String,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

impl LoopDevice {
    /// Makes `backing` a loop device, with its node in the directory `nodes` (e.g. `/dev`), where that one may be there
    /// already.
    ///
    /// # Errors
    /// The kernel has no loop devices or refuses the configuration, or the process may not make nodes.
    pub fn attach(backing: impl AsFd, config: &Config, nodes: &Path) -> io::Result<Self> {
        let control = open_control(nodes)?;
        for attempt in 0..ATTEMPTS {
            let minor = free_minor(&control)?;
            let node = nodes.join(name_of(minor));
            let made = make_node(&node, MAJOR, minor)?;
            match configure(&node, backing.as_fd(), config) {
                Ok(file) => return Ok(Self { file, minor, nodes: nodes.to_owned() }),
                Err(error) => {
                    if made {
                        std::fs::remove_file(&node)?;
                    }
                    if !is_race(&error) {
                        return Err(error);
                    }
                }
            }
            // The device was taken, or its former file is not entirely gone.
            sleep(Duration::from_millis(u64::from(attempt.min(10))));
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "every free loop device was taken by others"))
    }

    /// Its name, e.g. `loop0`.
    pub fn name(&self) -> String {
        name_of(self.minor)
    }

    /// Its minor number; the major one is [`MAJOR`].
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// The path of its node.
    pub fn node(&self) -> PathBuf {
        self.nodes.join(self.name())
    }

    /// The partitions that the kernel sees on it, sorted by name.
    ///
    /// # Errors
    /// sysfs is not mounted at `/sys`.
    pub fn partitions(&self) -> io::Result<Vec<Partition>> {
        let name = self.name();
        let directory = Path::new("/sys/block").join(&name);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?.file_name().to_string_lossy().into_owned();
            if !entry.strip_prefix(&name).is_some_and(|rest| rest.starts_with('p')) {
                continue;
            }
            let numbers = std::fs::read_to_string(directory.join(&entry).join("dev"))?;
            let numbers = numbers.trim().split_once(':').and_then(|(major, minor)| {
                Some(Partition { name: entry.clone(), major: major.parse().ok()?, minor: minor.parse().ok()? })
            });
            found.push(numbers.ok_or_else(|| io::Error::other(format!("sysfs gives no numbers for {entry}")))?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Makes the nodes of its partitions beside its own.
    ///
    /// # Errors
    /// As for [`LoopDevice::partitions`], or the process may not make nodes.
    pub fn make_partition_nodes(&self) -> io::Result<()> {
        for partition in self.partitions()? {
            make_node(&self.nodes.join(&partition.name), partition.major, partition.minor)?;
        }
        Ok(())
    }

    /// The handle that keeps it open.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

impl Guard {
    /// Guards the device with the node `node`; `None` if it is no loop device, or goes away with its last user anyway.
    ///
    /// # Errors
    /// It cannot be opened, or the kernel refuses.
    pub fn of(node: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = File::from(rustix::fs::open(node, flags, Mode::empty())?);
        let status = rustix::fs::fstat(&device)?;
        let is_loop =
            FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice && major(status.st_rdev) == MAJOR;
        Ok((is_loop && change_flags(&device, |flags| flags | LO_FLAGS_AUTOCLEAR)?).then_some(Self { device }))
    }

    /// Leaves the device as it was before, to those who have it open.
    ///
    /// # Errors
    /// The kernel refuses, as for a device that has no file any more.
    pub fn lift(self) -> io::Result<()> {
        change_flags(&self.device, |flags| flags & !LO_FLAGS_AUTOCLEAR).map(drop)
    }
}

/// Returns the name of its file that a loop device was given, of which the kernel keeps [`MOST_OF_NAME`] bytes; empty
/// if it was given none.
///
/// Unlike the path in sysfs it stays when the file cannot be seen any more.
///
/// # Errors
/// It has no file, or is no loop device.
pub fn given_name(device: &File) -> io::Result<PathBuf> {
    let mut info = EMPTY;
    status(device, LOOP_GET_STATUS64, &mut info)?;
    let length = info.file_name.iter().position(|byte| *byte == 0).unwrap_or(info.file_name.len());
    Ok(OsStr::from_bytes(&info.file_name[..length]).into())
}

/// Closes an open loop device, which must be the last handle on it here, and waits until the kernel has let go of the
/// file: then all that was written is in there.
///
/// Something else (udev, mostly) may keep the device open for a moment.
///
/// # Errors
/// It is no loop device, or still in use after `timeout`.
pub fn release(device: OwnedFd, timeout: Duration) -> io::Result<()> {
    let number = rustix::fs::fstat(&device)?.st_rdev;
    if major(number) != MAJOR {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a loop device"));
    }
    let name = name_of(minor(number));
    let directory = Path::new("/sys/block").join(&name);
    // The path of the file does not say: seen from here, files of two stages' trees have the same one.
    let sequence = || std::fs::read(directory.join("diskseq")).ok();
    let before = sequence();
    drop(device);
    let end = Instant::now() + timeout;
    // With another sequence number the device is somebody else's by now.
    while directory.join("loop/backing_file").exists() && sequence() == before {
        if Instant::now() >= end {
            let reason = format!("{name} is still in use after {} s", timeout.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn name_of(minor: u32) -> String {
    format!("loop{minor}")
}

/// Opens the control device; where `/dev` has none, by a node made for the moment.
fn open_control(nodes: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(CONTROL, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return Ok(File::from(result?)),
    }
    let node = nodes.join("loop-control");
    mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(CONTROL_MAJOR, CONTROL_MINOR))?;
    let opened = rustix::fs::open(&node, flags, Mode::empty());
    std::fs::remove_file(&node)?;
    Ok(File::from(opened?))
}

/// Makes a block device's node; returns whether it was not there before.
///
/// # Errors
/// Something else is there, or the process may not.
pub fn make_node(path: &Path, major: u32, minor: u32) -> io::Result<bool> {
    let number = makedev(major, minor);
    match mknodat(CWD, path, FileType::BlockDevice, Mode::from_raw_mode(0o600), number) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            let there = rustix::fs::lstat(path)?;
            if FileType::from_raw_mode(there.st_mode) == FileType::BlockDevice && there.st_rdev == number {
                return Ok(false);
            }
            let reason = format!("{} is something else than the device {major}:{minor}", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_race(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::BUSY | Errno::AGAIN))
}

/// Of <linux/loop.h>.
#[repr(C)]
struct Info64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// Of <linux/loop.h>.
#[repr(C)]
struct ConfigureArgument {
    fd: u32,
    block_size: u32,
    info: Info64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info64>() == 232 && size_of::<ConfigureArgument>() == 304);

const EMPTY: Info64 = Info64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    sizelimit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

fn free_minor(control: &File) -> io::Result<u32> {
    #[expect(unsafe_code, reason = "no safe wrapper for this ioctl in our dependencies")]
    // SAFETY: the request takes no argument.
    let minor = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(minor).map_err(|_| io::Error::last_os_error())
}

/// Changes the flags of a device that has a file; returns whether they were others.
fn change_flags(device: &File, change: impl Fn(u32) -> u32) -> io::Result<bool> {
    let mut info = EMPTY;
    status(device, LOOP_GET_STATUS64, &mut info)?;
    let changed = change(info.flags);
    if changed == info.flags {
        return Ok(false);
    }
    info.flags = changed;
    status(device, LOOP_SET_STATUS64, &mut info).map(|()| true)
}

/// Reads or changes the status of a device that has a file.
fn status(device: &File, request: libc::c_ulong, info: &mut Info64) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper for this ioctl in our dependencies")]
    // SAFETY: the requests read or write a `struct loop_info64`, whose layout `Info64` has, and keep no reference.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request as _, &raw mut *info) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens the device and gives it its file.
fn configure(node: &Path, backing: impl AsFd, config: &Config) -> io::Result<File> {
    // Opening for writing is right for a read-only device too: the flag below decides.
    let file = File::from(rustix::fs::open(node, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
    if config.lock {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    }
    let mut flags = LO_FLAGS_AUTOCLEAR;
    if config.partscan {
        flags |= LO_FLAGS_PARTSCAN;
    }
    if config.read_only {
        flags |= LO_FLAGS_READ_ONLY;
    }
    let argument = ConfigureArgument {
        fd: backing.as_fd().as_raw_fd().cast_unsigned(),
        block_size: config.sector_size,
        info: Info64 { offset: config.offset, sizelimit: config.size.unwrap_or(0), flags, ..EMPTY },
        reserved: [0; 8],
    };
    #[expect(unsafe_code, reason = "no safe wrapper for this ioctl in our dependencies")]
    // SAFETY: the request reads a `struct loop_config`, whose layout `ConfigureArgument` has, and keeps no reference.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE as _, &raw const argument) };
    if result == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn backing(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    fn size_of_device(device: &LoopDevice) -> u64 {
        File::open(device.node()).unwrap().seek(SeekFrom::End(0)).unwrap()
    }

    #[test]
    fn root_what_is_written_to_the_device_is_in_its_part_of_the_file_once_released() {
        if !has_root() {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let file = backing(1 << 20);
        let config = Config { offset: 4096, size: Some(8192), ..Config::default() };
        let device = LoopDevice::attach(&file, &config, nodes.path()).unwrap();
        assert_eq!(size_of_device(&device), 8192);
        File::options().write(true).open(device.node()).unwrap().write_all(b"hello").unwrap();
        let minor = device.minor();
        release(device.into_fd(), TIMEOUT).unwrap();
        let mut text = [0; 5];
        file.read_exact_at(&mut text, 4096).unwrap();
        assert_eq!(&text, b"hello");
        let state = Path::new("/sys/block").join(name_of(minor)).join("loop/backing_file");
        assert!(!std::fs::read_to_string(state).is_ok_and(|path| path.contains("/.tmp")), "the device is still bound");
    }

    #[test]
    fn root_without_a_size_the_device_reaches_to_the_end_of_the_file() {
        if !has_root() {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let config = Config { offset: 512, ..Config::default() };
        let device = LoopDevice::attach(backing(10_240), &config, nodes.path()).unwrap();
        assert_eq!(size_of_device(&device), 10_240 - 512);
        release(device.into_fd(), TIMEOUT).unwrap();
    }

    #[test]
    fn root_a_read_only_device_refuses_writes_and_a_sector_size_is_kept() {
        if !has_root() {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let config = Config { read_only: true, sector_size: 4096, ..Config::default() };
        let device = LoopDevice::attach(backing(65_536), &config, nodes.path()).unwrap();
        let written = File::options().write(true).open(device.node()).and_then(|mut node| node.write_all(b"no"));
        assert!(written.is_err());
        let queue = format!("/sys/block/{}/queue/logical_block_size", device.name());
        assert_eq!(std::fs::read_to_string(queue).unwrap().trim(), "4096");
        release(device.into_fd(), TIMEOUT).unwrap();
    }

    #[test]
    fn root_a_locked_device_cannot_be_locked_by_others() {
        if !has_root() {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let config = Config { lock: true, ..Config::default() };
        let device = LoopDevice::attach(backing(65_536), &config, nodes.path()).unwrap();
        let other = File::open(device.node()).unwrap();
        assert_eq!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN));
        drop(other);
        release(device.into_fd(), TIMEOUT).unwrap();
    }

    #[test]
    fn root_a_device_that_would_stay_goes_with_its_last_user_while_it_is_guarded() {
        if !has_root() {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let device = LoopDevice::attach(backing(65_536), &Config::default(), nodes.path()).unwrap();
        let node = device.node();
        assert!(Guard::of(&node).unwrap().is_none(), "it goes anyway");
        let stay = || change_flags(&device.file, |flags| flags & !LO_FLAGS_AUTOCLEAR).unwrap();
        assert!(stay());
        Guard::of(&node).unwrap().expect("a device that would stay").lift().unwrap();
        assert!(!stay(), "it is as it was");
        let guard = Guard::of(&node).unwrap().expect("a device that would stay");
        drop(guard);
        release(device.into_fd(), TIMEOUT).unwrap();
    }

    #[test]
    fn what_is_no_loop_device_is_not_guarded() {
        assert!(Guard::of(Path::new("/dev/null")).unwrap().is_none());
    }

    #[test]
    fn root_the_partitions_that_the_kernel_knows_get_nodes() {
        if !has_root() || !has_tool("addpart") {
            return;
        }
        let nodes = tempfile::tempdir().unwrap();
        let file = backing(1 << 20);
        file.write_all_at(b"inside", 16 * 512).unwrap();
        let config = Config { partscan: true, ..Config::default() };
        let device = LoopDevice::attach(&file, &config, nodes.path()).unwrap();
        assert_eq!(device.partitions().unwrap(), []);
        // Not every kernel reads partition tables, but all take one partition by an ioctl.
        let added = Command::new("addpart").arg(device.node()).args(["1", "16", "32"]).status().unwrap();
        assert!(added.success());
        device.make_partition_nodes().unwrap();
        let mut text = [0; 6];
        let partition = nodes.path().join(format!("{}p1", device.name()));
        File::open(partition).unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"inside");
        release(device.into_fd(), TIMEOUT).unwrap();
    }

    #[test]
    fn root_many_at_once_each_get_a_device_of_their_own() {
        if !has_root() {
            return;
        }
        let workers: Vec<_> = (0..8_u8)
            .map(|number| {
                std::thread::spawn(move || {
                    let nodes = tempfile::tempdir().unwrap();
                    let file = backing(65_536);
                    file.write_all_at(&[number; 512], 0).unwrap();
                    for _ in 0..5 {
                        let device = LoopDevice::attach(&file, &Config::default(), nodes.path()).unwrap();
                        let mut sector = [255; 512];
                        File::open(device.node()).unwrap().read_exact(&mut sector).unwrap();
                        assert_eq!(sector, [number; 512]);
                        release(device.into_fd(), TIMEOUT).unwrap();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    }

    #[test]
    fn root_a_file_in_the_way_of_the_node_is_an_error() {
        if !has_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loop0");
        std::fs::write(&path, "").unwrap();
        assert_eq!(make_node(&path, MAJOR, 0).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
