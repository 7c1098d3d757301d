//! Digests: what they distinguish and what not, and that layers make no difference.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use osbc_fixtures::has_root;
use proptest::prelude::*;
use rustix::fs::{Timespec, XattrFlags};
use tempfile::TempDir;

use super::*;
use crate::fs::copy::{Ownership, copy_tree};
use crate::fs::overlay;
use crate::tree_stack::{TreeStack, Upper};

/// Before everything that a test writes.
const BEFORE: Timespec = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };

fn whole(root: &Path) -> TreeRecord {
    record(root, BEFORE, Kind::Whole(None)).expect("the tree can be read")
}

fn tree() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The digest of a tree that `change` made.
fn digest_of(change: impl Fn(&Path)) -> TreeDigest {
    let root = tree();
    change(root.path());
    whole(root.path()).digest()
}

fn write(path: PathBuf, content: &str) {
    fs::write(path, content).expect("writes");
}

fn set_time(path: &Path, seconds: u64) {
    let file = File::open(path).expect("opens");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    file.set_times(FileTimes::new().set_modified(time)).expect("sets");
}

#[test]
fn equal_trees_have_equal_digests_whenever_and_in_whatever_order_they_were_made() {
    let make = |names: [&str; 2]| {
        digest_of(|root| {
            fs::create_dir(root.join("directory")).expect("makes");
            for name in names {
                write(root.join("directory").join(name), name);
            }
            symlink("target", root.join("link")).expect("links");
        })
    };
    let first = make(["a", "b"]);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(first, make(["b", "a"]));
}

#[test]
fn every_attribute_counts() {
    type Change = fn(&Path);
    let changes: [Change; 10] = [
        |_| {},
        |root| write(root.join("file"), "other"),
        |root| write(root.join("new"), ""),
        |root| fs::remove_file(root.join("empty")).expect("removes"),
        |root| fs::rename(root.join("empty"), root.join("full")).expect("renames"),
        |root| fs::set_permissions(root.join("file"), Permissions::from_mode(0o600)).expect("sets"),
        |root| fs::set_permissions(root, Permissions::from_mode(0o750)).expect("sets"),
        |root| rustix::fs::setxattr(root.join("file"), "user.a", b"1", XattrFlags::empty()).expect("sets"),
        |root| set_time(&root.join("file"), 5),
        |root| {
            fs::remove_file(root.join("empty")).expect("removes");
            fs::create_dir(root.join("empty")).expect("makes");
        },
    ];
    let digests = changes.map(|change| {
        digest_of(|root| {
            write(root.join("file"), "text");
            write(root.join("empty"), "");
            change(root);
        })
    });
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "change {index} makes no difference");
    }
}

#[test]
fn a_time_before_the_run_counts_and_one_of_the_run_does_not() {
    let at = |seconds| {
        digest_of(|root| {
            write(root.join("file"), "");
            set_time(&root.join("file"), seconds);
        })
    };
    assert_ne!(at(1), at(2));
    assert_eq!(at(1_500_000_000), at(1_600_000_000));
}

#[test]
fn two_names_of_one_file_are_not_two_files() {
    let linked = digest_of(|root| {
        write(root.join("a"), "x");
        fs::hard_link(root.join("a"), root.join("b")).expect("links");
    });
    let copied = digest_of(|root| {
        write(root.join("a"), "x");
        write(root.join("b"), "x");
    });
    assert_ne!(linked, copied);
}

#[test]
fn a_hole_is_as_good_as_zeros_and_every_byte_of_a_large_file_counts() {
    const SIZE: u64 = 3 << 20;
    let file = |fill: bool, byte_at: Option<u64>| {
        digest_of(|root| {
            let file = File::create(root.join("image")).expect("makes");
            file.set_len(SIZE).expect("grows");
            if fill {
                file.write_all_at(&vec![0; SIZE as usize], 0).expect("writes");
            }
            if let Some(position) = byte_at {
                file.write_all_at(b"!", position).expect("writes");
            }
        })
    };
    assert_eq!(file(false, None), file(true, None));
    let places = [0, (256 << 10) - 1, 256 << 10, SIZE - 1];
    let digests = places.map(|place| file(false, Some(place)));
    for (index, digest) in digests.iter().enumerate() {
        assert_ne!(*digest, file(false, None));
        assert!(!digests[..index].contains(digest));
        assert_eq!(*digest, file(true, Some(places[index])));
    }
}

