//! Operations at random, most of which succeed: paths come from those that are there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, OFlags, RenameFlags, XattrFlags};

use super::apply::{Operation, SLOTS};
use super::random::Random;

/// A tree with more entries than this one loses some.
const MANY: usize = 120;
/// How deep directories are made.
const DEEP: usize = 5;

/// The attribute that a write takes from a file.
pub(super) const CAPABILITY: &str = "security.capability";

/// What is there, by path; the root is `.`.
pub(super) struct Model {
    kinds: BTreeMap<PathBuf, FileType>,
    held: [bool; SLOTS],
}

impl Model {
    pub(super) fn new() -> Self {
        Self { kinds: BTreeMap::new(), held: [false; SLOTS] }
    }

    /// Nothing is held any more.
    pub(super) fn released(&mut self) {
        self.held = [false; SLOTS];
    }

    /// Notes what has succeeded.
    pub(super) fn done(&mut self, operation: &Operation) {
        use Operation::*;
        match operation {
            Write { path, flags, .. } if flags.contains(OFlags::CREATE) => self.add(path, FileType::RegularFile),
            MakeDirectory { path, .. } => self.add(path, FileType::Directory),
            MakeNode { path, kind, .. } => self.add(path, *kind),
            MakeSymlink { path, .. } => self.add(path, FileType::Symlink),
            LinkUnnamed { path, .. } | LinkHeld { path, .. } => self.add(path, FileType::RegularFile),
            Link { from, to } => {
                if let Some(kind) = self.kinds.get(from).copied() {
                    self.add(to, kind);
                }
            }
            Unlink { path } | RemoveDirectory { path } | RemoveAll { path } => drop(self.take(path)),
            Rename { from, to, flags } => {
                let (moved, other) = (self.take(from), self.take(to));
                self.put(to, moved);
                if flags.contains(RenameFlags::EXCHANGE) {
                    self.put(from, other);
                }
            }
            Hold { slot, .. } => self.held[*slot] = true,
            Release { slot } => self.held[*slot] = false,
            _ => {}
        }
    }

    fn add(&mut self, path: &Path, kind: FileType) {
        self.kinds.insert(path.to_owned(), kind);
    }

    /// Takes an entry and all below it out, as paths below it.
    fn take(&mut self, path: &Path) -> Vec<(PathBuf, FileType)> {
        let below = self.kinds.iter().filter_map(|(at, kind)| Some((at.strip_prefix(path).ok()?.to_owned(), *kind)));
        let taken: Vec<_> = below.collect();
        self.kinds.retain(|at, _| !at.starts_with(path));
        taken
    }

    fn put(&mut self, path: &Path, entries: Vec<(PathBuf, FileType)>) {
        // Joining nothing would add a slash.
        let place = |below: PathBuf| if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) };
        self.kinds.extend(entries.into_iter().map(|(below, kind)| (place(below), kind)));
    }

    fn any(&self, random: &Random, wanted: impl Fn(FileType) -> bool) -> Option<PathBuf> {
        let paths: Vec<&PathBuf> = self.kinds.iter().filter(|(_, kind)| wanted(**kind)).map(|(path, _)| path).collect();
        (!paths.is_empty()).then(|| (*random.of(&paths)).clone())
    }

    /// A directory in which others may be made.
    fn directory(&self, random: &Random) -> PathBuf {
        let directory = self.any(random, |kind| kind == FileType::Directory);
        directory.filter(|path| path.components().count() < DEEP && !random.percent(20)).unwrap_or_default()
    }
}

/// What operations a tree gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    /// Attributes that mean something to overlayfs.
    pub(super) marks: bool,
    /// Character devices 0:0, which it takes for a mark.
    pub(super) whiteouts: bool,
}

