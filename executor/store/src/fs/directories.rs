//! The directories of a tree, each known by a number, by its name and by the one that it is in.
//!
//! A path grows with the depth, so that the paths of all directories of a deep tree take memory and time that grow with
//! the square of its depth. Here they are made for messages only; [`Cursor`] goes through a tree step by step.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// The number of the directory that a tree begins with.
pub(crate) const ROOT: usize = 0;

/// All directories of a tree that are known so far.
#[derive(Debug)]
pub(crate) struct Directories(Vec<Directory>);

#[derive(Debug)]
struct Directory {
    /// The number of the directory that it is in.
    parent: usize,
    /// How many directories it is below the root.
    depth: usize,
    name: CString,
}

impl Default for Directories {
    /// The root alone.
    fn default() -> Self {
        Self(vec![Directory { parent: ROOT, depth: 0, name: CString::default() }])
    }
}

impl Directories {
    /// Adds a directory to the directory `parent`; returns its number.
    pub(crate) fn add(&mut self, parent: usize, name: &CStr) -> usize {
        let depth = self.depth(parent) + 1;
        self.0.push(Directory { parent, depth, name: name.to_owned() });
        self.0.len() - 1
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the name of a directory; that of the root is empty.
    pub(crate) fn name(&self, number: usize) -> &CStr {
        &self.0[number].name
    }

    /// Returns the directory that a directory is in; the root for the root.
    pub(crate) fn parent(&self, number: usize) -> usize {
        self.0[number].parent
    }

    /// Returns how many directories a directory is below the root.
    pub(crate) fn depth(&self, number: usize) -> usize {
        self.0[number].depth
    }

    /// Returns the path of a directory below the root; that of the root is empty.
    pub(crate) fn path(&self, number: usize) -> PathBuf {
        let mut names = Vec::with_capacity(self.depth(number));
        let mut next = number;
        while next != ROOT {
            names.push(OsStr::from_bytes(self.name(next).to_bytes()));
            next = self.parent(next);
        }
        names.into_iter().rev().collect()
    }

    /// Returns all numbers: each directory before those that are in it, and these by name.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        let mut within = vec![Vec::new(); self.len()];
        for (number, directory) in self.0.iter().enumerate().skip(1) {
            within[directory.parent].push(number);
        }
        let mut order = Vec::with_capacity(self.len());
        let mut waiting = vec![ROOT];
        while let Some(number) = waiting.pop() {
            order.push(number);
            let mut next = std::mem::take(&mut within[number]);
            next.sort_unstable_by(|one, other| self.name(*other).cmp(self.name(*one)));
            waiting.append(&mut next);
        }
        order
    }
}

/// An open directory that goes from one directory of a tree to the next, by steps up and down: in the order of
/// [`Directories::in_order`], or in the opposite one, it takes two steps for each directory.
pub(crate) struct Cursor<'a> {
    directories: &'a Directories,
    at: usize,
    open: OwnedFd,
}

impl<'a> Cursor<'a> {
    /// Begins at the root.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn new(directories: &'a Directories, root: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { directories, at: ROOT, open: open(root, c".")? })
    }

    /// Goes to a directory; follows no symbolic link.
    ///
    /// # Errors
    /// A directory on the way cannot be opened.
    pub(crate) fn go_to(&mut self, number: usize) -> io::Result<BorrowedFd<'_>> {
        let directories = self.directories;
        let mut down = Vec::new();
        let mut target = number;
        while directories.depth(target) > directories.depth(self.at) {
            down.push(target);
            target = directories.parent(target);
        }
        while self.at != target {
            if directories.depth(target) == directories.depth(self.at) {
                down.push(target);
                target = directories.parent(target);
            }
            self.step(c"..", directories.parent(self.at))?;
        }
        for next in down.into_iter().rev() {
            self.step(directories.name(next), next)?;
        }
        Ok(self.open.as_fd())
    }

    fn step(&mut self, name: &CStr, to: usize) -> io::Result<()> {
        self.open = open(self.open.as_fd(), name)?;
        self.at = to;
        Ok(())
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// A path in the making, by steps up and down in the order of [`Directories::in_order`].
#[derive(Debug, Default)]
pub(crate) struct Steps {
    path: Vec<u8>,
    /// Where the names begin; the separators before them do not count.
    lengths: Vec<usize>,
}

impl Steps {
    /// Goes to the entry of this name of the directory that is the last one met above the depth `depth`; the root has
    /// the depth 0.
    pub(crate) fn go_to(&mut self, depth: usize, name: &[u8]) {
        let above = depth.saturating_sub(1);
        if let Some(length) = self.lengths.get(above) {
            self.path.truncate(*length);
            self.lengths.truncate(above);
        }
        if depth > 0 {
            self.lengths.push(self.path.len());
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
        }
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Directories {
        let mut tree = Directories::default();
        let b = tree.add(ROOT, c"b");
        let a = tree.add(ROOT, c"a");
        let deep = tree.add(b, c"x");
        tree.add(a, c"y");
        tree.add(ROOT, c"a-");
        tree.add(deep, c"z");
        tree
    }

    #[test]
    fn the_order_is_that_of_paths() {
        let tree = tree();
        let paths: Vec<PathBuf> = tree.in_order().into_iter().map(|number| tree.path(number)).collect();
        assert_eq!(paths, ["", "a", "a/y", "a-", "b", "b/x", "b/x/z"].map(PathBuf::from));
        assert!(paths.is_sorted());
    }

    #[test]
    fn steps_and_a_cursor_come_to_the_same_places() {
        let tree = tree();
        let root = tempfile::tempdir().expect("a temporary directory");
        for number in tree.in_order() {
            std::fs::create_dir_all(root.path().join(tree.path(number))).expect("makes");
        }
        let open = std::fs::File::open(root.path()).expect("opens");
        let (mut cursor, mut steps) = (Cursor::new(&tree, open.as_fd()).expect("opens"), Steps::default());
        let inode = |stat: rustix::fs::Stat| stat.st_ino;
        let order = tree.in_order();
        for number in order.iter().chain(order.iter().rev()) {
            let stat = rustix::fs::fstat(cursor.go_to(*number).expect("goes")).expect("looks");
            let expected = rustix::fs::stat(root.path().join(tree.path(*number))).expect("looks");
            assert_eq!(inode(stat), inode(expected));
        }
        for number in order {
            steps.go_to(tree.depth(number), tree.name(number).to_bytes());
            assert_eq!(steps.path(), tree.path(number));
        }
    }
}
