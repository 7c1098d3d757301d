//! What the digest of a directory as it was written covers, and what it does not.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::UNIX_EPOCH;

use rustix::fs::{CWD, FileType, Mode};

use super::*;

/// More than one thread hashes by itself.
const LARGE: u64 = 16 << 20;
const BLOCK: usize = 256 << 10;

fn content(root: &Path) -> io::Result<Written> {
    written(root, false, Naming::Bounded)
}

/// A small tree with an entry of each kind that needs no root.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("directory/inner")).expect("makes");
    fs::write(root.join("directory/file"), "text").expect("writes");
    fs::write(root.join("directory/inner/other"), "more").expect("writes");
    fs::write(root.join("empty"), "").expect("writes");
    symlink("directory/file", root.join("link")).expect("links");
    fs::hard_link(root.join("directory/file"), root.join("hard")).expect("links");
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("makes");
}

fn layer(root: &Path) -> TreeDigest {
    written(root, true, Naming::Bounded).expect("reads").digest
}

fn digest(root: &Path) -> TreeDigest {
    content(root).expect("reads").digest
}

#[test]
fn equal_trees_are_equal_whenever_and_in_whatever_order_they_were_made() {
    let (one, other) = (crate::testing::directory(), crate::testing::directory());
    tree(one.path());
    fs::write(other.path().join("empty"), "").expect("writes");
    fs::remove_file(other.path().join("empty")).expect("removes");
    tree(other.path());
    File::open(other.path().join("directory")).expect("opens").set_modified(UNIX_EPOCH).expect("sets");
    assert_eq!(digest(one.path()), digest(other.path()));
}

#[test]
fn every_change_counts() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 11] = [
        ("a byte", |root| fs::write(root.join("directory/file"), "texT").expect("writes")),
        ("a file cut off", |root| fs::write(root.join("directory/inner/other"), "mor").expect("writes")),
        ("a mode", |root| fs::set_permissions(root.join("empty"), Permissions::from_mode(0o600)).expect("sets")),
        ("the root's mode", |root| fs::set_permissions(root, Permissions::from_mode(0o711)).expect("sets")),
        ("a name", |root| fs::rename(root.join("empty"), root.join("emptY")).expect("renames")),
        ("a file more", |root| fs::write(root.join("directory/new"), "").expect("writes")),
        ("a file less", |root| fs::remove_file(root.join("pipe")).expect("removes")),
        ("an empty directory more", |root| fs::create_dir(root.join("directory/new")).expect("makes")),
        ("a link's target", |root| {
            fs::remove_file(root.join("link")).expect("removes");
            symlink("directory/fil", root.join("link")).expect("links");
        }),
        ("two files in place of one with two names", |root| {
            fs::remove_file(root.join("hard")).expect("removes");
            fs::write(root.join("hard"), "text").expect("writes");
        }),
        ("an extended attribute", |root| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("empty"), "user.test", b"value", flags).expect("sets");
        }),
    ];
    for (name, change) in changes {
        let directory = crate::testing::directory();
        tree(directory.path());
        let before = digest(directory.path());
        change(directory.path());
        assert_ne!(digest(directory.path()), before, "{name}");
    }
}

#[test]
fn a_hole_is_as_good_as_zeros_and_takes_no_room() {
    let directory = crate::testing::directory();
    let make = |name: &str, zeros: bool| {
        let root = directory.path().join(name);
        fs::create_dir(&root).expect("makes");
        let file = File::create(root.join("disk")).expect("makes");
        // Over several spans, and not ending at a block.
        let size = 3 * LARGE + 777;
        file.set_len(size).expect("sets");
        if zeros {
            file.write_all_at(&vec![0; 2 * BLOCK + 5], LARGE - 100).expect("writes");
        }
        for place in [0, LARGE + BLOCK as u64 + 1, size - 1] {
            file.write_all_at(b"x", place).expect("writes");
        }
        content(&root).expect("reads")
    };
    let (sparse, full) = (make("sparse", false), make("full", true));
    assert_eq!(sparse.digest, full.digest);
    assert!(sparse.bytes < full.bytes && full.bytes < LARGE, "{sparse:?} {full:?}");
    let file = fs::OpenOptions::new().write(true).open(directory.path().join("sparse/disk")).expect("opens");
    file.write_all_at(b"y", 2 * LARGE).expect("writes");
    assert_ne!(digest(&directory.path().join("sparse")), full.digest);
}

#[test]
fn a_file_with_two_names_takes_its_room_once() {
    let directory = crate::testing::directory();
    fs::write(directory.path().join("one"), vec![1; 1 << 20]).expect("writes");
    let before = content(directory.path()).expect("reads").bytes;
    fs::hard_link(directory.path().join("one"), directory.path().join("two")).expect("links");
    assert_eq!(content(directory.path()).expect("reads").bytes, before);
}

#[test]
fn a_large_tree_is_read_by_many_threads_and_the_same_each_time() {
    let directory = crate::testing::directory();
    for number in 0..600 {
        let place = directory.path().join(format!("{}/{}", number % 7, number % 31));
        fs::create_dir_all(&place).expect("makes");
        fs::write(place.join(number.to_string()), number.to_string()).expect("writes");
    }
    let first = digest(directory.path());
    for _ in 0..3 {
        assert_eq!(digest(directory.path()), first);
    }
}

#[test]
fn root_an_owner_and_what_overlayfs_means_by_its_notes_count() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = crate::testing::directory();
    tree(directory.path());
    let before = layer(directory.path());
    let note = |name: &str, value: &[u8]| {
        let path = directory.path().join("directory");
        rustix::fs::setxattr(&path, format!("trusted.overlay.{name}"), value, rustix::fs::XattrFlags::empty())
            .expect("sets");
    };
    note("origin", b"some handle");
    note("impure", b"y");
    assert_eq!(layer(directory.path()), before, "where a directory was copied from");
    note("opaque", b"y");
    let opaque = layer(directory.path());
    assert_ne!(opaque, before);
    std::os::unix::fs::lchown(directory.path().join("link"), Some(7), None).expect("owns");
    let owned = layer(directory.path());
    assert_ne!(owned, opaque);
    rustix::fs::mknodat(CWD, directory.path().join("gone"), FileType::CharacterDevice, Mode::empty(), 0)
        .expect("makes");
    assert_ne!(layer(directory.path()), owned, "a whiteout");
}
