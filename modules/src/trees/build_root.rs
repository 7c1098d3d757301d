//! Files of the build root that stages put into a tree, with modes, times and extended attributes, but not owners:
//! links of the build root are followed.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use osbc_module_api::{Error, Tree};
use rustix::fs::{OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

/// The root that the stage runs in.
///
/// # Errors
/// The process has no file descriptors left.
pub(crate) fn here() -> Result<Tree, Error> {
    Tree::open("/")
}

/// Copies the file `source` to `target`, or to its own name below it where that is a directory.
///
/// # Errors
/// One of them cannot be read or written.
pub(crate) fn copy_file(
    root: &Tree,
    source: impl AsRef<Path>,
    tree: &Tree,
    target: impl AsRef<Path>,
) -> Result<(), Error> {
    let (source, mut target) = (source.as_ref(), target.as_ref().to_owned());
    if tree.is_dir(&target)? {
        target.push(source.file_name().unwrap_or_default());
    }
    let mut from = root.open_file(source, OFlags::RDONLY, 0)?;
    let mut to = tree.open_file(&target, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o666)?;
    io::copy(&mut from, &mut to).map_err(Error::io("copy", source))?;
    copy_attributes(&from, &to).map_err(Error::io("set the attributes of", Path::new("/").join(&target)))
}

/// Copies what is below the directory `source` to the directory `target`, which is made with those above it.
///
/// # Errors
/// As for [`copy_file`]; or `merge` is off and the directory, or one below it, is there already.
pub(crate) fn copy_directory(
    root: &Tree,
    source: impl AsRef<Path>,
    tree: &Tree,
    target: impl AsRef<Path>,
    merge: bool,
) -> Result<(), Error> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let names = root.read_dir(source)?;
    if !merge && tree.symlink_metadata(target).is_ok() {
        let target = Path::new("/").join(target);
        return Err(Error::failed(format!("{} is there already", target.display())));
    }
    tree.create_dir_all(target, 0o777)?;
    for name in names {
        let (from, to) = (source.join(&name), target.join(&name));
        if root.is_dir(&from)? {
            copy_directory(root, &from, tree, &to, merge)?;
        } else {
            copy_file(root, &from, tree, &to)?;
        }
    }
    let (from, to) = (root.open_file(source, OFlags::RDONLY, 0)?, tree.open_file(target, OFlags::RDONLY, 0)?);
    copy_attributes(&from, &to).map_err(Error::io("set the attributes of", Path::new("/").join(target)))
}

fn copy_attributes(from: &std::fs::File, to: &std::fs::File) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let mut list = vec![0; rustix::fs::flistxattr(from, &mut [0_u8; 0])?];
    let length = rustix::fs::flistxattr(from, &mut list)?;
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
        let mut value = vec![0; rustix::fs::fgetxattr(from, name, &mut [0_u8; 0])?];
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // What the file system or the process may not have, such as a label of SELinux.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NODATA | Errno::INVAL | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::fs::fchmod(to, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use osbc_module_api::tree::Times;

    use super::*;

    fn trees() -> (tempfile::TempDir, Tree, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            Tree::open(directory.path().join(name)).unwrap()
        };
        let (root, tree) = (tree("root"), tree("tree"));
        root.create_dir_all("usr/a/b", 0o750).unwrap();
        root.write("usr/a/b/x", "x").unwrap();
        root.chmod("usr/a/b/x", 0o4640).unwrap();
        root.set_times("usr/a/b/x", Times { accessed: (1, 2), modified: (3, 4) }).unwrap();
        root.symlink("/usr/a/b/x", "usr/a/link").unwrap();
        (directory, root, tree)
    }

    #[test]
    fn files_keep_mode_and_times_and_links_are_followed() {
        let (_directory, root, tree) = trees();
        tree.create_dir("d", 0o755).unwrap();
        copy_file(&root, "usr/a/link", &tree, "d").unwrap();
        let copied = tree.symlink_metadata("d/link").unwrap();
        assert!(copied.is_file());
        assert_eq!((copied.mode() & 0o7777, copied.mtime(), copied.mtime_nsec()), (0o4640, 3, 4));
        assert!(copy_file(&root, "usr/none", &tree, "d").unwrap_err().to_string().contains("usr/none"));
    }

    #[test]
    fn directories_are_copied_whole_and_merged_on_demand() {
        let (_directory, root, tree) = trees();
        copy_directory(&root, "usr/a", &tree, "to/a", false).unwrap();
        assert_eq!(tree.read_to_string("to/a/b/x").unwrap(), "x");
        assert_eq!(tree.read_to_string("to/a/link").unwrap(), "x");
        assert_eq!(tree.metadata("to/a/b").unwrap().mode() & 0o7777, 0o750);
        let error = copy_directory(&root, "usr/a", &tree, "to/a", false).unwrap_err().to_string();
        assert_eq!(error, "/to/a is there already");
        copy_directory(&root, "usr/a", &tree, "to/a", true).unwrap();
    }
}
