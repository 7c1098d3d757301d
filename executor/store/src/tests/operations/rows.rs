//! The rows of the table.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, FlockOperation, IFlags, Mode, OFlags, RenameFlags, XattrFlags, inotify,
};

use super::As::{Directory, Otherwise};
use super::Row;
use super::page::{BOTH, Page, READ};

pub(super) const ROWS: &[Row] = &[
    ("`st_nlink` of a file", Directory, names_of_a_file),
    ("`st_nlink` of a changed directory", Directory, names_of_a_directory),
    ("`st_dev` and `st_ino` before and after a change", Directory, numbers_stay),
    ("`st_dev` and `st_ino` by path and by descriptor", Directory, numbers_by_descriptor),
    ("one `st_dev` in the whole tree", Directory, one_device),
    ("`d_ino` and `st_ino`", Directory, numbers_in_listings),
    ("a write through one hard link, a read through another", Directory, written_through_a_link),
    ("renaming a file", Directory, renamed_file),
    ("renaming a directory", Directory, renamed_directory),
    ("renaming a directory with a path of more than 255 bytes", Otherwise("EXDEV"), renamed_long_directory),
    ("exchanging a file and a directory", Directory, exchanged),
    ("`RENAME_WHITEOUT`", Otherwise("EINVAL"), renamed_with_whiteout),
    ("`mknod` of a character device 0:0", Otherwise("EPERM"), whiteout),
    ("`O_TMPFILE` and `linkat`", Directory, linked_unnamed),
    ("`fallocate` in each mode", Directory, allocated),
    ("a shared mapping and `read`", Directory, mapped),
    ("a shared mapping from before the first write", Otherwise("old"), mapped_before),
    ("reading through a descriptor from before the first write", Directory, opened_before),
    ("opening a file for writing, after a change of its attributes only", Otherwise("modified"), opened_after_a_change),
    ("`flock` by descriptors from before and after the first write", Directory, flocked),
    ("record locks, of processes and of descriptions", Directory, locked_records),
    ("sizes by `statfs`", Directory, sizes_of_the_file_system),
    ("`f_type` by `statfs`", Otherwise("overlayfs"), type_of_the_file_system),
    ("`telldir` and `seekdir` in a changed directory", Directory, sought),
    ("removing entries while listing", Directory, removed_while_listing),
    ("`copy_file_range`", Directory, copied_range),
    ("`FICLONE`", Directory, cloned),
    ("`O_DIRECT`", Directory, direct),
    ("`inotify`", Directory, watched),
    ("`chattr +i`", Directory, immutable),
    ("extended attributes of overlayfs", Directory, marked),
    ("overlayfs with its upper directory in the tree", Otherwise("EINVAL"), overlay_within),
];

type Outcome<T = ()> = Result<T, std::io::Error>;

/// `done`, or the name of the error.
fn word<T>(result: Outcome<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            None => format!("{:?}", error.kind()),
        },
    }
}

fn numbers(path: &Path) -> (u64, u64) {
    let metadata = path.symlink_metadata().expect("is there");
    (metadata.dev(), metadata.ino())
}

fn names_of_a_file(root: &Path) -> String {
    let count = |name: &str| root.join(name).metadata().map_or(0, |metadata| metadata.nlink());
    let mut counts = vec![count("file"), count("one")];
    fs::hard_link(root.join("file"), root.join("new")).expect("links");
    fs::remove_file(root.join("other")).expect("removes");
    counts.extend(["file", "new", "one"].map(count));
    let file = File::open(root.join("new")).expect("opens");
    fs::remove_file(root.join("new")).expect("removes");
    fs::remove_file(root.join("file")).expect("removes");
    counts.push(file.metadata().expect("asks").nlink());
    format!("{counts:?}")
}

/// At least two, or one where the file system does not count.
fn names_of_a_directory(root: &Path) -> String {
    fs::create_dir(root.join("d/new")).expect("makes");
    let names = root.join("d").metadata().expect("is there").nlink();
    if names == 1 || names == 4 { "one, or the directories in it and two".to_owned() } else { names.to_string() }
}

fn numbers_stay(root: &Path) -> String {
    let mut path = root.join("file");
    let before = numbers(&path);
    let mut changed = Vec::new();
    let mut look = |path: &Path| changed.push(numbers(path) == before);
    fs::write(&path, "new").expect("writes");
    look(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets");
    look(&path);
    let to = root.join("d/renamed");
    fs::rename(&path, &to).expect("renames");
    path = to;
    look(&path);
    let directory = numbers(&root.join("d"));
    fs::write(root.join("d/new"), "x").expect("writes");
    changed.push(numbers(&root.join("d")) == directory);
    format!("{changed:?}")
}

fn numbers_by_descriptor(root: &Path) -> String {
    let path = root.join("file");
    let before = File::open(&path).expect("opens");
    let by = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).expect("asks");
    let write = OpenOptions::new().write(true).open(&path).expect("opens");
    write.write_all_at(b"x", 0).expect("writes");
    let same = [by(&before) == numbers(&path), by(&write) == numbers(&path)];
    let size = before.metadata().expect("asks").len() == path.metadata().expect("asks").len();
    format!("{same:?} {size}")
}

