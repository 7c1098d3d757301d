//! The layout of a tree for OSTree: which folders and links are at its top.

use osbc_module_api::*;

/// Folders at the top.
const FOLDERS: [&str; 6] = ["dev", "proc", "run", "sys", "sysroot", "var"];

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

/// Makes the top of an empty tree. `/tmp` becomes a folder or a link to `/sysroot/tmp`, which osbuild makes the other way
/// round.
///
/// # Errors
/// Something is there already.
pub(crate) fn make_top(tree: &Tree, tmp_is_folder: bool) -> Result<(), Error> {
    tree.chmod("/", 0o755)?;
    for folder in FOLDERS {
        tree.create_dir(folder, 0o755)?;
        tree.chmod(folder, 0o755)?;
    }
    for (link, target) in LINKS {
        tree.symlink(target, link)?;
    }
    if tmp_is_folder {
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
    fn the_top_is_made_with_tmp_as_a_folder_or_a_link() {
        for tmp_is_folder in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            make_top(&Tree::open(folder.path()).unwrap(), tmp_is_folder).unwrap();
            let mode = |name: &str| fs::symlink_metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode("."), 0o40755);
            assert_eq!(mode("sysroot"), 0o40755);
            assert_eq!(fs::read_link(folder.path().join("root")).unwrap().to_str(), Some("var/roothome"));
            assert_eq!(mode("tmp") & 0o170000, if tmp_is_folder { 0o040000 } else { 0o120000 });
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 14);
        }
    }
}
