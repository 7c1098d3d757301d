//! What is written here is compared byte by byte with what GNU tar writes when it is to sort and to leave out the times
//! that change with every look.
//!
//! Only the order of extended attributes is ours: sorted instead of the file system's.

use std::os::unix::fs::symlink;
use std::process::Command;

use osbc_fixtures::{has_root, has_tool};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

use super::*;

/// `user::rwx,user:1:r--,user:4242:--x,group::r-x,mask::rwx,other::r-x` as the kernel has it.
const LIST: [u8; 52] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0x92, 0x10, 0, 0, 4, 0, 5, 0, 255,
    255, 255, 255, 0x10, 0, 7, 0, 255, 255, 255, 255, 0x20, 0, 5, 0, 255, 255, 255, 255,
];

/// Files, directories and links, with names that fit every format.
fn simple() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("plain"), "content\n").unwrap();
    fs::write(root.join("sub/nothing"), "").unwrap();
    fs::write(root.join("-C"), "a name like an option").unwrap();
    fs::write(root.join("large"), vec![7; 15_000]).unwrap();
    fs::hard_link(root.join("plain"), root.join("sub/plain-too")).unwrap();
    symlink("../plain", root.join("sub/link")).unwrap();
    rustix::fs::chmod(root.join("plain"), Mode::from_raw_mode(0o4755)).unwrap();
    date(root, 1_577_934_245, 0);
    tree
}

/// More: a pipe, and names that the oldest formats cannot say.
fn rich() -> TempDir {
    let tree = simple();
    let root = tree.path();
    let deep = root.join("d".repeat(90)).join("e".repeat(80));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    fs::write(root.join("ünïcode"), "x").unwrap();
    fs::write(root.join("n".repeat(150)), "a name without a slash to split at").unwrap();
    symlink("t".repeat(130), root.join("long-link")).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    date(root, 1_577_934_245, 0);
    tree
}

/// Sets the times of all that is in a directory, and its own.
fn date(path: &Path, seconds: i64, nanoseconds: i64) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for name in top_level(path).unwrap() {
            date(&path.join(name), seconds, nanoseconds);
        }
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn ours(root: &Path, members: &[&str], settings: &Settings) -> Vec<u8> {
    let members: Vec<OsString> = members.iter().map(OsString::from).collect();
    write(root, &members, settings, Vec::new()).unwrap()
}

fn theirs(root: &Path, members: &[&str], arguments: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("--sort=name").args(arguments);
    if arguments.contains(&"--format=posix") {
        tar.arg("--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f");
    }
    tar.arg("-cf").arg("-").arg("-C").arg(root);
    tar.args(members.iter().map(|member| format!("--add-file={member}")));
    let output = tar.output().unwrap();
    assert!(output.status.success(), "tar fails: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8]) {
    if let Some(place) = ours.iter().zip(theirs).position(|(a, b)| a != b) {
        let block = place / 512 * 512;
        let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[block..block + 512]).replace('\0', " ");
        panic!("block {}, byte {}:\n{}\n{}", block / 512, place % 512, shown(ours), shown(theirs));
    }
    assert_eq!(ours.len(), theirs.len());
}

fn host_names() -> Names {
    Names::read(Path::new("/etc")).unwrap()
}

#[test]
fn every_format_is_gnu_tars_byte_by_byte() {
    if !has_tool("tar") {
        return;
    }
    let rich = rich();
    let simple = simple();
    for (format, name, tree) in [
        (Format::Gnu, "--format=gnu", &rich),
        (Format::OldGnu, "--format=oldgnu", &rich),
        (Format::Posix, "--format=posix", &rich),
        (Format::Ustar, "--format=ustar", &simple),
        (Format::V7, "--format=v7", &simple),
    ] {
        let named = Settings { format, names: host_names(), ..Settings::default() };
        assert_same(&ours(tree.path(), &["."], &named), &theirs(tree.path(), &["."], &[name]));
        let numeric = Settings { format, ..Settings::default() };
        assert_same(&ours(tree.path(), &["."], &numeric), &theirs(tree.path(), &["."], &[name, "--numeric-owner"]));
    }
}

#[test]
fn times_outside_of_the_header_are_said_as_gnu_tar_says_them() {
    if !has_tool("tar") {
        return;
    }
    let tree = rich();
    for (seconds, nanoseconds) in
        [(1_577_934_245, 250_000_000), (-315_608_155, 0), (-315_608_155, 5), (10_413_792_000, 0)]
    {
        date(tree.path(), seconds, nanoseconds);
        for (format, name) in [(Format::Gnu, "--format=gnu"), (Format::Posix, "--format=posix")] {
            let settings = Settings { format, ..Settings::default() };
            assert_same(
                &ours(tree.path(), &["."], &settings),
                &theirs(tree.path(), &["."], &[name, "--numeric-owner"]),
            );
        }
    }
}

