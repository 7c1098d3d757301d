//! The file systems that a store may lie on, each mounted for one test.

use tempfile::TempDir;

use super::*;

/// A file system that a store may lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FileSystem {
    /// With overlayfs layers, without reflinks.
    Ext4,
    /// With both.
    Xfs,
    /// With both, in another way.
    Btrfs,
    /// In memory, with layers only.
    Tmpfs,
    /// An overlay, which holds no layers of another one, but passes reflinks on to the XFS below it.
    Overlay,
}

pub(super) const ALL: [FileSystem; 5] =
    [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs, FileSystem::Tmpfs, FileSystem::Overlay];

/// A mounted file system, which is gone when this is dropped.
pub(super) struct Place {
    /// An empty directory on it.
    pub(super) path: PathBuf,
    // In the order in which they have to go.
    _mounted: Vec<Mounted>,
    _directory: TempDir,
}

impl FileSystem {
    /// Mounts an empty one; none if its tool is missing.
    pub(super) fn mount(self) -> Option<Place> {
        let mkfs = match self {
            FileSystem::Ext4 => Some(("mkfs.ext4", 256)),
            FileSystem::Xfs | FileSystem::Overlay => Some(("mkfs.xfs", 320)),
            FileSystem::Btrfs => Some(("mkfs.btrfs", 320)),
            FileSystem::Tmpfs => None,
        };
        if mkfs.is_some_and(|(tool, _)| !osbc_fixtures::has_tool(tool)) {
            return None;
        }
        let directory = tempfile::tempdir_in(osbc_fixtures::scratch()).expect("a temporary directory");
        let lowest = match mkfs {
            Some((tool, megabytes)) => Mounted::with(tool, directory.path(), megabytes),
            None => Mounted::in_memory(directory.path()),
        };
        let mut path = lowest.0.join("place");
        let mut mounted = vec![lowest];
        if self == FileSystem::Overlay {
            let around = directory.path().join("overlay");
            for name in ["place", "lower", "work"] {
                fs::create_dir(mounted[0].0.join(name)).expect("makes");
            }
            fs::create_dir(&around).expect("makes");
            let below = mounted[0].0.display();
            let options = format!("lowerdir={below}/lower,upperdir={below}/place,workdir={below}/work");
            run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&around));
            path = around.join("place");
            mounted.insert(0, Mounted(around));
        }
        fs::create_dir(&path).expect("makes");
        Some(Place { path, _mounted: mounted, _directory: directory })
    }

    /// The ways of keeping trees that it has, besides the one that is chosen by itself.
    pub(super) fn ways(self) -> &'static [Layers] {
        match self {
            FileSystem::Ext4 | FileSystem::Tmpfs => &[Layers::Overlay, Layers::Shuffled, Layers::Copy],
            FileSystem::Xfs | FileSystem::Btrfs => &[Layers::Overlay, Layers::Shuffled, Layers::Reflink, Layers::Copy],
            FileSystem::Overlay => &[Layers::Reflink, Layers::Copy],
        }
    }
}
