//! What a copy keeps, and that it does what `cp -a` does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::super::Times;
use super::*;

/// Directories `from` and `to`, and `cp`, a second target for the tool to compare with.
struct Yard {
    directory: tempfile::TempDir,
    from: Tree,
    to: Tree,
    cp: Tree,
}

impl Yard {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            fs::create_dir(directory.path().join(name)).unwrap();
            Tree::open(directory.path().join(name)).unwrap()
        };
        Self { from: tree("from"), to: tree("to"), cp: tree("cp"), directory }
    }

    /// Does something to both targets.
    fn prepare(&self, prepare: impl Fn(&Tree)) {
        prepare(&self.to);
        prepare(&self.cp);
    }

    /// Copies by the tool too, and compares whether that worked, and all that is in the targets.
    #[track_caller]
    fn same_as_cp(&self, settings: Copy, source: &str, destination: &str) -> bool {
        let host = |tree: &str, path: &str| format!("{}/{tree}/{path}", self.directory.path().display());
        let mut cp = Command::new("cp");
        cp.args(["-a", "--reflink=auto"]).args(settings.remove_destination.then_some("--remove-destination"));
        let cp = cp.arg(host("from", source)).arg(host("cp", destination)).output().unwrap();
        let ours = settings.run(&self.from, source, &self.to, destination);
        assert_eq!(ours.is_ok(), cp.status.success(), "{ours:?} {}", String::from_utf8_lossy(&cp.stderr));
        if ours.is_ok() {
            let (ours, theirs) = (facts(&self.to, ""), facts(&self.cp, ""));
            for (path, facts) in &theirs {
                assert_eq!(ours.get(path), Some(facts), "{}", path.display());
            }
            assert_eq!(ours.len(), theirs.len());
        }
        ours.is_ok()
    }
}

/// All that a copy keeps but access times, which comparing changes, by path; for hard links the smallest path of the
/// same file.
fn facts(tree: &Tree, path: &str) -> BTreeMap<PathBuf, String> {
    let mut names = BTreeMap::new();
    let mut facts = BTreeMap::new();
    tree.walk(path, |path, metadata| {
        let first = names.entry(metadata.ino()).or_insert_with(|| path.to_owned()).clone();
        let content = match () {
            () if metadata.is_symlink() => tree.read_link(path)?.display().to_string(),
            () if metadata.is_file() => {
                let content = tree.read(path)?;
                format!("{} {} {:?}", content.len(), metadata.blocks() * 512 < metadata.len(), content.get(..64))
            }
            () => String::new(),
        };
        let mut attributes = Vec::new();
        for name in tree.xattr_names(path)? {
            attributes.push((name.clone(), tree.xattr(path, name)?));
        }
        let (mode, user, group, device) = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev());
        // What was written during the test was so at another moment for each.
        let modified = Some((metadata.mtime(), metadata.mtime_nsec())).filter(|(seconds, _)| *seconds < 1_000_000_000);
        let own = format!("{mode:o} {user} {group} {device} {modified:?} {first:?} {attributes:?}");
        facts.insert(path.to_owned(), format!("{own} {content}"));
        Ok(())
    })
    .unwrap();
    facts
}

/// A tree with one of everything.
fn fill(tree: &Tree) {
    let old = |seconds: i64| Times { accessed: (seconds, 123), modified: (seconds, 456_789_123) };
    tree.create_dir_all("d/inner/deep", 0o755).unwrap();
    tree.create_dir("d/empty", 0o755).unwrap();
    tree.write("d/file", "content").unwrap();
    tree.write("d/none", "").unwrap();
    tree.write("d/inner/suid", "x").unwrap();
    tree.chmod("d/inner/suid", 0o4751).unwrap();
    tree.chmod("d/inner", 0o2770).unwrap();
    tree.chmod("d/empty", 0o1777).unwrap();
    tree.hard_link("d/file", "d/inner/second-name").unwrap();
    tree.symlink("../nowhere", "d/inner/link").unwrap();
    tree.hard_link("d/inner/link", "d/inner/link-too").unwrap();
    tree.symlink("/d/file", "absolute").unwrap();
    let sparse = tree.open_file("d/inner/sparse", OFlags::WRONLY | OFlags::CREATE, 0o644).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 5 << 20).unwrap();
    let hollow = tree.open_file("d/inner/hollow", OFlags::WRONLY | OFlags::CREATE, 0o644).unwrap();
    hollow.set_len(1 << 20).unwrap();
    rustix::fs::mkfifoat(tree, "d/inner/pipe", Mode::from_raw_mode(0o620)).unwrap();
    for number in 0..100 {
        tree.write(format!("d/inner/deep/{number}"), format!("{number}")).unwrap();
    }
    tree.set_xattr("d/file", "user.note", b"kept").unwrap();
    tree.set_xattr("d/inner", "user.note", b"kept too").unwrap();
    for (number, path) in ["d/file", "d/inner/link", "d/inner/pipe", "d/inner/deep", "d/inner", "d"].iter().enumerate()
    {
        tree.set_times(path, old(1_000_000 * (number as i64 + 1))).unwrap();
    }
}

