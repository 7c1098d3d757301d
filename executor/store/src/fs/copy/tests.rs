//! What a copy keeps.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{CWD, XattrFlags};
use tempfile::TempDir;

use super::*;

struct Case {
    directory: TempDir,
}

impl Case {
    fn new() -> Self {
        let directory = crate::testing::directory();
        fs::create_dir(directory.path().join("from")).expect("makes");
        fs::create_dir(directory.path().join("to")).expect("makes");
        Self { directory }
    }

    fn from(&self, name: &str) -> PathBuf {
        self.directory.path().join("from").join(name)
    }

    fn to(&self, name: &str) -> PathBuf {
        self.directory.path().join("to").join(name)
    }

    fn copy(&self, ownership: Ownership) -> Result<Copied, CopyError> {
        let open = |path: PathBuf| rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty()).expect("opens");
        copy_tree(open(self.from(".")).as_fd(), open(self.to(".")).as_fd(), ownership)
    }
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("sets");
}

/// All that `stat` says and a copy is to keep.
fn summary(path: &Path) -> (u32, u32, u32, u64, u64, (i64, i64)) {
    let metadata = path.symlink_metadata().expect("is there");
    let size = if metadata.is_dir() { 0 } else { metadata.size() };
    let times = (metadata.mtime(), metadata.mtime_nsec());
    (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev(), size, times)
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn content_modes_and_times_are_kept() {
    let case = Case::new();
    fs::create_dir_all(case.from("a/b/c")).expect("makes");
    fs::write(case.from("a/file"), "content").expect("writes");
    fs::write(case.from("a/b/empty"), "").expect("writes");
    fs::set_permissions(case.from("a/file"), fs::Permissions::from_mode(0o4751)).expect("sets");
    fs::set_permissions(case.from("a/b"), fs::Permissions::from_mode(0o1705)).expect("sets");
    symlink("/nowhere/at all", case.from("a/link")).expect("links");
    symlink("../a", case.from("a/b/directory-link")).expect("links");
    let paths = ["a/file", "a/b/empty", "a/link", "a/b/directory-link", "a/b/c", "a/b", "a", "."];
    for (second, path) in paths.iter().enumerate() {
        set_times(&case.from(path), 1_000_000 + second as i64, 123_456_789);
    }
    let copied = case.copy(Ownership::Keep).expect("copies");
    assert_eq!((copied.entries, copied.bytes, copied.lost), (8, 7, Vec::new()));
    for path in paths {
        assert_eq!(summary(&case.to(path)), summary(&case.from(path)), "{path}");
    }
    assert_eq!(fs::read(case.to("a/file")).expect("reads"), b"content");
    assert_eq!(fs::read_link(case.to("a/link")).expect("reads"), Path::new("/nowhere/at all"));
}

#[test]
fn a_hard_link_stays_one() {
    let case = Case::new();
    fs::create_dir(case.from("d")).expect("makes");
    fs::write(case.from("one"), "same").expect("writes");
    fs::hard_link(case.from("one"), case.from("two")).expect("links");
    fs::hard_link(case.from("one"), case.from("d/three")).expect("links");
    symlink("x", case.from("s")).expect("links");
    fs::hard_link(case.from("s"), case.from("d/s")).expect("links");
    set_times(&case.from("d"), 5, 0);
    case.copy(Ownership::Keep).expect("copies");
    let inode = |name: &str| case.to(name).symlink_metadata().expect("is there").ino();
    assert_eq!(inode("one"), inode("two"));
    assert_eq!(inode("one"), inode("d/three"));
    assert_eq!(inode("s"), inode("d/s"));
    assert_eq!(case.to("one").metadata().expect("is there").nlink(), 3);
    assert_eq!(case.to("d").metadata().expect("is there").mtime(), 5, "linking into it does not count");
}

#[test]
fn holes_stay_holes() {
    let case = Case::new();
    let file = File::create(case.from("sparse")).expect("makes");
    file.write_all_at(b"begin", 0).expect("writes");
    file.write_all_at(b"middle", 50 << 20).expect("writes");
    file.set_len(100 << 20).expect("sets");
    File::create(case.from("nothing")).expect("makes").set_len(10 << 20).expect("sets");
    drop(file);
    case.copy(Ownership::Keep).expect("copies");
    for (name, size) in [("sparse", 100 << 20), ("nothing", 10 << 20)] {
        let metadata = case.to(name).metadata().expect("is there");
        assert_eq!(metadata.size(), size);
        assert!(metadata.blocks() * 512 < 1 << 20, "{name} takes {} blocks", metadata.blocks());
    }
    let mut middle = [0; 8];
    File::open(case.to("sparse")).expect("opens").read_exact_at(&mut middle, (50 << 20) - 1).expect("reads");
    assert_eq!(&middle, b"\0middle\0");
}

#[test]
fn pipes_sockets_and_user_attributes_are_kept() {
    let case = Case::new();
    rustix::fs::mknodat(CWD, case.from("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("makes");
    rustix::fs::mknodat(CWD, case.from("socket"), FileType::Socket, Mode::from_raw_mode(0o600), 0).expect("makes");
    fs::write(case.from("file"), "x").expect("writes");
    let long = vec![b'v'; 1500];
    rustix::fs::lsetxattr(case.from("file"), "user.long", &long, XattrFlags::empty()).expect("sets");
    rustix::fs::lsetxattr(case.from("."), "user.root", b"r", XattrFlags::empty()).expect("sets");
    case.copy(Ownership::Keep).expect("copies");
    for name in ["pipe", "socket"] {
        assert_eq!(summary(&case.to(name)), summary(&case.from(name)));
    }
    let mut value = vec![0; 2000];
    let length = rustix::fs::lgetxattr(case.to("file"), "user.long", &mut value).expect("is there");
    assert_eq!(value[..length], long);
    assert_eq!(attribute(&case.to("."), "user.root").as_deref(), Some(b"r".as_slice()));
}

#[test]
fn the_first_failure_names_its_place() {
    let case = Case::new();
    fs::create_dir(case.from("d")).expect("makes");
    fs::write(case.from("d/taken"), "x").expect("writes");
    fs::create_dir_all(case.to("d")).expect("makes");
    let error = case.copy(Ownership::Keep).expect_err("the destination is not empty");
    assert_eq!(error.path, Path::new("d"));
}

#[test]
fn a_tree_may_be_deeper_than_a_path_is_long() {
    let case = Case::new();
    let name = "n".repeat(200);
    let mut directory = rustix::fs::openat(CWD, case.from("."), DIRECTORY, Mode::empty()).expect("opens");
    for _ in 0..50 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).expect("makes");
        directory = rustix::fs::openat(&directory, &name, DIRECTORY, Mode::empty()).expect("opens");
    }
    rustix::fs::openat(&directory, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("makes");
    rustix::fs::linkat(&directory, "file", &directory, "same", AtFlags::empty()).expect("links");
    let copied = case.copy(Ownership::Keep).expect("copies");
    assert_eq!(copied.entries, 53);
    let place = case.to(".");
    crate::fs::delete::remove_tree(&place.join(&name)).expect("deletes it too");
    crate::fs::delete::remove_tree(&case.from(".").join(&name)).expect("and the original");
    assert_eq!(fs::read_dir(place).expect("reads").count(), 0);
}

/// More levels than are finished by their paths.
#[test]
fn directories_in_the_deep_keep_their_attributes() {
    let case = Case::new();
    let mut directory = rustix::fs::openat(CWD, case.from("."), DIRECTORY, Mode::empty()).expect("opens");
    for level in 0..1000_u32 {
        for name in ["beside", "d"] {
            rustix::fs::mkdirat(&directory, name, Mode::from(0o700 + level % 8)).expect("makes");
        }
        let time = rustix::fs::Timespec { tv_sec: level.into(), tv_nsec: 0 };
        rustix::fs::futimens(&directory, &rustix::fs::Timestamps { last_access: time, last_modification: time })
            .expect("sets");
        directory = rustix::fs::openat(&directory, "d", DIRECTORY, Mode::empty()).expect("opens");
    }
    assert_eq!(case.copy(Ownership::Keep).expect("copies").entries, 2001);
    let digest = |root: PathBuf| {
        // Every time counts.
        let created = rustix::fs::Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        crate::digest::record(&root, created, crate::digest::Kind::Whole(None)).expect("reads").digest()
    };
    assert_eq!(digest(case.from(".")), digest(case.to(".")));
    for root in [case.from("."), case.to(".")] {
        crate::fs::delete::remove_tree(&root.join("d")).expect("deletes");
    }
}

#[test]
fn root_owners_devices_and_privileged_attributes_are_kept() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let case = Case::new();
    fs::write(case.from("tool"), "x").expect("writes");
    std::os::unix::fs::chown(case.from("tool"), Some(12), Some(34)).expect("owns");
    fs::set_permissions(case.from("tool"), fs::Permissions::from_mode(0o6755)).expect("sets");
    // cap_net_raw+ep, as the kernel stores it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::lsetxattr(case.from("tool"), "security.capability", &capability, XattrFlags::empty()).expect("sets");
    rustix::fs::lsetxattr(case.from("tool"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("sets");
    fs::create_dir(case.from("acl")).expect("makes");
    let acl = acl(&[(1, 7, u32::MAX), (2, 5, 1234), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]);
    rustix::fs::lsetxattr(case.from("acl"), "system.posix_acl_default", &acl, XattrFlags::empty()).expect("sets");
    fs::write(case.from("before"), "made before the default").expect("writes");
    fs::rename(case.from("before"), case.from("acl/before")).expect("moves");
    rustix::fs::mknodat(
        CWD,
        case.from("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .expect("makes");
    std::os::unix::fs::lchown(case.from("null"), Some(5), Some(6)).expect("owns");
    symlink("tool", case.from("link")).expect("links");
    std::os::unix::fs::lchown(case.from("link"), Some(7), Some(8)).expect("owns");
    rustix::fs::lsetxattr(case.from("link"), "trusted.label", b"l", XattrFlags::empty()).expect("sets");

    let copied = case.copy(Ownership::Keep).expect("copies");
    assert_eq!(copied.lost, []);
    for name in ["tool", "null", "link", "acl", "acl/before", "."] {
        assert_eq!(summary(&case.to(name)), summary(&case.from(name)), "{name}");
    }
    assert_eq!(attribute(&case.to("tool"), "security.capability").as_deref(), Some(capability.as_slice()));
    assert_eq!(
        attribute(&case.to("tool"), "trusted.overlay.opaque").as_deref(),
        Some(b"y".as_slice()),
        "a container's storage in a tree has such, and they are its content"
    );
    assert_eq!(attribute(&case.to("link"), "trusted.label").as_deref(), Some(b"l".as_slice()));
    assert_eq!(attribute(&case.to("acl"), "system.posix_acl_default"), Some(acl));
    assert_eq!(attribute(&case.to("acl/before"), "system.posix_acl_access"), None, "it inherits nothing");
}

/// An ACL as the kernel takes it: tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn root_without_ownership_nobody_gains_rights() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let case = Case::new();
    for (name, owner) in [("theirs", 1000), ("ours", 0)] {
        fs::write(case.from(name), "x").expect("writes");
        std::os::unix::fs::chown(case.from(name), Some(owner), Some(owner)).expect("owns");
        fs::set_permissions(case.from(name), fs::Permissions::from_mode(0o6755)).expect("sets");
    }
    case.copy(Ownership::Drop).expect("copies");
    let reported = |name: &str| {
        let metadata = case.to(name).metadata().expect("is there");
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(reported("theirs"), (0o755, 0, 0));
    assert_eq!(reported("ours"), (0o6755, 0, 0));
}

#[test]
fn a_wide_tree_is_whole() {
    let case = Case::new();
    for directory in 0..40 {
        fs::create_dir_all(case.from(&format!("{directory}/sub"))).expect("makes");
        for file in 0..40 {
            let content = format!("{directory}/{file}").repeat(1 + file * 500);
            fs::write(case.from(&format!("{directory}/sub/{file}")), content).expect("writes");
        }
    }
    let copied = case.copy(Ownership::Keep).expect("copies");
    assert_eq!(copied.entries, 1 + 40 * 42);
    for directory in 0..40 {
        for file in 0..40 {
            let name = format!("{directory}/sub/{file}");
            let (from, to) = (fs::read(case.from(&name)), fs::read(case.to(&name)));
            assert_eq!(from.expect("reads"), to.expect("reads"), "{name}");
        }
    }
}

#[test]
fn names_need_not_be_text() {
    let case = Case::new();
    let name = CString::new(b"\xff\xfe name\n".as_slice()).expect("no NUL");
    let path = case.from(".").join(OsStr::from_bytes(name.as_bytes()));
    fs::write(&path, "x").expect("writes");
    case.copy(Ownership::Keep).expect("copies");
    assert_eq!(fs::read(case.to(".").join(OsStr::from_bytes(name.as_bytes()))).expect("reads"), b"x");
}
