//! What can be seen of a tree.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::apply::{content, errno};

/// Modification times before this one were set or clamped, all others are "now".
const BEFORE_NOW: i64 = 1_700_000_000;

/// What can be seen of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Type and permissions, octal.
    mode: String,
    owner: (u32, u32),
    /// Not of a directory, where it means something else on each file system.
    names: u64,
    size: u64,
    device: u64,
    /// Where it is not "now".
    modified: Option<(i64, i64)>,
    attributes: BTreeMap<String, String>,
    /// The bytes of a file, hashed, or the target of a symbolic link.
    content: String,
}

/// What can be seen of a tree: its entries, and for each the first name of the same file.
pub(super) type Tree = BTreeMap<PathBuf, (Seen, PathBuf)>;

/// Reads a whole tree.
pub(super) fn at_tree(root: &Path) -> io::Result<Tree> {
    let mut found = Tree::new();
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(path) = waiting.pop() {
        let at = root.join(&path);
        let metadata = at.symlink_metadata()?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&at)? {
                waiting.push(path.join(entry?.file_name()));
            }
        }
        let name = first.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone()).clone();
        found.insert(path, (at_entry(&at)?, name));
    }
    // The first name by its bytes, however directories are listed.
    let mut smallest: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (path, (_, name)) in &found {
        smallest.entry(name.clone()).or_insert_with(|| path.clone());
    }
    for (_, name) in found.values_mut() {
        *name = smallest[name].clone();
    }
    Ok(found)
}

/// Reads all about one entry, and follows no link.
pub(super) fn at_entry(path: &Path) -> io::Result<Seen> {
    let metadata = path.symlink_metadata()?;
    let is_directory = metadata.is_dir();
    let content = match metadata.file_type() {
        kind if kind.is_symlink() => format!("{:?}", std::fs::read_link(path)?),
        kind if kind.is_file() => {
            let bytes = content(path)?;
            format!("{} bytes, {}", bytes.len(), &blake3::hash(&bytes).to_hex()[..16])
        }
        _ => String::new(),
    };
    let is_device = metadata.file_type().is_char_device() || metadata.file_type().is_block_device();
    Ok(Seen {
        mode: format!("{:o}", metadata.mode()),
        owner: (metadata.uid(), metadata.gid()),
        names: if is_directory { 0 } else { metadata.nlink() },
        size: if is_directory { 0 } else { metadata.len() },
        device: if is_device { metadata.rdev() } else { 0 },
        modified: (metadata.mtime() < BEFORE_NOW).then(|| (metadata.mtime(), metadata.mtime_nsec())),
        attributes: attributes(path)?,
        content,
    })
}

/// Extended attributes, ACLs included.
fn attributes(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut list = vec![0; 16 << 10];
    let length = rustix::fs::llistxattr(path, &mut list)?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        let value = value[..length].escape_ascii().to_string();
        Ok((String::from_utf8_lossy(name).into_owned(), value))
    };
    names.map(read).collect()
}

/// What an open file shows, which need not have a name any more.
pub(super) fn at_file(file: &File) -> Result<String, Errno> {
    use std::os::unix::fs::FileExt as _;
    let metadata = file.metadata().map_err(errno)?;
    let mut bytes = vec![0; metadata.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(errno)?;
    let hash = blake3::hash(&bytes).to_hex();
    Ok(format!("{:o} {} names {} bytes {}", metadata.mode(), metadata.nlink(), metadata.len(), &hash[..16]))
}

/// The first differences of two trees, one a line.
pub(super) fn differences(plain: &Tree, store: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for path in plain.keys().chain(store.keys().filter(|path| !plain.contains_key(*path))) {
        let (one, other) = (plain.get(path), store.get(path));
        if one != other {
            lines.push(format!("{}\n   directory: {one:?}\n   store:     {other:?}", path.display()));
        }
    }
    lines.truncate(8);
    lines
}
