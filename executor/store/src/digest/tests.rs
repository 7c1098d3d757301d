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
    Owner(PathBuf, u32),
    Truncate(PathBuf, u64),
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
        Change::Owner(path, id) => drop(std::os::unix::fs::lchown(at(path), Some(*id), None)),
        Change::Truncate(path, size) => {
            if let Ok(file) = File::options().write(true).open(at(path)) {
                file.set_len(*size).ok();
            }
        }
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
        1 => (path(), 0..3u32).prop_map(|(path, id)| Change::Owner(path, id)),
        1 => (path(), 0..3u64).prop_map(|(path, size)| Change::Truncate(path, size)),
        1 => (path(), any::<u8>()).prop_map(|(path, byte)| Change::Attribute(path, byte)),
        4 => path().prop_map(Change::Directory),
        2 => path().prop_map(Change::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Change::Link(from, to)),
        1 => path().prop_map(Change::Symlink),
    ]
}

/// What `layers` make of an empty tree, each an overlayfs layer on those before.
struct Layered {
    place: TempDir,
    layers: Vec<PathBuf>,
    known: HashMap<Hash, Arc<Listing>>,
    top: TreeRecord,
}

impl Layered {
    fn new(layers: &[Vec<Change>]) -> Self {
        let place = tree();
        let bottom = place.path().join("0");
        fs::create_dir(&bottom).expect("makes");
        for change in &layers[0] {
            apply(&bottom, change);
        }
        let mut top = whole(&bottom);
        let known = top.take_listings();
        let mut all = Self { place, layers: vec![bottom], known, top };
        for changes in &layers[1..] {
            all.add(changes);
        }
        all
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.place.path().join(name);
        fs::create_dir(&path).expect("makes");
        path
    }

    fn add(&mut self, changes: &[Change]) {
        let number = self.layers.len();
        let (dir, work) = (self.directory(&number.to_string()), self.directory(&format!("{number}-work")));
        let upper = Upper { dir: dir.clone(), work, metacopy: true };
        let mounted = overlay::open(&TreeStack { lower: self.layers.clone(), upper: Some(upper) }).expect("mounts");
        let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        for change in changes {
            apply(&root, change);
        }
        drop(mounted);
        let find = |hash: &Hash| self.known.get(hash).cloned();
        self.top = record(&dir, BEFORE, Kind::Layer(&self.top, &find)).expect("reads");
        self.known.extend(self.top.take_listings());
        self.layers.push(dir);
    }

    /// The digest of all, and that of the same tree in one directory.
    fn digests(&self) -> (TreeDigest, TreeDigest) {
        let merged = overlay::open(&TreeStack { lower: self.layers.clone(), upper: None }).expect("mounts");
        let copy = self.directory("copy");
        copy_tree(merged.as_fd(), File::open(&copy).expect("opens").as_fd(), Ownership::Keep).expect("copies");
        (self.top.digest(), whole(&copy).digest())
    }
}

#[test]
fn root_a_file_whose_data_lies_below_counts_as_if_it_were_there() {
    if !has_root() {
        return;
    }
    let path = PathBuf::from;
    let mode = |name, mode| Change::Mode(path(name), mode);
    let rename = |from, to| Change::Rename(path(from), path(to));
    let base = || {
        let files = [Change::Write(path("d/f"), 1), Change::Write(path("g"), 2), Change::Link(path("g"), path("d/g"))];
        [Change::Directory(path("d"))].into_iter().chain(files).collect::<Vec<_>>()
    };
    // The layers, and whether the last one has the file without its data.
    let cases = [
        ("mode", vec![vec![mode("d/f", 0o600)]], true),
        ("owner", vec![vec![Change::Owner(path("d/f"), 7)]], true),
        ("attribute", vec![vec![Change::Attribute(path("d/f"), 3)]], true),
        ("time", vec![vec![Change::Touch(path("d/f"), 5)]], true),
        ("another name", vec![vec![Change::Link(path("d/f"), path("h"))]], true),
        ("a new name", vec![vec![rename("d/f", "d/h")]], true),
        ("a new place", vec![vec![rename("d/f", "h")]], true),
        ("one name of two", vec![vec![mode("g", 0o600)]], true),
        ("one name of two, and another place for it", vec![vec![mode("g", 0o600), rename("d/g", "h")]], true),
        ("the directory renamed", vec![vec![rename("d", "e"), mode("e/f", 0o600)]], true),
        ("the directory renamed below", vec![vec![rename("d", "e")], vec![mode("e/f", 0o600)]], true),
        ("out of a renamed directory", vec![vec![rename("d", "e")], vec![rename("e/f", "h")]], true),
        ("out of a directory renamed at once", vec![vec![rename("d", "e"), rename("e/f", "h")]], true),
        ("renamed, then the mode", vec![vec![rename("d/f", "h")], vec![mode("h", 0o600)]], true),
        (
            "renamed three times",
            vec![vec![rename("d/f", "h")], vec![rename("h", "d/i")], vec![rename("d", "e")], vec![mode("e/i", 0o600)]],
            true,
        ),
        ("three layers", vec![vec![mode("d/f", 0o600)], vec![Change::Owner(path("d/f"), 7)]], true),
        ("written after", vec![vec![mode("d/f", 0o600), Change::Write(path("d/f"), 9)]], false),
        ("written in the next layer", vec![vec![rename("d/f", "h")], vec![Change::Write(path("h"), 9)]], false),
        ("cut off after", vec![vec![mode("d/f", 0o600)], vec![Change::Truncate(path("d/f"), 0)]], false),
        ("longer after", vec![vec![mode("d/f", 0o600), Change::Truncate(path("d/f"), 9)]], false),
        ("written, then the mode", vec![vec![Change::Write(path("d/f"), 9)], vec![mode("d/f", 0o600)]], true),
    ];
    for (name, layers, has_placeholders) in cases {
        let layers: Vec<_> = [base()].into_iter().chain(layers).collect();
        let layered = Layered::new(&layers);
        let top = layered.layers.last().expect("there is one");
        let found = written(top, true, Naming::Bounded).expect("reads");
        assert_eq!(found.has_placeholders, has_placeholders, "{name}");
        let (layered, whole) = layered.digests();
        assert_eq!(layered, whole, "{name}");
    }
}

