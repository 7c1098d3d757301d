//! Builds the sandbox's root below a directory of the calling process's own mount namespace.
//!
//! Knows what belongs there from `spec`, and nothing of modules.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use osbc_module_api::container;
use osbc_store::TreeStack;
use osbc_store::fs::overlay;
use osbc_store::user_namespace;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, makedev, mknodat, openat2};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::spec::{CMDLINE, Item, PROCESSES, ROOT, SHOWN, SYSTEM, When};
use super::sys;

/// The file beside the root that becomes `/proc/cmdline`.
const CMDLINE_FILE: &str = "cmdline";
/// What hides files and directories, beside the root.
const EMPTY_FILE: &str = "nothing";
const EMPTY_DIRECTORY: &str = "none";
/// The directory of device nodes, in the root and beside it.
const NODES: &str = "dev";

/// Something that could not be made, and where.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}: {source}", path.display())]
pub(crate) struct RootError {
    act: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Puts what was tried, and where, to a system error.
pub(crate) fn cannot<E: Into<io::Error>>(act: &'static str, path: &Path) -> impl FnOnce(E) -> RootError {
    move |source| RootError { act, path: path.to_owned(), source: source.into() }
}

/// Makes the directory `path`, with those around it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), RootError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(cannot("make the directory", path))
}

/// Mounts a tree at the directory `target`: read-only unless it has an upper end. A stack without any directory is an
/// empty read-only tree.
///
/// # Errors
/// A directory of the stack is missing, or the kernel refuses.
pub(crate) fn mount_stack(stack: &TreeStack, target: &Path) -> Result<(), RootError> {
    let mount = stack_mount(stack).map_err(cannot("open a tree for", target))?;
    sys::attach(mount, target).map_err(cannot("mount", target))
}

/// The same mount, which does not appear anywhere yet.
///
/// # Errors
/// A directory of the stack is missing, or the kernel refuses.
pub(crate) fn stack_mount(stack: &TreeStack) -> io::Result<OwnedFd> {
    let directories = stack.lower.len() + usize::from(stack.upper.is_some());
    let attributes = if stack.upper.is_some() { sys::PLAIN } else { sys::READ_ONLY };
    let mount = match directories {
        0 => sys::new_mount("tmpfs", &[("mode", "755"), ("nr_inodes", "1")], MountAttrFlags::empty())?,
        1 => overlay::open(stack).and_then(sys::copy_mount)?,
        _ => overlay::open(stack)?,
    };
    sys::set_attributes(&mount, attributes)?;
    Ok(mount)
}

/// Makes the root at `place`/root; other things beside it are out of the stage's sight.
///
/// `place` is a directory in memory, the umask is 0. `build_root` is the tree that the stage runs in, none for the
/// host's; `more` is what belongs there besides.
///
/// # Errors
/// Some part of it could not be made.
pub(crate) fn build(place: &Path, build_root: Option<&TreeStack>, more: &[Item]) -> Result<PathBuf, RootError> {
    let build_root = BuildRoot::open(place, build_root)?;
    let root = place.join("root");
    make_directory(&root, 0o755)?;
    // What becomes the root of a mount namespace must be a mount.
    bind(open(&root)?, &root, sys::PLAIN)?;
    for item in ROOT.iter().chain(more) {
        make(&root, &build_root, *item)?;
    }
    make_file(&place.join(CMDLINE_FILE), CMDLINE, 0o444)?;
    make_file(&place.join(EMPTY_FILE), "", 0o444)?;
    make_directory(&place.join(EMPTY_DIRECTORY), 0o555)?;
    Ok(root)
}

fn make(root: &Path, build_root: &BuildRoot, item: Item) -> Result<(), RootError> {
    match item {
        Item::Directory { at, mode } => make_directory(&root.join(at), mode),
        Item::File { at } => make_file(&root.join(at), "", 0o666),
        Item::Link { at, to } => {
            let path = root.join(at);
            symlink(to, &path).map_err(cannot("make the link", &path))
        }
        Item::Memory { at, mode, devices } => {
            // A directory beside the root, of the same file system: one is made and undone faster than five.
            let (directory, target) = (root.with_file_name(at.replace('/', "-")), root.join(at));
            make_directory(&directory, mode)?;
            make_directory(&target, 0o755)?;
            let attributes = if devices { MountAttrFlags::MOUNT_ATTR_NOSUID } else { sys::PLAIN };
            bind(open(&directory)?, &target, attributes)
        }
        Item::Terminals { at } => {
            let options = [("ptmxmode", "666"), ("mode", "620"), ("gid", "5")];
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            new_mount(&root.join(at), "devpts", &options, attributes)
        }
        Item::Node { at, major, minor, optional } => {
            if optional && !Path::new("/").join(at).exists() {
                return Ok(());
            }
            let path = root.join(at);
            if user_namespace::in_namespace() {
                make_file(&path, "", 0o666)?;
                return bind(open(&Path::new("/").join(at))?, &path, MountAttrFlags::MOUNT_ATTR_NOSUID);
            }
            let mode = Mode::from_raw_mode(0o666);
            mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))
                .map_err(cannot("make the device node", &path))
        }
        // Their mounts come later: they show the namespaces of the process that makes them.
        Item::Processes { at } | Item::System { at } => make_directory(&root.join(at), 0o755),
        Item::BuildRoot { at, when } => match build_root.find(at, when)? {
            Some((found, is_directory)) => {
                let target = root.join(at);
                if is_directory {
                    make_directory(&target, 0o755)?
                } else {
                    make_file(&target, "", 0o444)?
                }
                bind(found, &target, sys::READ_ONLY)
            }
            None => Ok(()),
        },
    }
}