/// What only root can make.
fn fill_as_root(tree: &Tree) {
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(tree, "d/null", FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    rustix::fs::mknodat(tree, "d/socket", FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
    for (number, path) in ["d/file", "d/inner/link", "d/inner/suid", "d/null", "d/empty"].iter().enumerate() {
        tree.lchown(path, Some(100 + number as u32), Some(200 + number as u32)).unwrap();
    }
    tree.chmod("d/inner/suid", 0o6751).unwrap();
    // `cap_net_raw=ep`, as `ping` has it.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tree.set_xattr("d/inner/suid", "security.capability", &capability).unwrap();
    tree.set_xattr("d/inner/link", "trusted.note", b"of the link").unwrap();
}

#[test]
fn a_directory_is_copied_with_all_that_is_in_it() {
    let yard = Yard::new();
    fill(&yard.from);
    for destination in ["", "new"] {
        assert!(yard.same_as_cp(Copy::default(), "d", destination));
    }
    assert_eq!(yard.to.metadata("new").unwrap().mtime_nsec(), 456_789_123);
    let inode = |path: &str| yard.to.metadata(path).unwrap().ino();
    assert_eq!(inode("new/file"), inode("new/inner/second-name"));
    assert_eq!(yard.to.metadata("new/inner/hollow").unwrap().blocks(), 0);
}

#[test]
fn root_owners_devices_and_privileged_attributes_are_copied() {
    if !super::super::tests::root() {
        return;
    }
    let yard = Yard::new();
    fill(&yard.from);
    fill_as_root(&yard.from);
    assert!(yard.same_as_cp(Copy::default(), ".", "."));
    assert_eq!(yard.to.metadata("d/file").unwrap().uid(), 100);
    assert!(yard.to.xattr("d/inner/suid", "security.capability").unwrap().is_some());
    let plain = Copy { owners: false, ..Copy::default() };
    plain.run(&yard.from, "d", &yard.to, "plain").unwrap();
    assert_eq!(yard.to.metadata("plain/file").unwrap().uid(), 0);
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let yard = Yard::new();
    fill(&yard.from);
    Copy::default().run(&yard.from, "d", &yard.to, "").unwrap();
    for (number, path) in ["d/file", "d/inner/link", "d/inner/pipe", "d/inner/deep", "d/inner", "d"].iter().enumerate()
    {
        let metadata = yard.to.symlink_metadata(path).unwrap();
        let seconds = 1_000_000 * (number as i64 + 1);
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, 456_789_123), "{path}");
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, 123), "{path}");
    }
}

#[test]
fn contents_are_merged_with_what_is_there() {
    let yard = Yard::new();
    fill(&yard.from);
    yard.prepare(|to| {
        to.create_dir_all("e/inner", 0o700).unwrap();
        to.write("e/kept", "kept").unwrap();
        to.write("e/file", "this is longer than the new content").unwrap();
        to.chmod("e/file", 0o600).unwrap();
        to.set_times("e/kept", Times { accessed: (5, 5), modified: (5, 5) }).unwrap();
    });
    assert!(yard.same_as_cp(Copy::default(), "d/.", "e"));
    assert_eq!(yard.to.read_to_string("e/file").unwrap(), "content");
    assert!(yard.same_as_cp(Copy::default(), "d/.", "e"), "and once more over itself");
}

#[test]
fn single_files_go_into_directories_or_to_names() {
    let yard = Yard::new();
    fill(&yard.from);
    yard.prepare(|to| {
        to.create_dir("directory", 0o755).unwrap();
        to.symlink("directory", "link").unwrap();
        to.set_times("link", Times { accessed: (5, 5), modified: (5, 5) }).unwrap();
    });
    for (source, destination) in [
        ("d/file", "directory"),
        ("d/none", "link"),
        ("d/file", "name"),
        ("absolute", "directory"),
        ("d/inner/pipe", "pipe"),
        ("d/inner/link", "directory/other"),
        ("d/inner/sparse", "sparse"),
    ] {
        assert!(yard.same_as_cp(Copy::default(), source, destination), "{source} {destination}");
    }
}

#[test]
fn what_cp_refuses_is_refused() {
    let yard = Yard::new();
    fill(&yard.from);
    yard.prepare(|to| {
        to.write("file", "").unwrap();
        to.create_dir_all("directory/file", 0o755).unwrap();
        to.create_dir_all("a/d/inner/pipe", 0o755).unwrap();
        to.create_dir_all("b/d", 0o755).unwrap();
        to.symlink("/etc", "b/d/inner").unwrap();
        to.symlink("nowhere", "dangling").unwrap();
    });
    for (source, destination) in [
        ("missing", "x"),
        ("d", "file"),
        ("d/file", "directory"),
        ("d/file", "missing/name"),
        ("d/file", "missing/."),
        ("d/.", "missing/."),
        ("d", "a"),
        ("d", "b"),
        ("d/file", "dangling"),
    ] {
        assert!(!yard.same_as_cp(Copy::default(), source, destination), "{source} {destination}");
    }
}