fn one_device(root: &Path) -> String {
    fs::write(root.join("d/0"), "new").expect("writes");
    fs::create_dir(root.join("d/new")).expect("makes");
    let names = [".", "file", "d", "d/0", "d/1", "d/e", "d/e/f", "d/new"];
    let devices: BTreeSet<u64> = names.map(|name| numbers(&root.join(name)).0).into();
    devices.len().to_string()
}

fn numbers_in_listings(root: &Path) -> String {
    fs::write(root.join("d/0"), "new").expect("writes");
    fs::write(root.join("d/new"), "new").expect("writes");
    let directory = File::open(root.join("d")).expect("opens");
    let entries = Dir::read_from(&directory).expect("reads").map(|entry| entry.expect("reads"));
    let wrong = entries.filter(|entry| {
        let stat = rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).expect("is there");
        entry.file_name() != c".." && entry.ino() != stat.st_ino
    });
    wrong.count().to_string()
}

fn written_through_a_link(root: &Path) -> String {
    let reader = OpenOptions::new().read(true).write(true).open(root.join("other")).expect("opens");
    let mut writer = OpenOptions::new().append(true).open(root.join("one")).expect("opens");
    writer.write_all(b" and more").expect("writes");
    let mut text = String::new();
    (&reader).read_to_string(&mut text).expect("reads");
    let same = numbers(&root.join("one")) == numbers(&root.join("other"));
    format!("{text}, {}, {same}", fs::read_to_string(root.join("other")).expect("reads"))
}

fn renamed_file(root: &Path) -> String {
    let moved = [("file", "d/e/moved"), ("d/e/f", "d/0")].map(|(from, to)| {
        let outcome = word(fs::rename(root.join(from), root.join(to)));
        (outcome, root.join(from).exists(), fs::read(root.join(to)).expect("reads").len())
    });
    format!("{moved:?}")
}

fn renamed_directory(root: &Path) -> String {
    fs::create_dir(root.join("new")).expect("makes");
    let outcome = word(fs::rename(root.join("d"), root.join("new/moved")));
    let again = word(fs::rename(root.join("new/moved/e"), root.join("d")));
    let count = fs::read_dir(root.join("new/moved")).expect("reads").count();
    format!("{outcome} {again} {count} {:?}", fs::read_to_string(root.join("d/f")).ok())
}

fn renamed_long_directory(root: &Path) -> String {
    let (directory, to) = (super::long_directory(root), root.join("moved"));
    word(fs::rename(directory, to))
}

fn exchanged(root: &Path) -> String {
    let (one, other) = (root.join("file"), root.join("d/e"));
    let outcome = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
    format!("{} {} {}", word(outcome.map_err(Into::into)), one.is_dir(), other.is_file())
}

fn renamed_with_whiteout(root: &Path) -> String {
    let to = root.join("to");
    word(rustix::fs::renameat_with(CWD, root.join("file"), CWD, to, RenameFlags::WHITEOUT).map_err(Into::into))
}

fn whiteout(root: &Path) -> String {
    let mode = Mode::from(0o600);
    word(rustix::fs::mknodat(CWD, root.join("node"), FileType::CharacterDevice, mode, 0).map_err(Into::into))
}

fn linked_unnamed(root: &Path) -> String {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(root.join("d"), flags, Mode::from(0o640)).expect("opens"));
    file.write_all_at(b"text", 0).expect("writes");
    let before = file.metadata().expect("asks").nlink();
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let linked = rustix::fs::linkat(CWD, from, CWD, root.join("d/named"), AtFlags::SYMLINK_FOLLOW);
    file.write_all_at(b"T", 0).expect("writes");
    let (text, mode) =
        (fs::read_to_string(root.join("d/named")), root.join("d/named").metadata().expect("is there").mode());
    format!("{before} {} {} {mode:o}", word(linked.map_err(Into::into)), text.expect("reads"))
}

fn allocated(root: &Path) -> String {
    let modes = [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::COLLAPSE_RANGE,
        FallocateFlags::INSERT_RANGE,
    ];
    let file = OpenOptions::new().read(true).write(true).open(root.join("file")).expect("opens");
    let outcomes = modes.map(|mode| {
        let outcome = word(rustix::fs::fallocate(&file, mode, 4096, 4096).map_err(Into::into));
        let bytes = fs::read(root.join("file")).expect("reads");
        format!("{outcome} {} {}", bytes.len(), &blake3::hash(&bytes).to_hex()[..8])
    });
    outcomes.join(", ")
}

