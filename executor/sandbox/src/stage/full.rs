//! Whether a stage failed because a file system that it has mounted is full: its own error says no more than that there is
//! no space, and not where.

use std::path::Path;

use rustix::fs::{StatVfs, StatVfsMountFlags};

use osbc_ir::size;

/// What is free of a file system that counts as full, as a part of its size: some keep a little for themselves.
const NEARLY: u64 = 100;

/// Returns what to say of the mount `name` at `path` behind the failure of its stage; `None` if it has room.
pub(crate) fn hint(name: &str, path: &Path) -> Option<String> {
    let stat = rustix::fs::statvfs(path).ok()?;
    describe(&stat).map(|state| {
        format!("; the file system of the mount `{name}` is full: {state}; raise the `size` of its image or partition")
    })
}

/// Whether the file system that `path` is on is full.
pub(crate) fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| describe(&stat).is_some())
}

fn describe(stat: &StatVfs) -> Option<String> {
    // What is only read is always full.
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return None;
    }
    if stat.f_files > 0 && stat.f_ffree == 0 {
        return Some(format!("all of its {} inodes are in use", stat.f_files));
    }
    let free = stat.f_bavail.min(stat.f_bfree);
    (free <= stat.f_blocks / NEARLY).then(|| {
        let in_bytes = |blocks: u64| size(blocks.saturating_mul(stat.f_frsize));
        format!("{} of {} are free", in_bytes(free), in_bytes(stat.f_blocks))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(blocks: u64, free: u64, inodes: u64, free_inodes: u64) -> StatVfs {
        let mut stat = rustix::fs::statvfs("/proc").expect("it is mounted");
        (stat.f_flag, stat.f_frsize, stat.f_blocks) = (StatVfsMountFlags::empty(), 1000, blocks);
        (stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree) = (free, free, inodes, free_inodes);
        stat
    }

    #[test]
    fn full_file_systems_are_distinguished_from_those_with_room() {
        assert_eq!(describe(&stat(20_000, 150, 10, 5)).as_deref(), Some("146.5 KiB of 19.1 MiB are free"));
        assert_eq!(describe(&stat(20_000, 5000, 10, 0)).as_deref(), Some("all of its 10 inodes are in use"));
        assert_eq!(describe(&stat(20_000, 5000, 10, 5)), None);
        // Some file systems make inodes as they need them.
        assert_eq!(describe(&stat(20_000, 5000, 0, 0)), None);
        assert_eq!(describe(&StatVfs { f_flag: StatVfsMountFlags::RDONLY, ..stat(20_000, 0, 10, 0) }), None);
    }
}