#[test]
fn existing_files_are_written_to_or_removed() {
    for remove_destination in [false, true] {
        let yard = Yard::new();
        fill(&yard.from);
        yard.prepare(|to| {
            let old = Times { accessed: (5, 5), modified: (5, 5) };
            to.write("target", "old").unwrap();
            to.symlink("target", "link").unwrap();
            to.write("many", "old").unwrap();
            to.hard_link("many", "names").unwrap();
            to.write("plain", "old").unwrap();
            to.symlink("nowhere", "dangling").unwrap();
            for path in ["target", "link", "many", "plain", "dangling"] {
                to.set_times(path, old).unwrap();
            }
        });
        let settings = Copy { remove_destination, ..Copy::default() };
        for (source, destination) in [("d/file", "link"), ("d/file", "names"), ("absolute", "plain")] {
            assert!(yard.same_as_cp(settings, source, destination), "{source} {destination}");
        }
        assert_eq!(yard.same_as_cp(settings, "d/file", "dangling"), remove_destination);
        assert_eq!(yard.to.read_to_string("many").unwrap(), "old");
        let followed = if remove_destination { "old" } else { "content" };
        assert_eq!(yard.to.read_to_string("target").unwrap(), followed);
    }
}

#[test]
fn nothing_is_copied_onto_or_into_itself() {
    let yard = Yard::new();
    fill(&yard.from);
    let copy = |source: &str, destination: &str| {
        Copy::default().run(&yard.from, source, &yard.from, destination).unwrap_err().to_string()
    };
    yard.from.symlink("d/file", "to-file").unwrap();
    let same = "cannot copy /d/file: source and destination are the same file";
    assert_eq!(copy("d/file", "d/file"), same);
    assert_eq!(copy("d/file", "d"), same);
    assert_eq!(copy("d/file", "to-file"), same);
    assert!(copy("to-file", "d/file").ends_with("are the same file"));
    assert!(copy("d/file", "d/inner/second-name").ends_with("are the same file"));
    assert_eq!(copy("d", "d/inner"), "/d cannot be copied into itself");
    assert_eq!(copy(".", "d"), "/. cannot be copied into itself");
    assert_eq!(yard.from.read_to_string("d/file").unwrap(), "content");
    assert!(!yard.from.exists("d/inner/d").unwrap());
    let replace = Copy { remove_destination: true, ..Copy::default() };
    assert!(replace.run(&yard.from, "d/file", &yard.from, "d").is_err());
    replace.run(&yard.from, "d/file", &yard.from, "d/inner/second-name").unwrap();
    replace.run(&yard.from, "d/file", &yard.from, "to-file").unwrap();
    for path in ["d/inner/second-name", "to-file"] {
        assert_eq!(yard.from.read_to_string(path).unwrap(), "content");
        assert_eq!(yard.from.symlink_metadata(path).unwrap().nlink(), 1);
    }
}

#[test]
fn links_lead_neither_source_nor_destination_out() {
    let yard = Yard::new();
    fs::write(yard.directory.path().join("canary"), "sings").unwrap();
    let outside = yard.directory.path().join("canary");
    for (tree, target) in [(&yard.from, outside.clone()), (&yard.to, outside.clone())] {
        tree.symlink(target, "file-out").unwrap();
        tree.symlink("../..", "up").unwrap();
        tree.symlink(yard.directory.path(), "directory-out").unwrap();
    }
    yard.from.write("file", "silent").unwrap();
    let copy = |source: &str, destination: &str| Copy::default().run(&yard.from, source, &yard.to, destination);
    for source in ["directory-out/canary", "up/canary", "../canary", "file-out/."] {
        assert!(copy(source, "x").is_err(), "{source}");
    }
    for destination in ["file-out", "directory-out/canary", "directory-out/new"] {
        assert!(copy("file", destination).is_err(), "{destination}");
    }
    copy("file", "up/canary").unwrap();
    assert_eq!(yard.to.read_to_string("canary").unwrap(), "silent");
    assert_eq!(fs::read_to_string(outside).unwrap(), "sings");
    assert!(!yard.directory.path().join("new").exists());
}

#[test]
fn files_of_the_kernel_are_copied_though_they_have_no_size() {
    let yard = Yard::new();
    let kernel = Tree::open("/proc/self").unwrap();
    Copy::default().run(&kernel, "status", &yard.to, "status").unwrap();
    assert!(yard.to.read_to_string("status").unwrap().starts_with("Name:"));
}
