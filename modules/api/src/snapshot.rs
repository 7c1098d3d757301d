//! The content of a sandbox's writable places as data: directories, files and links with their owners and modes.
//!
//! With it, what programs took time to make is made again by writing a few files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::tree::Tree;

/// Directories, files and links, directories before what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    mode: u32,
    user: u32,
    group: u32,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Directory,
    /// Its content in base64.
    File(String),
    /// Where it leads.
    Link(PathBuf),
}

impl Snapshot {
    /// The one in a file.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = fs::read(file).map_err(Error::io("read", file))?;
        serde_json::from_slice(&text).map_err(|error| Error::failed(format!("{} is damaged: {error}", file.display())))
    }

    /// All that is in some directories of `root` but in `without`; what is mounted there, what is no directory, file or
    /// link, and what has a name that is no text is left out.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn take(root: &Path, directories: &[&str], without: &[&str]) -> Result<Self, Error> {
        let mut snapshot = Self::default();
        for directory in directories {
            if root.join(directory).is_dir() {
                snapshot.add(root, Path::new(directory), without)?;
            }
        }
        Ok(snapshot)
    }

    fn add(&mut self, root: &Path, directory: &Path, without: &[&str]) -> Result<(), Error> {
        let at = root.join(directory);
        let failed = |act: &'static str, path: &Path| Error::io::<io::Error>(act, path.to_owned());
        let device = fs::symlink_metadata(&at).map_err(failed("read", &at))?.dev();
        let mut names = Vec::new();
        for entry in fs::read_dir(&at).map_err(failed("list", &at))? {
            names.push(entry.map_err(failed("list", &at))?.file_name());
        }
        names.sort();
        for name in names {
            let (path, at) = (directory.join(&name), at.join(&name));
            let status = fs::symlink_metadata(&at).map_err(failed("read", &at))?;
            if path.to_str().is_none_or(|path| without.contains(&path)) || status.dev() != device {
                continue;
            }
            let kind = status.file_type();
            let what = if kind.is_dir() {
                What::Directory
            } else if kind.is_file() {
                What::File(STANDARD.encode(fs::read(&at).map_err(failed("read", &at))?))
            } else if kind.is_symlink() {
                What::Link(fs::read_link(&at).map_err(failed("read", &at))?)
            } else {
                continue;
            };
            let (mode, user, group) = (status.mode() & 0o7777, status.uid(), status.gid());
            self.entries.push(Entry { path: path.clone(), mode, user, group, what });
            if kind.is_dir() {
                self.add(root, &path, without)?;
            }
        }
        Ok(())
    }

    /// Makes all of it in a tree; what is there already stays as it is.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn make(&self, tree: &Tree) -> Result<(), Error> {
        for Entry { path, mode, user, group, what } in &self.entries {
            if tree.symlink_metadata(path).is_ok() {
                continue;
            }
            match what {
                What::Directory => tree.create_dir(path, *mode)?,
                What::File(content) => {
                    let content = STANDARD.decode(content).map_err(|error| Error::failed(error.to_string()))?;
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                    let mut file = tree.open_file(path, flags, *mode)?;
                    io::Write::write_all(&mut file, &content).map_err(Error::io("write", path))?;
                }
                What::Link(target) => tree.symlink(target, path)?,
            }
            if (*user, *group) != (0, 0) {
                tree.lchown(path, Some(*user), Some(*group))?;
            }
            // Neither the umask nor a change of owner may have a say.
            if !matches!(what, What::Link(_)) {
                tree.chmod(path, *mode)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_was_taken_is_made_again_and_what_is_there_stays() {
        let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let at = |path: &str| from.path().join(path);
        fs::create_dir_all(at("etc/empty")).expect("directories");
        fs::create_dir_all(at("run/osbuild/tree")).expect("directories");
        fs::write(at("etc/shadow"), b"\xff secret").expect("a file");
        fs::set_permissions(at("etc/shadow"), fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::write(at("etc/there"), "new").expect("a file");
        fs::write(at("outside"), "not asked for").expect("a file");
        symlink("/proc/mounts", at("etc/mtab")).expect("a link");

        let snapshot = Snapshot::take(from.path(), &["etc", "run", "none"], &["run/osbuild"]).expect("readable");
        let text = serde_json::to_string(&snapshot).expect("has a JSON form");
        let snapshot: Snapshot = serde_json::from_str(&text).expect("is one");
        fs::create_dir_all(to.path().join("etc")).expect("a directory");
        fs::create_dir_all(to.path().join("run")).expect("a directory");
        fs::write(to.path().join("etc/there"), "old").expect("a file");
        snapshot.make(&Tree::open(to.path()).expect("a directory")).expect("made");

        let at = |path: &str| to.path().join(path);
        assert_eq!(fs::read(at("etc/shadow")).expect("made"), b"\xff secret");
        assert_eq!(fs::metadata(at("etc/shadow")).expect("made").mode() & 0o7777, 0o600);
        assert_eq!(fs::read_link(at("etc/mtab")).expect("made"), Path::new("/proc/mounts"));
        assert_eq!(fs::read_to_string(at("etc/there")).expect("there"), "old");
        assert!(at("etc/empty").is_dir() && !at("run/osbuild").exists() && !at("outside").exists());
    }

    #[test]
    fn nothing_is_made_outside_of_the_tree() {
        let (outer, entry) = (tempfile::tempdir().expect("a directory"), |path: &str, what| Entry {
            path: path.into(),
            mode: 0o755,
            user: 0,
            group: 0,
            what,
        });
        let tree = outer.path().join("tree");
        fs::create_dir(&tree).expect("a directory");
        let entries = vec![
            entry("link", What::Link("/../..".into())),
            entry("link/one", What::Directory),
            entry("../two", What::Directory),
        ];
        Snapshot { entries }.make(&Tree::open(&tree).expect("a directory")).expect("made inside");
        assert!(tree.join("one").is_dir() && tree.join("two").is_dir());
        assert_eq!(fs::read_dir(outer.path()).expect("a directory").count(), 1);
    }
}