fn mapped(root: &Path) -> String {
    let file = OpenOptions::new().read(true).write(true).open(root.join("file")).expect("opens");
    let (one, other) = (Page::of(&file, BOTH), Page::of(&File::open(root.join("file")).expect("opens"), READ));
    one.set(b'm');
    let read = fs::read(root.join("file")).expect("reads")[0];
    file.write_all_at(b"w", 0).expect("writes");
    format!("{} {} {}", read as char, one.get() as char, other.get() as char)
}

fn mapped_before(root: &Path) -> String {
    let page = Page::of(&File::open(root.join("file")).expect("opens"), READ);
    OpenOptions::new().write(true).open(root.join("file")).and_then(|file| file.write_all_at(b"w", 0)).expect("writes");
    if page.get() == b'w' { "new" } else { "old" }.to_owned()
}

fn opened_before(root: &Path) -> String {
    let file = File::open(root.join("file")).expect("opens");
    OpenOptions::new().write(true).open(root.join("file")).and_then(|file| file.write_all_at(b"w", 0)).expect("writes");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).expect("reads");
    if byte[0] == b'w' { "new" } else { "old" }.to_owned()
}

fn opened_after_a_change(root: &Path) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    File::open(root.join("file")).and_then(|file| file.set_modified(time)).expect("sets");
    drop(OpenOptions::new().write(true).open(root.join("file")).expect("opens"));
    if root.join("file").metadata().expect("is there").mtime() == 1000 { "as it was" } else { "modified" }.to_owned()
}

/// Descriptors from before and after the first write.
fn before_and_after(root: &Path) -> [File; 2] {
    let before = File::open(root.join("file")).expect("opens");
    let after = OpenOptions::new().read(true).write(true).open(root.join("file")).expect("opens");
    after.write_all_at(b"w", 0).expect("writes");
    [before, after]
}

fn flocked(root: &Path) -> String {
    let [before, after] = before_and_after(root);
    let lock =
        |file: &File| word(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into));
    let outcomes = [lock(&before), lock(&after)];
    // Closing is not enough: a child that another test is starting may have the descriptor, too.
    rustix::fs::flock(&before, FlockOperation::Unlock).expect("unlocks");
    format!("{outcomes:?} {}", lock(&after))
}

fn locked_records(root: &Path) -> String {
    let [before, after] = before_and_after(root);
    let lock = |kind: i32| libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 10,
        l_pid: 0,
    };
    let as_errno = |result: nix::Result<i32>| word(result.map_err(std::io::Error::from));
    let own = as_errno(fcntl(&after, FcntlArg::F_SETLK(&lock(libc::F_WRLCK))));
    let other = as_errno(fcntl(&before, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK))));
    let unlocked = as_errno(fcntl(&after, FcntlArg::F_SETLK(&lock(libc::F_UNLCK))));
    let shared = [&before, &after].map(|file| as_errno(fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK)))));
    format!("{own} {other} {unlocked} {shared:?}")
}

fn sizes_of_the_file_system(root: &Path) -> String {
    let stat = rustix::fs::statfs(root).expect("asks");
    format!("{} {} {}", stat.f_bsize, stat.f_blocks, stat.f_namelen)
}

fn type_of_the_file_system(root: &Path) -> String {
    const OVERLAYFS: u64 = 0x794C_7630;
    let kind = rustix::fs::statfs(root).expect("asks").f_type as u64;
    // On an overlay that of the directory is the same.
    if kind == OVERLAYFS { "overlayfs".to_owned() } else { format!("{kind:x}") }
}

fn names(entries: &mut Dir) -> Vec<(i64, String)> {
    let entries = entries.map(|entry| entry.expect("reads"));
    entries.map(|entry| (entry.offset(), entry.file_name().to_string_lossy().into_owned())).collect()
}

fn sought(root: &Path) -> String {
    for index in 0..20 {
        fs::remove_file(root.join(format!("d/{index}"))).expect("removes");
        fs::write(root.join(format!("d/new{index}")), "x").expect("writes");
    }
    let mut entries = Dir::read_from(File::open(root.join("d")).expect("opens")).expect("reads");
    let all = names(&mut entries);
    let wrong = (0..all.len()).step_by(17).filter(|place| {
        entries.seek(all[*place].0).expect("seeks");
        names(&mut entries) != all[place + 1..]
    });
    let wrong = wrong.count();
    entries.rewind();
    format!("{} {wrong} {}", all.len(), names(&mut entries).len())
}