/// The next operation.
pub(super) fn next(random: &Random, model: &Model, class: Class) -> Operation {
    if model.kinds.len() > MANY && random.percent(30) {
        return Operation::RemoveAll { path: directory_or(random, model) };
    }
    let any = |random: &Random| model.any(random, |_| true).unwrap_or_else(|| ".".into());
    let file = |random: &Random| model.any(random, |kind| kind == FileType::RegularFile);
    let file = |random: &Random| file(random).unwrap_or_else(|| "file".into());
    let (offset, length) = (random.below(40_000), random.below(6_000) as usize);
    let byte = random.next() as u8;
    match random.below(100) {
        0..12 => {
            let path = new_path(random, model, false);
            Operation::Write { path, offset: 0, length, byte, flags: OFlags::CREATE | OFlags::EXCL }
        }
        12..20 => {
            let path = if random.percent(60) { file(random) } else { new_path(random, model, false) };
            let more = *random.of(&[OFlags::empty(), OFlags::TRUNC, OFlags::APPEND]);
            Operation::Write { path, offset, length, byte, flags: OFlags::CREATE | more }
        }
        20..24 => Operation::Truncate { path: file(random), size: offset },
        24..29 => allocate(random, file(random)),
        29..32 => Operation::Map { path: file(random), offset, byte },
        32..34 => {
            let (from, to) = (file(random), file(random));
            Operation::CopyRange { from, to, from_offset: offset / 4, to_offset: offset, length }
        }
        34..40 => Operation::MakeDirectory {
            path: new_path(random, model, true),
            mode: *random.of(&[0o755, 0o755, 0o700, 0o2775, 0o1777, 0o000]),
        },
        40..43 => make_node(random, new_path(random, model, false), class),
        43..45 => {
            let long = OsString::from_vec(vec![b'x'; 900]).into();
            let targets: [PathBuf; 4] = ["/etc/passwd".into(), "..".into(), any(random), long];
            Operation::MakeSymlink { path: new_path(random, model, false), target: random.of(&targets).clone() }
        }
        45..51 => {
            let from = model.any(random, |kind| kind != FileType::Directory).unwrap_or_else(|| "file".into());
            Operation::Link { from, to: new_path(random, model, false) }
        }
        51..53 => {
            let path = new_path(random, model, false);
            Operation::LinkUnnamed { directory: model.directory(random).join("."), path, length, byte }
        }
        53..62 => rename(random, model),
        62..66 => {
            let path = model.any(random, |kind| kind != FileType::Directory).unwrap_or_else(|| "file".into());
            Operation::Unlink { path }
        }
        66..68 => {
            let path = model.any(random, |kind| kind == FileType::Directory).unwrap_or_else(|| "directory".into());
            Operation::RemoveDirectory { path }
        }
        68..70 => Operation::RemoveAll { path: directory_or(random, model) },
        70..74 => {
            let mode = *random.of(&[0o644, 0o600, 0o4755, 0o2755, 0o1777, 0o000, 0o777]);
            let path = model.any(random, |kind| kind != FileType::Symlink).unwrap_or_else(|| ".".into());
            Operation::ChangeMode { path, mode }
        }
        74..77 => {
            let path = if random.percent(5) { ".".into() } else { any(random) };
            Operation::ChangeOwner { path, user: random.below(3) as u32, group: random.below(3) as u32 }
        }
        77..80 => {
            let path = if random.percent(5) { ".".into() } else { any(random) };
            let nanoseconds = random.below(1_000_000_000) as i64;
            Operation::SetTime { path, seconds: random.below(1_400_000_000) as i64, nanoseconds }
        }
        80..85 => set_attribute(random, any(random), class),
        85..87 => Operation::RemoveAttribute { path: any(random), name: attribute_name(random, class) },
        87..93 => held(random, model, file(random), offset, length, byte),
        93..97 => Operation::Look { path: any(random) },
        _ => Operation::List { path: model.directory(random).join(".") },
    }
}

fn directory_or(random: &Random, model: &Model) -> PathBuf {
    model.any(random, |kind| kind == FileType::Directory).unwrap_or_else(|| "directory".into())
}

/// A path that is likely new, or that of something that was there before: there are few names.
fn new_path(random: &Random, model: &Model, is_directory: bool) -> PathBuf {
    // What is replaced by something new of the same name.
    if random.percent(8)
        && let Some(path) = model.any(random, |_| true)
    {
        return path;
    }
    model.directory(random).join(name(random, is_directory))
}

fn name(random: &Random, is_directory: bool) -> OsString {
    let letter = b'a' + random.below(24) as u8;
    if !random.percent(12) {
        return OsString::from_vec(vec![letter, b'0' + random.below(4) as u8]);
    }
    let odd: [&[u8]; 10] = [
        b".wh.x",
        b".wh..wh..opq",
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"#1",
        b"work",
        b"index",
        "\u{e9}".as_bytes(),
        &[letter; 255],
    ];
    // Overlayfs notes paths of renamed directories that are at most 255 bytes long.
    let choices = if is_directory { &odd[..9] } else { &odd[..] };
    OsString::from_vec(random.of::<&[u8]>(choices).to_vec())
}

