//! What can go wrong with a store, in words for people.

use std::io;
use std::path::{Path, PathBuf};

use osbc_ir::{StageId, size};

use crate::fs::copy::CopyError;

/// Who has so much room and got none was refused for another reason.
const AMPLE: u64 = 64 << 20;
/// With so few inodes left a failure is taken to have come of that.
const FEW_INODES: u64 = 16;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory holds something else.
    #[error("{} is not a store: it holds other files; name a new or an empty directory", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store was written by a later osbc.
    #[error(
        "the store {} has format {found}, this osbc knows {known}; use a newer osbc or another directory",
        path.display()
    )]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that is known here.
        known: u32,
    },
    /// The store's trees belong to other users than this process can distinguish.
    #[error(
        "the store {} was made {}, this osbc runs {}: its files would belong to others; name another store, or run osbc as \
         before",
        path.display(),
        made_with(found),
        made_with(own)
    )]
    OtherIds {
        /// The store.
        path: PathBuf,
        /// The ids that it was made under.
        found: String,
        /// The ids that this process has.
        own: String,
    },
    /// The store lies on a file system that cannot be written to.
    #[error(
        "cannot {act} {}: the file system is read-only; name another store or, if it was not before, see what the kernel says \
         of its disk (`dmesg`)",
        path.display()
    )]
    ReadOnly {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The user may not write there.
    #[error("cannot {act} {}: permission denied; name a store that you may write to", path.display())]
    Denied {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The file system is full, or the user's part of it.
    #[error(
        "cannot {act} {}: no space left{}, {} free{}; make room or name a store elsewhere",
        path.display(),
        need.map(|need| format!(", {} needed", size(need))).unwrap_or_default(),
        size(*have),
        if need.is_none() && *have >= AMPLE { " (a quota or the disk below the file system may be full)" } else { "" }
    )]
    NoSpace {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// How many bytes it takes, where known.
        need: Option<u64>,
        /// How many bytes were free just after.
        have: u64,
    },
    /// The file system has no room for more files, whatever room for bytes there is.
    #[error(
        "cannot {act} {}: no space left for more files, all {total} inodes of the file system are in use; remove some or name \
         a store elsewhere",
        path.display()
    )]
    NoInodes {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// How many inodes there are.
        total: u64,
    },
    /// On-disk modules would have to get paths that their messages cannot hold.
    #[error(
        "the path of the store {} is not UTF-8, and messages to on-disk modules only hold paths that are; name another store",
        path.display()
    )]
    NotText {
        /// The store.
        path: PathBuf,
    },
    /// A file of osbuild's store is damaged.
    #[error("{} says nothing that osbuild would have written there; remove it, and it is made anew", path.display())]
    NotOsbuilds {
        /// The file.
        path: PathBuf,
    },
    /// Layers were asked for where they cannot be had.
    #[error("the store {} cannot hold layers: {source}; they need Linux 6.7 and a file system like ext4, xfs or btrfs", path.display())]
    NoLayers {
        /// The store.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Reflinks were asked for where they cannot be had.
    #[error("the file system of the store {} has no reflinks: {source}; xfs and btrfs have them", path.display())]
    NoReflinks {
        /// The store.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A tree could not be copied into or within the store.
    #[error("{source} (below {})", path.display())]
    Copy {
        /// The root of the copy.
        path: PathBuf,
        /// Which entry, and why.
        source: CopyError,
    },
    /// The store cannot hold an attribute of a tree.
    #[error("the store's file system does not take the attribute {attribute} of {}: {reason}", path.display())]
    Lossy {
        /// The entry.
        path: PathBuf,
        /// The attribute's name.
        attribute: String,
        /// Why.
        reason: String,
    },
    /// A result is not what was committed.
    #[error("the result {} was damaged ({reason}) and has been set aside; the next build makes it again", id.short())]
    Damaged {
        /// Which one.
        id: StageId,
        /// What is wrong with it.
        reason: String,
    },
    /// No result has this id.
    #[error("there is no result `{id}` in the store {}", path.display())]
    NoSuchObject {
        /// As it was given.
        id: String,
        /// The store.
        path: PathBuf,
    },
    /// Several results have ids that begin so.
    #[error("`{id}` is the beginning of several ids: {}; give more of it", matching.join(", "))]
    Ambiguous {
        /// As it was given.
        id: String,
        /// Some of them.
        matching: Vec<String>,
    },
    /// What was to be removed is being used.
    #[error("the result {} is used by a running build; wait for its end", .0.short())]
    InUse(StageId),
    /// A source item's name cannot be a file's.
    #[error("`{name}` cannot be the name of a source item")]
    ItemName {
        /// The content type and checksum.
        name: String,
    },
    /// The build was ended while it waited for another process.
    #[error("interrupted")]
    Interrupted,
    /// A file operation failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// The OS error.
        source: io::Error,
    },
}

