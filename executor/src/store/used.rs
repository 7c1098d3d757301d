//! When something was last used: the modification time of an object's folder; of an item, whose modification time is
//! part of what it is, the access time. One system call a use, and no list to keep.

use std::fs::Metadata;
use std::time::SystemTime;

use osbc_ir::StageId;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::layout::Layout;

const NOT_CHANGED: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };

/// Notes the use of an object.
pub(super) fn object(layout: &Layout, id: StageId, when: Timespec) {
    let times = Timestamps { last_access: NOT_CHANGED, last_modification: when };
    // Where it cannot be noted, it only seems less valuable.
    rustix::fs::utimensat(CWD, layout.object(id), &times, AtFlags::SYMLINK_NOFOLLOW).ok();
}

/// Notes the use of an item.
pub(super) fn item(layout: &Layout, content_type: &str, checksum: &str, when: Timespec) {
    let times = Timestamps { last_access: when, last_modification: NOT_CHANGED };
    if let Some(path) = layout.item(content_type, checksum) {
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).ok();
    }
}

/// When an object was last used, by its folder.
pub(super) fn when_object(folder: &Metadata) -> SystemTime {
    folder.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When an item was last used.
pub(super) fn when_item(item: &Metadata) -> SystemTime {
    item.accessed().unwrap_or(SystemTime::UNIX_EPOCH)
}
