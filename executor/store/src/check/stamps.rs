//! What is known of source items: the stamp that an item had when it was last found to be what its name says, and when
//! it was last used.
//!
//! Items lie where osbuild has them too, so this lies elsewhere:
//!
//! ```text
//! <store>/stamps/<content type>:<checksum>     a symbolic link with the stamp as its target; its time is that of the last use
//! ```
//!
//! A link takes one look to read, no block of the disk, and appears at once with all that it says. Notes of use change
//! the change time of what they are made on, which is why an item itself cannot have them: its stamp could never stay.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::digest;
use osbc_ir::ItemKey;

use crate::objects::layout::Layout;
use crate::store::Store;

/// How many digits of a stamp are kept: links of up to 59 bytes lie in an inode of ext4.
const DIGITS: usize = 32;

impl Store {
    /// Whether an item is the very one that was last found to be what its name says, as it was then.
    pub(crate) fn item_is_known(&self, key: &ItemKey) -> bool {
        let Some((item, link)) = places(self.layout(), key) else { return false };
        let known = std::fs::read_link(link).ok();
        known.is_some() && known == stamp(&item).map(PathBuf::from)
    }

    /// Returns the stamp of an item as it is now; `None` if there is no file or directory in its place.
    pub(crate) fn item_stamp(&self, key: &ItemKey) -> Option<String> {
        stamp(&self.layout().item(key)?)
    }

    /// Notes that an item with this stamp is what its name says. Where it cannot be noted, the item is read before it
    /// is next used.
    pub(crate) fn know_item(&self, key: &ItemKey, stamp: &str) {
        if let Some((_, link)) = places(self.layout(), key) {
            put(&link, stamp).ok();
        }
    }

    /// Forgets an item.
    pub(crate) fn forget_item(&self, key: &ItemKey) {
        if let Some((_, link)) = places(self.layout(), key) {
            std::fs::remove_file(link).ok();
        }
    }
}

/// Notes the use of an item. Of one that is not known it cannot be noted, and it only seems less valuable.
pub(crate) fn used(layout: &Layout, key: &ItemKey) {
    if let Some((_, link)) = places(layout, key) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(CWD, link, &times, AtFlags::SYMLINK_NOFOLLOW).ok();
    }
}

/// Returns when an item was last used, as far as that is known.
pub(crate) fn last_use(layout: &Layout, key: &ItemKey, item: &Metadata) -> SystemTime {
    let noted = places(layout, key).and_then(|(_, link)| link.symlink_metadata().ok());
    let noted = noted.and_then(|link| link.modified().ok());
    noted.or_else(|| item.accessed().ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Where an item lies, and the link with its stamp.
fn places(layout: &Layout, key: &ItemKey) -> Option<(PathBuf, PathBuf)> {
    let item = layout.item(key)?;
    Some((item, layout.stamps().join(format!("{}:{}", key.content_type, key.checksum))))
}

fn stamp(item: &Path) -> Option<String> {
    let mut stamp = digest::stamp(item).ok()?;
    stamp.truncate(DIGITS);
    Some(stamp)
}

fn put(link: &Path, stamp: &str) -> io::Result<()> {
    let unfinished = link.with_file_name(uuid::Uuid::new_v4().simple().to_string());
    let made = || symlink(stamp, &unfinished);
    match made() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(link.parent().unwrap_or(Path::new("/")))?;
            made()?;
        }
        other => other?,
    }
    std::fs::rename(&unfinished, link)
}