impl StoreError {
    /// Puts what was tried, and where, to a system error: `.map_err(StoreError::io("write", &path))`.
    pub fn io<E: Into<io::Error>>(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> StoreError {
        move |source| {
            let (path, source) = (path.as_ref().to_owned(), source.into());
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => match inodes_in_use(&path) {
                    Some(total) => StoreError::NoInodes { act, path, total },
                    None => {
                        let have = free_space(&path);
                        StoreError::NoSpace { act, path, need: None, have }
                    }
                },
                io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { act, path },
                io::ErrorKind::PermissionDenied => StoreError::Denied { act, path },
                _ => StoreError::Io { act, path, source },
            }
        }
    }

    /// The same for a failed copy, whose entries are below `path`.
    pub(crate) fn copy(path: &Path) -> impl FnOnce(CopyError) -> StoreError {
        move |failure| match failure.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::io("copy to", path)(failure.source)
            }
            _ => StoreError::Copy { path: path.to_owned(), source: failure },
        }
    }

    /// The same, of an act that takes so many bytes.
    #[must_use]
    pub(crate) fn needing(self, bytes: u64) -> Self {
        match self {
            StoreError::NoSpace { act, path, have, .. } => StoreError::NoSpace { act, path, need: Some(bytes), have },
            other => other,
        }
    }

    /// The same of an act whose bytes are nearly known: about so many for all that it is a part of, which is more than
    /// there is.
    #[must_use]
    pub fn needing_about(self, known: Option<u64>) -> Self {
        match (self, known) {
            (StoreError::NoSpace { act, path, need: None, have }, Some(known)) if known > have => {
                StoreError::NoSpace { act, path, need: Some(known), have }
            }
            (other, _) => other,
        }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::NoSpace { .. } | StoreError::NoInodes { .. })
    }

    /// Whether the surroundings, not the build, have to change.
    pub fn is_environment(&self) -> bool {
        !matches!(self, StoreError::ItemName { .. } | StoreError::Interrupted)
    }
}

/// What ids say of who has them; an empty text are the machine's own.
fn made_with(ids: &str) -> String {
    if ids.is_empty() { "as root".to_owned() } else { format!("without root ({ids})") }
}

/// With less room than this, in bytes, a failed stage counts as failed by a full disk.
pub(crate) const NEARLY_FULL: u64 = 1 << 20;
/// With more room than that, a stage that found none did not mean the store.
pub(crate) const PERHAPS_FULL: u64 = 2 << 30;

/// The bytes that may still be written at a path, or at the nearest directory above it that is there.
pub(crate) fn free_space(path: &Path) -> u64 {
    path.ancestors()
        .find_map(|directory| rustix::fs::statvfs(directory).ok())
        .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns how many inodes the file system of a path has, if they are all in use while there is room for bytes.
pub(crate) fn inodes_in_use(path: &Path) -> Option<u64> {
    let stat = path.ancestors().find_map(|directory| rustix::fs::statvfs(directory).ok())?;
    // Some file systems make them as they are needed, and say that there are none. What has just failed may have given
    // back a few.
    let are_out = stat.f_files > 0 && stat.f_favail < FEW_INODES;
    (are_out && stat.f_bavail.saturating_mul(stat.f_frsize) >= NEARLY_FULL).then_some(stat.f_files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_word_becomes_a_way_out() {
        let error = StoreError::io("write", "/tmp/x")(io::Error::from(io::ErrorKind::StorageFull));
        assert!(error.to_string().starts_with("cannot write /tmp/x: no space left, "), "{error}");
        for (have, is_ample) in [(AMPLE - 1, false), (AMPLE, true)] {
            let error = StoreError::NoSpace { act: "write", path: "/tmp/x".into(), need: None, have };
            assert_eq!(error.to_string().contains("a quota or the disk below"), is_ample, "{error}");
        }
        let error = StoreError::io("write", "/tmp/x")(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        assert!(error.to_string().starts_with("cannot write /tmp/x: the file system is read-only; name another store"));
    }
}
