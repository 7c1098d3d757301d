//! The part of the host's tree that ids cover: the tools and files that modules declare ([`Requirement`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use osbc_ir::{FileDigest, HostFile, Value};

use crate::requirement::Requirement;
use crate::tool;

const CONTEXT: &str = "osbc host file 1";

/// What stages may see of the host's tree.
const SHOWN: [&str; 2] = ["/usr", "/etc"];

/// How much is read of a file or directory; one with more counts as absent.
const MOST_BYTES: u64 = 1 << 30;
/// How many names a directory may have below it; one with more counts as absent.
const MOST_NAMES: usize = 20_000;

/// The host's tree, as far as ids go.
pub trait HostTree: Debug + Send + Sync {
    /// Returns the digest of what `name` is: a tool by its name, or a file or directory by its absolute path; `None` if
    /// there is no such thing.
    fn digest(&self, name: &str) -> Option<FileDigest>;
}

/// A host that has nothing.
#[derive(Debug, Clone, Copy)]
pub struct EmptyHost;

impl HostTree for EmptyHost {
    fn digest(&self, _name: &str) -> Option<FileDigest> {
        None
    }
}

/// The machine that osbc runs on. Reads everything at most once.
#[derive(Debug, Default)]
pub struct ThisHost {
    known: Mutex<HashMap<String, Option<FileDigest>>>,
}

impl HostTree for ThisHost {
    fn digest(&self, name: &str) -> Option<FileDigest> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known.get(name) {
            return *digest;
        }
        let path = if name.contains('/') { visible(name) } else { tool::locate(&tool::DIRECTORIES, name) };
        let digest = path.and_then(|path| digest(&path));
        known.insert(name.to_owned(), digest);
        digest
    }
}

/// Returns what a module with these options takes from the host's tree when it runs there, sorted by name.
pub fn files(requires: &[Requirement], options: &Value, host: &dyn HostTree) -> Vec<HostFile> {
    let names = takes(requires, options).into_iter();
    names.map(|name| HostFile { digest: host.digest(&name), name }).collect()
}

/// Returns the names of all that a module with these options takes from the tree that it runs in: those of tools, and
/// absolute paths of files and directories.
pub fn takes(requires: &[Requirement], options: &Value) -> BTreeSet<String> {
    requires.iter().flat_map(|requirement| requirement.takes(options)).collect()
}

/// Returns the path that `name` is if stages in the host's tree can see it.
///
/// Options name paths too, so that the rest of the machine is not read for a manifest.
fn visible(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let is_plain = path.components().all(|component| component != Component::ParentDir);
    (is_plain && SHOWN.iter().any(|shown| path.starts_with(shown))).then(|| path.to_owned())
}

/// Returns the digest of a file's content, or of all names, links and contents below a directory; `None` if it cannot
/// be read, which then no stage can either.
fn digest(path: &Path) -> Option<FileDigest> {
    let mut reading = Reading { hasher: blake3::Hasher::new_derive_key(CONTEXT), bytes: 0, names: 0 };
    reading.add(path).ok()?;
    Some(FileDigest::from_bytes(reading.hasher.finalize().into()))
}

struct Reading {
    hasher: blake3::Hasher,
    bytes: u64,
    names: usize,
}

impl Reading {
    fn add(&mut self, path: &Path) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if metadata.is_file() {
            self.bytes += metadata.len();
            self.check_size()?;
            self.sized(b'f', metadata.len());
            return self.hasher.update_reader(File::open(path)?.take(metadata.len())).map(drop);
        }
        if !metadata.is_dir() {
            return Err(ErrorKind::Unsupported.into());
        }
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.insert(entry.file_name(), entry.file_type()?);
            self.names += 1;
            self.check_size()?;
        }
        self.sized(b'd', entries.len() as u64);
        for (name, kind) in entries {
            self.text(b'n', &name);
            let path = path.join(name);
            if kind.is_symlink() {
                self.text(b'l', fs::read_link(&path)?.as_os_str());
            } else {
                self.add(&path)?;
            }
        }
        Ok(())
    }

    fn check_size(&self) -> io::Result<()> {
        if self.bytes > MOST_BYTES || self.names > MOST_NAMES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }

    fn text(&mut self, kind: u8, text: &OsStr) {
        self.sized(kind, text.len() as u64);
        self.hasher.update(text.as_bytes());
    }

    fn sized(&mut self, kind: u8, size: u64) {
        self.hasher.update(&[kind]).update(&size.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use osbc_ir::Value;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_its_content_and_a_directory_all_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let digest = |name: &str| digest(&path(name));
        fs::create_dir_all(path("a/b")).unwrap();
        fs::create_dir_all(path("c/b")).unwrap();
        for name in ["a/b/file", "c/b/file", "file"] {
            fs::write(path(name), "content").unwrap();
        }
        symlink("file", path("link")).unwrap();
        assert_eq!(digest("none"), None);
        assert!(digest("file").is_some() && digest("file") == digest("link") && digest("file") == digest("a/b/file"));
        assert!(digest("a").is_some() && digest("a") == digest("c"));
        let changes: [&dyn Fn() -> io::Result<()>; 4] = [
            &|| fs::write(path("c/b/file"), "other"),
            &|| fs::write(path("c/b/more"), ""),
            &|| symlink("x", path("c/link")),
            &|| fs::rename(path("c/b"), path("c/d")),
        ];
        let mut met = vec![digest("c")];
        for change in changes {
            change().unwrap();
            assert!(digest("c").is_some() && !met.contains(&digest("c")));
            met.push(digest("c"));
        }
    }

    #[test]
    fn only_what_stages_see_of_the_host_is_read() {
        for name in ["/proc/self/status", "/usr/../proc/self/status", "/root", "/", "/usr", "usr/bin/cat"] {
            assert_eq!(ThisHost::default().digest(name), None, "{name}");
        }
    }

    #[test]
    fn a_tool_is_found_where_stages_look_and_read_once() {
        let host = ThisHost::default();
        let cat = host.digest("cat");
        assert!(cat.is_some() && cat == ThisHost::default().digest("/usr/bin/cat"));
        assert_eq!(host.digest("no-such-tool"), None);
        assert_eq!(host.known.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_module_takes_what_it_declares_for_its_options() {
        const REQUIRES: &[Requirement] = &[
            Requirement::Tool("b"),
            Requirement::MayCall("a"),
            Requirement::ToolFor("c", |options| options["c"] == true),
            Requirement::File("/etc/d"),
            Requirement::Named(|options| options["named"].as_str().map(str::to_owned).into_iter().collect()),
            Requirement::HostTool("e"),
            Requirement::LoopDevices(|_| 1),
        ];
        let names = |options: Value| takes(REQUIRES, &options).into_iter().collect::<Vec<_>>();
        assert_eq!(names(json!({})), ["/etc/d", "a", "b"]);
        assert_eq!(names(json!({"c": true, "named": "a"})), ["/etc/d", "a", "b", "c"]);
        assert_eq!(names(json!({"c": 1, "named": "/f"})), ["/etc/d", "/f", "a", "b"]);
    }
}