fn removed_while_listing(root: &Path) -> String {
    fs::write(root.join("d/new"), "x").expect("writes");
    fs::remove_dir_all(root.join("d/e")).expect("removes");
    let mut removed = 0;
    for entry in fs::read_dir(root.join("d")).expect("reads") {
        fs::remove_file(entry.expect("reads").path()).expect("removes");
        removed += 1;
    }
    format!("{removed} {}", word(fs::remove_dir(root.join("d"))))
}

fn copied_range(root: &Path) -> String {
    let (from, to) = (File::open(root.join("file")).expect("opens"), File::create(root.join("d/0")).expect("makes"));
    let copied = rustix::fs::copy_file_range(&from, None, &to, None, 1 << 20).expect("copies");
    let same = fs::read(root.join("file")).expect("reads") == fs::read(root.join("d/0")).expect("reads");
    format!("{copied} {same}")
}

fn cloned(root: &Path) -> String {
    let (from, to) = (File::open(root.join("file")).expect("opens"), File::create(root.join("d/0")).expect("makes"));
    let outcome = word(rustix::fs::ioctl_ficlone(&to, &from).map_err(Into::into));
    format!("{outcome} {}", to.metadata().expect("asks").len())
}

fn direct(root: &Path) -> String {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file: OwnedFd = match rustix::fs::open(root.join("file"), flags, Mode::empty()) {
        Ok(file) => file,
        Err(error) => return word::<()>(Err(error.into())),
    };
    let file = File::from(file);
    let mut room = vec![0u8; 3 * 4096];
    let start = room.as_ptr().align_offset(4096);
    let page = &mut room[start..start + 4096];
    let read = word(file.read_exact_at(page, 4096));
    page.fill(b'd');
    let written = word(file.write_all_at(page, 8192));
    let bytes = fs::read(root.join("file")).expect("reads");
    format!("{read} {written} {} {}", bytes[8192] as char, bytes.len())
}

fn watched(root: &Path) -> String {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("watches");
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::ATTRIB | inotify::WatchFlags::MOVED_FROM;
    for name in ["file", "d"] {
        inotify::add_watch(&watch, root.join(name), events).expect("watches");
    }
    OpenOptions::new().write(true).open(root.join("file")).and_then(|file| file.write_all_at(b"w", 0)).expect("writes");
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o600)).expect("sets");
    fs::rename(root.join("d/0"), root.join("moved")).expect("renames");
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut room);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        seen.push(format!("{:?} {:?}", event.events(), event.file_name()));
    }
    seen.join(", ")
}

fn immutable(root: &Path) -> String {
    let file = File::open(root.join("file")).expect("opens");
    let set = |flags: IFlags| rustix::fs::ioctl_setflags(&file, flags).map_err(std::io::Error::from);
    let Ok(flags) = rustix::fs::ioctl_getflags(&file) else { return "has no flags".to_owned() };
    let marked = word(set(flags | IFlags::IMMUTABLE));
    let written = word(OpenOptions::new().write(true).open(root.join("file")));
    let removed = word(fs::remove_file(root.join("file")));
    let again = File::open(root.join("file")).expect("opens");
    let unmarked = word(rustix::fs::ioctl_setflags(&again, flags).map_err(Into::into));
    format!("{marked} {written} {removed} {unmarked} {}", word(fs::remove_file(root.join("file"))))
}

fn marked(root: &Path) -> String {
    let names =
        ["trusted.overlay.opaque", "trusted.overlay.overlay.x", "user.overlay.opaque", "trusted.overlay.metacopy"];
    let set = |path: &str, name: &str| {
        word(rustix::fs::setxattr(root.join(path), name, b"y", XattrFlags::empty()).map_err(Into::into))
    };
    let mut outcomes = Vec::new();
    for path in ["d", "file"] {
        outcomes.extend(names.map(|name| set(path, name)));
        let mut list = vec![0; 4096];
        let length = rustix::fs::listxattr(root.join(path), &mut list).expect("lists");
        let mut listed: Vec<_> =
            list[..length].split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        listed.sort();
        outcomes.extend(listed);
        outcomes.push(word(rustix::fs::removexattr(root.join(path), names[0]).map_err(Into::into)));
    }
    outcomes.push(fs::read_dir(root.join("d")).expect("reads").count().to_string());
    outcomes.join(" ")
}

fn overlay_within(root: &Path) -> String {
    let path = |name: &str| root.join(name);
    for name in ["upper", "work"] {
        fs::create_dir(path(name)).expect("makes");
    }
    let upper = crate::tree_stack::Upper { dir: path("upper"), work: path("work"), metacopy: true };
    let stack = crate::tree_stack::TreeStack { lower: vec![path("d")], upper: Some(upper) };
    word(crate::fs::overlay::open(&stack))
}