fn allocate(random: &Random, path: PathBuf) -> Operation {
    let flags = *random.of(&[
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::COLLAPSE_RANGE,
        FallocateFlags::INSERT_RANGE,
    ]);
    let moves = flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
    let (offset, length) = (random.below(20_000), 1 + random.below(10_000));
    let whole = |number: u64| if moves { number / 4096 * 4096 } else { number };
    Operation::Allocate { path, flags, offset: whole(offset), length: whole(length + 4095) }
}

fn make_node(random: &Random, path: PathBuf, class: Class) -> Operation {
    let kinds = [
        (FileType::Fifo, (0, 0)),
        (FileType::Socket, (0, 0)),
        (FileType::CharacterDevice, (1, 3)),
        (FileType::BlockDevice, (7, 200)),
        (FileType::CharacterDevice, (0, 0)),
    ];
    let (kind, device) = *random.of(if class.whiteouts { &kinds[..] } else { &kinds[..4] });
    Operation::MakeNode { path, kind, mode: 0o640, device }
}

fn rename(random: &Random, model: &Model) -> Operation {
    let from = model.any(random, |_| true).unwrap_or_else(|| "file".into());
    let is_directory = model.kinds.get(&from) == Some(&FileType::Directory);
    let flags = *random.of(&[
        RenameFlags::empty(),
        RenameFlags::empty(),
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
    ]);
    let same_kind = |kind: FileType| (kind == FileType::Directory) == is_directory;
    let over = match flags {
        // A long name must not become one of a directory.
        RenameFlags::EXCHANGE => model.any(random, same_kind),
        _ if random.percent(25) => model.any(random, same_kind),
        _ => None,
    };
    let to = over.unwrap_or_else(|| model.directory(random).join(name(random, is_directory)));
    Operation::Rename { from, to, flags }
}

fn attribute_name(random: &Random, class: Class) -> String {
    let ordinary = ["user.one", "user.two", "trusted.one", CAPABILITY, "security.x", "trusted.overlayx"];
    let marks = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.whiteout",
        "trusted.overlay.overlay.opaque",
        "trusted.overlay.x",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "user.overlay.overlay.x",
    ];
    let all = if class.marks && random.percent(60) { &marks[..] } else { &ordinary[..] };
    (*random.of(all)).to_owned()
}

fn set_attribute(random: &Random, path: PathBuf, class: Class) -> Operation {
    if random.percent(20) {
        let name = *random.of(&["system.posix_acl_access", "system.posix_acl_default"]);
        return Operation::SetAttribute { path, name: name.to_owned(), value: acl(random), flags: XattrFlags::empty() };
    }
    let name = attribute_name(random, class);
    let values: [&[u8]; 4] = [b"", b"y", b"x", b"/some/path\0and more"];
    // As <linux/capability.h> has it: version 2, effective, one capability.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let value = if name == CAPABILITY { capability } else { random.of(&values).to_vec() };
    let flags = *random.of(&[XattrFlags::empty(), XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]);
    Operation::SetAttribute { path, name, value, flags }
}

/// An ACL with an entry for one more user, as <linux/posix_acl_xattr.h> has it.
fn acl(random: &Random) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut acl = 2u32.to_le_bytes().to_vec();
    let user = 1 + random.below(2) as u32;
    for (tag, permissions, id) in
        [(1u16, 7u16, NOBODY), (2, random.below(8) as u16, user), (4, 5, NOBODY), (16, 7, NOBODY), (32, 5, NOBODY)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Something with a file that stays open.
fn held(random: &Random, model: &Model, path: PathBuf, offset: u64, length: usize, byte: u8) -> Operation {
    let slot = random.below(SLOTS as u64) as usize;
    if !model.held[slot] {
        return Operation::Hold { slot, path };
    }
    match random.below(6) {
        0 | 1 => Operation::WriteHeld { slot, offset, length, byte },
        2 => Operation::ChangeModeHeld { slot, mode: *random.of(&[0o600, 0o664]) },
        3 => Operation::LinkHeld { slot, path: new_path(random, model, false) },
        4 => Operation::LookHeld { slot },
        _ => Operation::Release { slot },
    }
}
