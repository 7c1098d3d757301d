//! The modification time of an entry, to be set again.

use rustix::fs::{Stat, Timespec, Timestamps, UTIME_OMIT};

/// Returns what sets the modification time that an entry had, and leaves the time of its last use alone.
pub(crate) fn modified(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
