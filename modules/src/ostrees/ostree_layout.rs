//! The layout of a tree for OSTree: which directories and links are at its top.

use osbc_module_api::*;

/// Directories at the top.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "var"];

/// Links at the top, and where they lead.
const LINKS: [(&str, &str); 7] = [
    ("home", "var/home"),
    ("media", "run/media"),
    ("mnt", "var/mnt"),
    ("opt", "var/opt"),
    ("ostree", "sysroot/ostree"),
    ("root", "var/roothome"),
    ("srv", "var/srv"),
];

/// What is taken over from the top of a tree besides `usr`, `boot` and `var`, where it is there.
pub(crate) const MERGED: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];

/// Makes the top of an empty tree. `/tmp` becomes a directory or a link to `/sysroot/tmp`, which osbuild makes the
/// other way round.
///
/// # Errors
/// Something is there already.
pub(crate) fn make_top(tree: &Tree, tmp_is_directory: bool) -> Result<(), Error> {
    tree.chmod("/", 0o755)?;
    for directory in DIRECTORIES {
        tree.create_dir(directory, 0o755)?;
        tree.chmod(directory, 0o755)?;
    }
    for (link, target) in LINKS {
        tree.symlink(target, link)?;
    }
    if tmp_is_directory {
        tree.create_dir("tmp", 0o1777)?;
        tree.chmod("tmp", 0o1777)
    } else {
        tree.symlink("sysroot/tmp", "tmp")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_top_is_made_with_tmp_as_a_directory_or_a_link() {
        for tmp_is_directory in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            make_top(&Tree::open(directory.path()).unwrap(), tmp_is_directory).unwrap();
            let mode = |name: &str| fs::symlink_metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode("."), 0o40755);
            assert_eq!(mode("sysroot"), 0o40755);
            assert_eq!(fs::read_link(directory.path().join("root")).unwrap().to_str(), Some("var/roothome"));
            assert_eq!(mode("tmp") & 0o170000, if tmp_is_directory { 0o040000 } else { 0o120000 });
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 14);
        }
    }
}