#[test]
fn root_the_data_below_a_placeholder_is_not_read_and_must_be_in_a_record() {
    if !has_root() {
        return;
    }
    let file = PathBuf::from("file");
    let layered = Layered::new(&[vec![Change::Write(file.clone(), 1)], vec![Change::Mode(file.clone(), 0o600)]]);
    let [bottom, top] = layered.layers.as_slice() else { panic!("two layers") };
    fs::remove_dir_all(bottom).expect("removes");
    let (one, find) = (whole(&layered.directory("empty")), |hash: &Hash| layered.known.get(hash).cloned());
    let mut below = layered.top.clone();
    assert_eq!(record(top, BEFORE, Kind::Layer(&below, &find)).expect("reads").digest(), layered.top.digest());
    below.root = one.root;
    let error = record(top, BEFORE, Kind::Layer(&below, &find)).expect_err("there is no data").to_string();
    assert!(error.contains("missing in the records below"), "{error}");
}

/// A record as it was written before entries had the content of files.
#[test]
fn a_record_of_an_older_format_is_none() {
    type OlderEntry = (Vec<u8>, Hash, Option<Hash>, Option<(i64, i64)>);
    #[derive(Serialize)]
    struct Older {
        format: u32,
        root: OlderEntry,
        links: Vec<Vec<Vec<u8>>>,
        listings: Vec<Vec<OlderEntry>>,
    }
    let entry = |name: &[u8]| (name.to_vec(), [1; 32], None, Some((7, 8)));
    let older =
        Older { format: 1, root: entry(b""), links: Vec::new(), listings: vec![vec![entry(b"a"), entry(b"b")]] };
    let mut bytes = postcard::to_stdvec(&older).expect("encodes");
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    assert_eq!(TreeRecord::decode(&bytes), None);
}

/// Directories in each other, as a layer and as a whole: the paths of ten thousand would take some hundred megabytes.
#[test]
fn a_tree_of_any_depth_is_read_in_steps() {
    const LEVELS: usize = 10_000;
    let place = tree();
    let mut open: std::os::fd::OwnedFd = File::open(place.path()).expect("opens").into();
    for _ in 0..LEVELS {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&open, "directory", Mode::RWXU).expect("makes");
        open = openat(&open, "directory", OFlags::DIRECTORY, Mode::empty()).expect("opens");
    }
    let scanned = scan::scan(place.path(), false).expect("reads");
    assert_eq!(scanned.directories().len(), LEVELS + 1);
    let deepest = scanned.directories().last().expect("there are some");
    assert_eq!((deepest.depth, deepest.parent), (LEVELS, LEVELS - 1));
    let (bounded, paths) = (Naming::Bounded, Naming::Paths);
    let digest = |naming| written(place.path(), false, naming).expect("reads").digest;
    assert_ne!(digest(bounded), digest(paths));
    let before = (digest(bounded), stamp(place.path()).expect("looks"), whole(place.path()).digest());
    rustix::fs::mkdirat(&open, "one more", rustix::fs::Mode::RWXU).expect("makes");
    assert_ne!(digest(bounded), before.0);
    assert_ne!(stamp(place.path()).expect("looks"), before.1);
    assert_ne!(whole(place.path()).digest(), before.2);
    // What the standard library's way of removing it would not do.
    crate::fs::delete::remove_tree(&place.path().join("directory")).expect("removes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn root_layers_make_no_difference(layers in prop::collection::vec(prop::collection::vec(change(), 1..9), 2..4)) {
        if has_root() {
            let (layered, whole) = Layered::new(&layers).digests();
            prop_assert_eq!(layered, whole);
        }
    }
}
