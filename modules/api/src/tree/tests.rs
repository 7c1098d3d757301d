//! What a tree promises: whatever lies in it, nothing outside of it is read, changed or removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A tree, and beside it a directory `outside` with the file `canary` that must stay as it is.
struct Yard {
    directory: tempfile::TempDir,
    tree: Tree,
}

impl Yard {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tree")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/canary"), "sings").unwrap();
        let tree = Tree::open(directory.path().join("tree")).unwrap();
        Self { directory, tree }
    }

    /// A path as the host sees it.
    fn host(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn canary_sings(&self) {
        let names: Vec<_> = fs::read_dir(self.host("outside")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        let canary = self.host("outside/canary");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "sings");
        let metadata = fs::metadata(&canary).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.nlink()), (0o644, 1));
        assert_eq!(fs::metadata(self.host("outside")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}

/// Every way to say "the canary outside" from inside the tree.
fn ways_out(yard: &Yard) -> Vec<PathBuf> {
    let absolute = yard.host("outside/canary");
    let link = |name: &str, target: &Path| symlink(target, yard.host("tree").join(name)).unwrap();
    link("absolute", &absolute);
    link("relative", Path::new("../outside/canary"));
    link("deep", Path::new("../../../../../../../../../../outside/canary"));
    link("directory", &yard.host("outside"));
    link("up", Path::new(".."));
    link("chain", Path::new("second"));
    link("second", Path::new("absolute"));
    link("proc", Path::new("/proc/self/cwd"));
    let mut ways: Vec<PathBuf> = ["absolute", "relative", "deep", "directory/canary", "up/outside/canary", "chain"]
        .iter()
        .map(PathBuf::from)
        .collect();
    ways.extend(["../outside/canary".into(), "/../outside/canary".into(), absolute, "proc/canary".into()]);
    ways
}

#[test]
fn no_path_reads_what_is_outside() {
    let yard = Yard::new();
    for way in ways_out(&yard) {
        assert!(yard.tree.read(&way).is_err(), "{}", way.display());
        assert!(yard.tree.metadata(&way).is_err(), "{}", way.display());
        assert!(!yard.tree.exists(&way).unwrap(), "{}", way.display());
        assert!(yard.tree.subtree(&way).is_err(), "{}", way.display());
    }
}

#[test]
fn no_path_changes_what_is_outside() {
    let yard = Yard::new();
    let tree = &yard.tree;
    for way in ways_out(&yard) {
        // Whether each succeeds inside the tree or fails is not the question here.
        let _ = tree.write(&way, "silent");
        let _ = tree.append(&way, "silent");
        let _ = tree.write_new(&way, "silent");
        let _ = tree.chmod(&way, 0o600);
        let _ = tree.chown(&way, Some(1), Some(1));
        let _ = tree.lchown(&way, Some(1), Some(1));
        let _ = tree.set_xattr(&way, "user.test", b"1");
        let _ = tree.set_times(&way, Times { accessed: (1, 0), modified: (1, 0) });
        let _ = tree.hard_link(&way, "name");
        let _ = tree.rename(&way, "moved");
        let _ = tree.create_dir_all(&way, 0o700);
        let _ = tree.replace(&way, "silent", 0o600);
        let _ = tree.remove_file(&way);
        let _ = tree.remove_dir_all(&way);
        yard.canary_sings();
    }
    for directory in ["directory", "up/outside", "../outside"] {
        let _ = tree.write(format!("{directory}/new"), "silent");
        let _ = tree.symlink("x", format!("{directory}/link"));
        let _ = tree.create_dir(format!("{directory}/inner"), 0o755);
        let _ = tree.chmod(directory, 0o700);
        let _ = tree.remove_dir_all(directory);
        yard.canary_sings();
    }
}

#[test]
fn absolute_links_and_dots_start_at_the_root_of_the_tree() {
    let yard = Yard::new();
    yard.tree.create_dir_all("usr/lib", 0o755).unwrap();
    yard.tree.symlink("/usr/lib", "lib").unwrap();
    yard.tree.symlink("../../../../../lib/os", "usr/lib/link").unwrap();
    yard.tree.write("/lib/os", "linux").unwrap();
    assert_eq!(yard.tree.read_to_string("usr/lib/link").unwrap(), "linux");
    assert_eq!(yard.tree.read_to_string("../usr/../lib/os").unwrap(), "linux");
    assert_eq!(fs::read_to_string(yard.host("tree/usr/lib/os")).unwrap(), "linux");
}

#[test]
fn writing_follows_links_inside_the_tree_and_keeps_the_mode() {
    let yard = Yard::new();
    yard.tree.create_dir("etc", 0o755).unwrap();
    yard.tree.write("etc/target", "old and long").unwrap();
    yard.tree.chmod("etc/target", 0o600).unwrap();
    yard.tree.symlink("target", "etc/link").unwrap();
    yard.tree.symlink("/etc/missing", "etc/dangling").unwrap();
    yard.tree.write("etc/link", "new").unwrap();
    yard.tree.append("etc/link", "er").unwrap();
    yard.tree.write("etc/dangling", "made").unwrap();
    assert_eq!(yard.tree.read_to_string("etc/target").unwrap(), "newer");
    assert_eq!(yard.tree.metadata("etc/target").unwrap().mode() & 0o7777, 0o600);
    assert_eq!(yard.tree.read_to_string("etc/missing").unwrap(), "made");
    assert!(yard.tree.symlink_metadata("etc/link").unwrap().is_symlink());
}

#[test]
fn what_makes_names_does_not_follow_links() {
    let yard = Yard::new();
    yard.tree.write("target", "kept").unwrap();
    yard.tree.symlink("target", "link").unwrap();
    assert!(yard.tree.write_new("link", "x").is_err());
    yard.tree.rename("link", "renamed").unwrap();
    assert_eq!(yard.tree.read_link("renamed").unwrap(), Path::new("target"));
    yard.tree.hard_link("renamed", "second").unwrap();
    assert!(yard.tree.symlink_metadata("second").unwrap().is_symlink());
    yard.tree.replace("renamed", "new", 0o751).unwrap();
    assert_eq!(yard.tree.symlink_metadata("renamed").unwrap().mode(), 0o100_751);
    yard.tree.remove_file("second").unwrap();
    assert_eq!(yard.tree.read_to_string("target").unwrap(), "kept");
    assert_eq!(yard.tree.read_dir("/").unwrap(), ["renamed", "target"]);
}

#[test]
fn loops_and_dangling_links_are_not_there() {
    let yard = Yard::new();
    yard.tree.symlink("b", "a").unwrap();
    yard.tree.symlink("a", "b").unwrap();
    yard.tree.symlink("nowhere", "dangling").unwrap();
    for path in ["a", "dangling", "a/b", "missing/deep"] {
        assert!(!yard.tree.exists(path).unwrap(), "{path}");
        assert!(yard.tree.path_for_tools(path).is_err(), "{path}");
    }
    assert!(yard.tree.symlink_metadata("dangling").unwrap().is_symlink());
    assert!(yard.tree.create_dir_all("dangling", 0o755).is_err());
    assert!(yard.tree.create_dir_all("a/c", 0o755).is_err());
}

#[test]
fn directories_are_made_with_all_their_parents_once() {
    let yard = Yard::new();
    yard.tree.create_dir_all("/a/b/../c/", 0o700).unwrap();
    yard.tree.create_dir_all("/a/b/../c/", 0o755).unwrap();
    assert_eq!(yard.tree.metadata("a/c").unwrap().mode() & 0o777, 0o700);
    assert_eq!(yard.tree.metadata("a/b").unwrap().mode() & 0o777, 0o755);
    yard.tree.write("file", "").unwrap();
    assert!(yard.tree.create_dir_all("file", 0o755).is_err());
    assert!(yard.tree.create_dir_all("file/below", 0o755).is_err());
    assert!(yard.tree.create_dir("a", 0o755).is_err());
    yard.tree.create_dir_all("/", 0o700).unwrap();
    assert!(yard.tree.create_dir("/", 0o700).is_err());
}

#[test]
fn attributes_of_links_are_their_own() {
    let yard = Yard::new();
    yard.tree.write("file", "").unwrap();
    yard.tree.symlink("file", "link").unwrap();
    let times = Times { accessed: (1, 2), modified: (-3, 999_999_999) };
    yard.tree.set_times("link", times).unwrap();
    let link = yard.tree.symlink_metadata("link").unwrap();
    assert_eq!((link.atime(), link.atime_nsec(), link.mtime(), link.mtime_nsec()), (1, 2, -3, 999_999_999));
    assert_ne!(yard.tree.metadata("link").unwrap().mtime(), -3);
}

#[test]
fn extended_attributes_can_be_set_read_listed_and_taken() {
    let yard = Yard::new();
    yard.tree.write("file", "").unwrap();
    yard.tree.set_xattr("file", "user.b", b"two").unwrap();
    yard.tree.set_xattr("file", "user.a", b"").unwrap();
    assert_eq!(yard.tree.xattr_names("file").unwrap(), ["user.a", "user.b"]);
    assert_eq!(yard.tree.xattr("file", "user.b").unwrap().unwrap(), b"two");
    assert_eq!(yard.tree.xattr("file", "user.a").unwrap().unwrap(), b"");
    yard.tree.remove_xattr("file", "user.a").unwrap();
    assert_eq!(yard.tree.xattr("file", "user.a").unwrap(), None);
}

#[test]
fn no_owner_has_the_number_for_none() {
    let yard = Yard::new();
    yard.tree.write("file", "").unwrap();
    assert!(yard.tree.chown("file", Some(u32::MAX), None).is_err());
    assert!(yard.tree.lchown("file", None, Some(u32::MAX)).is_err());
}

#[test]
fn root_owners_follow_or_do_not() {
    if !root() {
        return;
    }
    let yard = Yard::new();
    yard.tree.write("file", "").unwrap();
    yard.tree.symlink("file", "link").unwrap();
    yard.tree.chown("link", Some(5), None).unwrap();
    yard.tree.lchown("link", None, Some(6)).unwrap();
    yard.tree.set_xattr("link", "trusted.test", b"link").unwrap();
    let owner = |metadata: Metadata| (metadata.uid(), metadata.gid());
    assert_eq!(owner(yard.tree.metadata("file").unwrap()), (5, 0));
    assert_eq!(owner(yard.tree.symlink_metadata("link").unwrap()), (0, 6));
    assert_eq!(yard.tree.xattr("file", "trusted.test").unwrap(), None);
    assert_eq!(yard.tree.xattr("link", "trusted.test").unwrap().unwrap(), b"link");
}

#[test]
fn removing_all_keeps_what_links_lead_to() {
    let yard = Yard::new();
    yard.tree.create_dir_all("a/b/c", 0o755).unwrap();
    yard.tree.create_dir_all("kept", 0o755).unwrap();
    yard.tree.write("a/b/c/file", "").unwrap();
    yard.tree.symlink("/kept", "a/b/link").unwrap();
    symlink(yard.host("outside"), yard.host("tree/a/out")).unwrap();
    yard.tree.remove_dir_all("a").unwrap();
    yard.tree.remove_dir_all("a").unwrap();
    yard.tree.remove_dir_all("missing/deeper").unwrap();
    assert!(yard.tree.remove_dir_all("/").is_err());
    assert_eq!(yard.tree.read_dir(".").unwrap(), ["kept"]);
    yard.canary_sings();
}

#[test]
fn walking_visits_directories_first_and_follows_nothing() {
    let yard = Yard::new();
    yard.tree.create_dir_all("a/b", 0o755).unwrap();
    yard.tree.write("a/b/file", "").unwrap();
    yard.tree.symlink("/a", "a/link").unwrap();
    let mut seen = Vec::new();
    yard.tree
        .walk("/a", |path, metadata| {
            seen.push((path.display().to_string(), metadata.is_symlink()));
            Ok(())
        })
        .unwrap();
    let expected = [("/a", false), ("/a/b", false), ("/a/b/file", false), ("/a/link", true)];
    assert_eq!(seen, expected.map(|(path, link)| (path.to_owned(), link)));
}

#[test]
fn a_tool_gets_a_path_without_links() {
    let yard = Yard::new();
    let root = fs::canonicalize(yard.host("tree")).unwrap();
    yard.tree.create_dir("usr", 0o755).unwrap();
    yard.tree.write("usr/file", "").unwrap();
    yard.tree.symlink("/usr", "link").unwrap();
    assert_eq!(yard.tree.path_for_tools("link/file").unwrap(), root.join("usr/file"));
    assert_eq!(yard.tree.path_for_tools("/link/new").unwrap(), root.join("usr/new"));
    assert_eq!(yard.tree.path_for_tools("/").unwrap(), root);
    assert!(yard.tree.path_for_tools("missing/new").is_err());
}

#[test]
fn a_subtree_is_its_own_root() {
    let yard = Yard::new();
    yard.tree.create_dir("inner", 0o755).unwrap();
    yard.tree.write("secret", "x").unwrap();
    yard.tree.symlink("/secret", "inner/link").unwrap();
    let inner = yard.tree.subtree("inner").unwrap();
    assert!(inner.read("link").is_err());
    assert!(inner.read("../secret").is_err());
    assert_eq!(inner.try_clone().unwrap().read_dir("").unwrap(), ["link"]);
}

#[test]
fn errors_name_the_act_and_the_path_inside_the_tree() {
    let yard = Yard::new();
    let error = yard.tree.read("etc/hostname").unwrap_err();
    assert_eq!(error.to_string(), "cannot read /etc/hostname: No such file or directory (os error 2)");
    yard.tree.write("binary", [0xff]).unwrap();
    let error = yard.tree.read_to_string("binary").unwrap_err();
    assert_eq!(error.to_string(), "cannot read /binary: it is not UTF-8");
}

#[test]
fn pipes_do_not_block() {
    let yard = Yard::new();
    rustix::fs::mkfifoat(&yard.tree, "pipe", Mode::from_raw_mode(0o644)).unwrap();
    assert!(yard.tree.write("pipe", "x").is_err());
    assert!(yard.tree.read("pipe").unwrap_err().to_string().ends_with("/pipe: it is no regular file"));
    let opened = yard.tree.open_file("pipe", OFlags::RDONLY, 0);
    assert!(opened.unwrap_err().to_string().ends_with("/pipe: it is a fifo, no file"));
    assert!(yard.tree.open_file("pipe", OFlags::PATH, 0).is_ok());
}

/// Whether the test may run; it must where the tests are to be complete.
pub(super) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "this test needs root");
    root
}

#[test]
fn a_directory_moves_to_another_file_system_whole() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in(osbc_fixtures::scratch()).unwrap());
    let tree = Tree::open("/").unwrap();
    let (from, to) = (here.path().join("a"), there.path().join("b"));
    fs::create_dir_all(from.join("in")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("in/file"), "x").unwrap();
    fs::set_permissions(from.join("in"), fs::Permissions::from_mode(0o2710)).unwrap();
    tree.rename(&from, &to).unwrap();
    assert!(!from.exists());
    assert_eq!(fs::read_to_string(to.join("in/file")).unwrap(), "x");
    assert_eq!(fs::metadata(to.join("in")).unwrap().permissions().mode() & 0o7777, 0o2710);
    fs::create_dir(&from).unwrap();
    assert!(tree.rename(&from, &to).is_err(), "something is in there");
    assert!(from.exists() && to.join("in/file").exists());
}