#[test]
fn a_record_survives_being_kept_and_a_damaged_one_is_none() {
    let root = tree();
    write(root.path().join("file"), "text");
    let record = whole(root.path());
    let bytes = record.encode().expect("encodes");
    assert_eq!(TreeRecord::decode(&bytes).as_ref(), Some(&record));
    assert_eq!(TreeRecord::decode(b""), None);
    assert_eq!(TreeRecord::decode(&bytes[..bytes.len() - 1]), None);
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 1;
        assert_eq!(TreeRecord::decode(&damaged), None, "byte {index}");
    }
}

/// Something that a stage does to a tree.
#[derive(Debug, Clone)]
enum Change {
    Write(PathBuf, u8),
    Touch(PathBuf, u64),
    Mode(PathBuf, u32),
    Attribute(PathBuf, u8),
    Directory(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf),
}

/// Does it, unless it cannot be done.
fn apply(root: &Path, change: &Change) {
    let at = |path: &Path| root.join(path);
    match change {
        Change::Write(path, byte) => drop(fs::write(at(path), [*byte])),
        Change::Touch(path, seconds) => {
            if let Ok(file) = File::open(at(path)) {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds);
                file.set_times(FileTimes::new().set_modified(time)).ok();
            }
        }
        Change::Mode(path, mode) => drop(fs::set_permissions(at(path), Permissions::from_mode(*mode))),
        Change::Attribute(path, byte) => {
            rustix::fs::lsetxattr(at(path), "user.test", &[*byte], XattrFlags::empty()).ok();
        }
        Change::Directory(path) => drop(fs::create_dir_all(at(path))),
        Change::Remove(path) => {
            if fs::remove_file(at(path)).is_err() {
                fs::remove_dir_all(at(path)).ok();
            }
        }
        Change::Rename(from, to) => drop(fs::rename(at(from), at(to))),
        Change::Link(from, to) => drop(fs::hard_link(at(from), at(to))),
        Change::Symlink(path) => drop(symlink("target", at(path))),
    }
}

fn change() -> impl Strategy<Value = Change> {
    let path = || {
        let name = || prop::sample::select(vec!["a", "b", "c"]);
        prop::collection::vec(name(), 1..4).prop_map(|names| names.into_iter().collect::<PathBuf>())
    };
    prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, byte)| Change::Write(path, byte)),
        1 => (path(), 1..9u64).prop_map(|(path, time)| Change::Touch(path, time)),
        1 => (path(), prop::sample::select(vec![0o700, 0o755])).prop_map(|(path, mode)| Change::Mode(path, mode)),
        1 => (path(), any::<u8>()).prop_map(|(path, byte)| Change::Attribute(path, byte)),
        4 => path().prop_map(Change::Directory),
        2 => path().prop_map(Change::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Change::Link(from, to)),
        1 => path().prop_map(Change::Symlink),
    ]
}

/// The digest of what `layers` make of an empty tree, each an overlayfs layer on those before, and that of the whole
/// in one directory.
fn layered_and_whole(layers: &[Vec<Change>]) -> (TreeDigest, TreeDigest) {
    let place = tree();
    let directory = |name: String| {
        let path = place.path().join(name);
        fs::create_dir(&path).expect("makes");
        path
    };
    let bottom = directory("0".to_owned());
    for change in &layers[0] {
        apply(&bottom, change);
    }
    let mut known: HashMap<Hash, Arc<Listing>> = HashMap::new();
    let mut below = whole(&bottom);
    known.extend(below.take_listings());
    let mut lower = vec![bottom];
    for (index, changes) in layers.iter().enumerate().skip(1) {
        let (dir, work) = (directory(index.to_string()), directory(format!("{index}-work")));
        let stack = TreeStack { lower: lower.clone(), upper: Some(Upper { dir: dir.clone(), work }) };
        let mounted = overlay::open(&stack).expect("mounts");
        let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        for change in changes {
            apply(&root, change);
        }
        drop(mounted);
        let find = |hash: &Hash| known.get(hash).cloned();
        below = record(&dir, BEFORE, Kind::Layer(&below, &find)).expect("reads");
        known.extend(below.take_listings());
        lower.push(dir);
    }
    let merged = overlay::open(&TreeStack { lower, upper: None }).expect("mounts");
    let copy = directory("copy".to_owned());
    let target = rustix::fs::open(&copy, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).expect("opens");
    copy_tree(merged.as_fd(), target.as_fd(), Ownership::Keep).expect("copies");
    (below.digest(), whole(&copy).digest())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn root_layers_make_no_difference(layers in prop::collection::vec(prop::collection::vec(change(), 1..9), 2..4)) {
        if has_root() {
            let (layered, whole) = layered_and_whole(&layers);
            prop_assert_eq!(layered, whole);
        }
    }
}
