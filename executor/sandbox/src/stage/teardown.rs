//! Taking down what would otherwise lose data or stay visible to the next stage: mounts are unmounted, not detached,
//! and loop devices are waited for.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use osbc_module_api::loopdev;
use rustix::fs::{FileType, Mode, OFlags, fstat, major};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// How long something may stay in use after everything that used it is gone: the kernel and udev let go late.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a loop device may: with its last user the kernel writes a file system's last changes, and asks the disk
/// below for them, which takes as long as a busy disk does.
const LOOP_RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What is mounted in the mount namespace of this process.
#[derive(Debug)]
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    file_system: String,
    path: PathBuf,
}

impl MountTable {
    /// # Errors
    /// `/proc` is not there.
    pub(crate) fn read() -> io::Result<Self> {
        let text = fs::read("/proc/self/mountinfo")?;
        Ok(Self { mounts: text.split(|byte| *byte == b'\n').filter_map(parse).collect() })
    }
}

/// A line like `36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let file_system = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(Mount { id, file_system, path: unescape(fields.nth(1)?) })
}

/// Undoes the kernel's `\040` for a space and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.first_chunk().filter(|digits: &&[u8; 3]| digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some([a, b, c]) if first == b'\\' => {
                bytes.push(((a - b'0') & 3) << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsStr::from_bytes(&bytes).into()
}

/// Unmounts, last first, what was mounted since `before`, and returns what did not work.
pub(crate) fn unmount_all(before: &MountTable) -> Vec<String> {
    let now = match MountTable::read() {
        Ok(now) => now,
        Err(error) => return vec![format!("cannot list the mounts: {error}")],
    };
    let known: HashSet<u64> = before.mounts.iter().map(|mount| mount.id).collect();
    let known_file_systems: HashSet<&String> = before.mounts.iter().map(|mount| &mount.file_system).collect();
    let mut problems = Vec::new();
    for mount in now.mounts.iter().rev().filter(|mount| !known.contains(&mount.id)) {
        // Unmounting writes everything back, but reports no error; and a file system that was mounted before is
        // the store's or the host's and goes on.
        if !known_file_systems.contains(&mount.file_system)
            && let Err(error) = write_back(&mount.path)
        {
            problems.push(format!("cannot write back {}: {error}", mount.path.display()));
        }
        if let Err(error) = unmount_patiently(&mount.path) {
            problems.push(format!("cannot unmount {}: {error}", mount.path.display()));
        }
    }
    problems
}

fn write_back(mount: &Path) -> io::Result<()> {
    let directory = rustix::fs::open(mount, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    Ok(rustix::fs::syncfs(directory)?)
}

fn unmount_patiently(path: &Path) -> io::Result<()> {
    let end = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match unmount(path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if Instant::now() < end => sleep(RELEASE_POLL_INTERVAL),
            result => return Ok(result?),
        }
    }
}

/// Writes back what was written to a device, closes it, and waits until a loop device has let go of its file: the next
/// stage reads all of it from there.
///
/// # Errors
/// Writing back failed, or the device is still in use.
pub(crate) fn release_device(keep: Vec<OwnedFd>) -> io::Result<()> {
    let mut result = Ok(());
    let mut loops = Vec::new();
    for handle in keep {
        let status = fstat(&handle)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice {
            result = result.and(rustix::fs::fsync(&handle).map_err(io::Error::from));
            if major(status.st_rdev) == loopdev::MAJOR {
                loops.push(handle);
            }
        }
    }
    for device in loops {
        result = result.and(loopdev::release(device, LOOP_RELEASE_TIMEOUT));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_mount_table_give_id_file_system_and_path() {
        let line =
            br"36 35 98:0 /mnt1 /mnt/a\040b\134\011\303\244 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = Mount { id: 36, file_system: "98:0".into(), path: "/mnt/a b\\\t\u{e4}".into() };
        assert_eq!(parse(line), Some(mount));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_table_of_this_process_has_a_root() {
        let table = MountTable::read().expect("/proc is mounted");
        assert!(table.mounts.iter().any(|mount| mount.path == Path::new("/")));
    }
}
