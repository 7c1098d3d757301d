//! When an object was last used: the modification time of its directory.
//!
//! One system call a use, and no list to keep. Of items that is noted elsewhere ([`crate::check::stamps`]).

use std::fs::Metadata;
use std::time::SystemTime;

use osbc_ir::StageId;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use crate::objects::layout::Layout;

const NOT_CHANGED: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };

/// Notes the use of an object.
pub(crate) fn object(layout: &Layout, id: StageId, when: Timespec) {
    let times = Timestamps { last_access: NOT_CHANGED, last_modification: when };
    // Where it cannot be noted, it only seems less valuable.
    rustix::fs::utimensat(CWD, layout.object(id), &times, AtFlags::SYMLINK_NOFOLLOW).ok();
}

/// When an object was last used, by its directory.
pub(crate) fn when_object(directory: &Metadata) -> SystemTime {
    directory.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}