#[test]
fn what_a_format_cannot_say_is_an_error() {
    let tree = rich();
    for format in [Format::Ustar, Format::V7] {
        let settings = Settings { format, ..Settings::default() };
        let error = write(tree.path(), &[".".into()], &settings, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is longer than the format allows"), "{error}");
        let sparse = Settings { sparse: true, ..settings };
        let error = write(tree.path(), &["plain".into()], &sparse, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("cannot leave out holes"), "{error}");
    }
}

#[test]
fn members_come_in_the_order_given_and_a_second_time_as_hard_links() {
    if !has_tool("tar") {
        return;
    }
    let tree = simple();
    let members = ["sub/", "plain", "plain", "./sub", "large", "-C"];
    let theirs = theirs(tree.path(), &members, &["--format=gnu", "--numeric-owner"]);
    assert_same(&ours(tree.path(), &members, &Settings::default()), &theirs);
}

#[test]
fn names_are_transformed_as_gnu_tar_does() {
    if !has_tool("tar") {
        return;
    }
    let tree = simple();
    for expression in ["s,^\\./,root/,;s,plain,PLAIN,", "s,^,/x/,", "s,plain,other,S", "flags=r;s,plain,other,"] {
        let transform = Some(Transform::parse(expression).unwrap());
        let settings = Settings { transform, ..Settings::default() };
        let expression = format!("--transform={expression}");
        let theirs = theirs(tree.path(), &["."], &["--format=gnu", "--numeric-owner", &expression]);
        assert_same(&ours(tree.path(), &["."], &settings), &theirs);
    }
}

/// Writes single bytes into files of some megabytes; one file is a hole altogether.
fn add_sparse_files(root: &Path) {
    use std::os::unix::fs::FileExt;
    for (name, size, places) in [
        ("hole", 3 << 20, vec![1 << 20, 2_000_000]),
        ("all-hole", 1 << 16, vec![]),
        ("tail", (1 << 20) + 1, vec![1 << 20]),
        ("many", 700_000, (0..60).map(|index| index * 10_000).collect()),
    ] {
        let file = File::create(root.join(name)).unwrap();
        file.set_len(size).unwrap();
        for place in places {
            file.write_all_at(b"x", place).unwrap();
        }
    }
}

#[test]
fn holes_are_left_out_as_gnu_tar_does_in_its_own_format() {
    if !has_tool("tar") {
        return;
    }
    let tree = simple();
    add_sparse_files(tree.path());
    date(tree.path(), 1_577_934_245, 0);
    let settings = Settings { sparse: true, ..Settings::default() };
    let theirs = theirs(tree.path(), &["."], &["--format=gnu", "--numeric-owner", "--sparse"]);
    assert_same(&ours(tree.path(), &["."], &settings), &theirs);
}

#[test]
fn holes_left_out_of_a_posix_archive_are_there_again_when_it_is_extracted() {
    if !has_tool("tar") {
        return;
    }
    let tree = simple();
    add_sparse_files(tree.path());
    let settings = Settings { sparse: true, format: Format::Posix, ..Settings::default() };
    let archive = ours(tree.path(), &["."], &settings);
    assert!(archive.len() < 1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    fs::write(&path, archive).unwrap();
    let extracted = directory.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    let status = Command::new("tar").arg("-xf").arg(path).arg("-C").arg(&extracted).status().unwrap();
    assert!(status.success());
    for name in ["hole", "all-hole", "tail", "many", "plain"] {
        assert!(fs::read(tree.path().join(name)).unwrap() == fs::read(extracted.join(name)).unwrap(), "{name} differs");
    }
}

#[test]
fn root_owners_devices_and_attributes_are_gnu_tars() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let tree = rich();
    let root = tree.path();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).unwrap();
    rustix::fs::mknodat(CWD, root.join("disk"), FileType::BlockDevice, mode, rustix::fs::makedev(259, 1_000_000))
        .unwrap();
    std::os::unix::fs::chown(root.join("sub/nothing"), Some(3_000_000), Some(2_500_000)).unwrap();
    std::os::unix::fs::chown(root.join("large"), Some(1), Some(2)).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("plain", "security.selinux", b"system_u:object_r:bin_t:s0\0");
    set("sub/link", "security.selinux", b"system_u:object_r:lnk_t:s0\0");
    set("large", "user.note", b"one\0two");
    set("sub", "trusted.note", b"");
    set("pipe", "system.posix_acl_access", &LIST);
    set("sub/empty", "system.posix_acl_default", &LIST);
    date(root, 1_577_934_245, 500_000_000);

    let plain = Settings { names: host_names(), ..Settings::default() };
    assert_same(&ours(root, &["."], &plain), &theirs(root, &["."], &["--format=gnu"]));
    let acls = Settings { acls: true, ..plain.clone() };
    assert_same(&ours(root, &["."], &acls), &theirs(root, &["."], &["--format=posix", "--acls"]));
    let selinux = Settings { selinux: true, ..plain.clone() };
    assert_same(&ours(root, &["."], &selinux), &theirs(root, &["."], &["--format=posix", "--selinux"]));
    let all = Settings { xattrs: Some(|_| true), acls: true, selinux: true, ..plain };
    let arguments = ["--format=posix", "--acls", "--selinux", "--xattrs", "--xattrs-include=*"];
    assert_same(&ours(root, &["."], &all), &theirs(root, &["."], &arguments));
}