/// Mounts `/proc` and `/sys` below the root that [`build`] made: what the calling process's namespaces of processes and
/// of networks have.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn mount_views(root: &Path) -> Result<(), RootError> {
    let attributes = sys::PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let read_only = attributes | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let processes = &root.join(PROCESSES);
    new_mount(processes, "proc", &[], attributes)?;
    for path in container::READ_ONLY.map(|path| inside(root, path)) {
        if path.exists() {
            bind(open(&path)?, &path, read_only)?;
        }
    }
    bind(open(&root.with_file_name(CMDLINE_FILE))?, &processes.join("cmdline"), sys::READ_ONLY)?;
    let system = &root.join(SYSTEM);
    match sys::new_mount("sysfs", &[], read_only) {
        Ok(mount) => sys::attach(mount, system).map_err(cannot("mount", system))?,
        // Without root, where a container hides parts of its own: all of it is read-only, and so is this.
        Err(error) if user_namespace::in_namespace() && error.kind() == io::ErrorKind::PermissionDenied => {
            bind(open(Path::new("/sys"))?, system, read_only)?;
            hide(root, &system.join("fs/cgroup"))?;
        }
        Err(error) => return Err(cannot("make a file system for", system)(error)),
    }
    let hidden = container::HIDDEN.into_iter().filter(|path| *path != SHOWN);
    hidden.map(|path| inside(root, path)).try_for_each(|path| hide(root, &path))
}

/// Where an absolute path of the sandbox lies below its root.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Hides what is at a path, if there is something, behind something empty.
fn hide(root: &Path, path: &Path) -> Result<(), RootError> {
    let Ok(status) = fs::symlink_metadata(path) else { return Ok(()) };
    let empty = root.with_file_name(if status.is_dir() { EMPTY_DIRECTORY } else { EMPTY_FILE });
    bind(open(&empty)?, path, sys::READ_ONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

/// Lets device nodes work that are in `/dev` of the root that [`build`] made, and none that is made there later, by
/// whomever.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn settle_devices(root: &Path) -> Result<(), RootError> {
    let target = root.join(NODES);
    sys::set_attributes_of_one(open(&target)?, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(cannot("set up", &target))?;
    show_nodes(&root.with_file_name(NODES), &target)
}

/// Mounts each node of a directory over itself as it is seen at `target`.
fn show_nodes(directory: &Path, target: &Path) -> Result<(), RootError> {
    for entry in fs::read_dir(directory).map_err(cannot("list", directory))? {
        let entry = entry.map_err(cannot("list", directory))?;
        let (path, target) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type().map_err(cannot("examine", &path))?;
        if kind.is_dir() {
            show_nodes(&path, &target)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            bind(open(&path)?, &target, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        }
    }
    Ok(())
}

/// A new file system without a device at the directory `target`, which is made.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn new_mount(
    target: &Path,
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<(), RootError> {
    make_directory(target, 0o755)?;
    let mount = sys::new_mount(kind, options, attributes).map_err(cannot("make a file system for", target))?;
    sys::attach(mount, target).map_err(cannot("mount", target))
}

/// Makes what is at `from` visible at `target` too, with the mounts below it.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn bind(from: OwnedFd, target: &Path, attributes: MountAttrFlags) -> Result<(), RootError> {
    let mount = sys::copy_mount(from).map_err(cannot("copy the mount for", target))?;
    sys::set_attributes(&mount, attributes).map_err(cannot("set up the mount", target))?;
    sys::attach(mount, target).map_err(cannot("mount", target))
}

/// A handle on a directory or file of the caller's own root, for [`bind`].
///
/// # Errors
/// It is not there.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, RootError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(cannot("open", path))
}

pub(crate) fn make_file(path: &Path, content: &str, mode: u32) -> Result<(), RootError> {
    fs::write(path, content).map_err(cannot("write", path))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(cannot("set the mode of", path))
}

/// The tree that a stage runs in.
struct BuildRoot {
    root: OwnedFd,
    is_host: bool,
}

impl BuildRoot {
    fn open(place: &Path, stack: Option<&TreeStack>) -> Result<Self, RootError> {
        let Some(stack) = stack else {
            return Ok(Self { root: open(Path::new("/"))?, is_host: true });
        };
        let target = place.join("build");
        make_directory(&target, 0o755)?;
        mount_stack(stack, &target)?;
        Ok(Self { root: open(&target)?, is_host: false })
    }

    /// A handle on what is at `at`, resolved inside, and whether it is a directory.
    fn find(&self, at: &'static str, when: When) -> Result<Option<(OwnedFd, bool)>, RootError> {
        if when == When::DirectoryOfPipeline && self.is_host {
            return Ok(None);
        }
        let follow = if when == When::Found { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = loop {
            match openat2(&self.root, at, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                result => break result.map_err(cannot("open in the build root", Path::new(at)))?,
            }
        };
        let status = fstat(&found).map_err(cannot("examine in the build root", Path::new(at)))?;
        Ok(match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => Some((found, true)),
            FileType::RegularFile if when == When::Found => Some((found, false)),
            _ => None,
        })
    }
}
