//! Unpacks the files of a package into a tree as dpkg does: what is a configuration file waits beside its place, what
//! is diverted goes elsewhere, and directories that are there stay as they are.
//!
//! Several packages are unpacked at once, so directories get their owners, modes and times at the end, from the first
//! package that has them.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use md5::{Digest, Md5};
use osbc_ir::hex;
use osbc_module_api::tree::Times;
use osbc_module_api::{Error, Tree, owners};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Entry, EntryType};

use super::archive::{Member, members};
use super::database::{self, Diversions, Overrides};
use super::filter::Filter;
use super::owners::Owners;
use super::package::Package;

/// What dpkg calls a configuration file before the package is configured.
pub(crate) const NEW: &str = ".dpkg-new";
/// As much as is written at a time.
const CHUNK: usize = 1 << 17;

/// Where packages are unpacked to, and by what rules.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    tree: &'a Tree,
    filter: &'a Filter,
    diversions: Diversions,
    overrides: Overrides,
    owners: Owners,
    /// What the links in the tree's root lead to.
    links: HashMap<String, String>,
    /// The directories that were made.
    made: Mutex<HashSet<String>>,
}

/// What came of a package.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// All its paths, in its order, as dpkg's list has them.
    pub(crate) paths: Vec<String>,
    /// Those that are no directories.
    pub(crate) files: Vec<String>,
    /// The configuration files that now wait beside their places.
    pub(crate) configuration: Vec<String>,
    /// Checksums of its files by path, where the package brings none.
    pub(crate) sums: Option<String>,
    /// Its directories, and what it says of them.
    directories: Vec<(String, Attributes)>,
}

/// Owner, mode and time of a path.
#[derive(Debug, Clone, Copy)]
struct Attributes {
    user: u32,
    group: u32,
    mode: u32,
    mtime: i64,
}

impl Attributes {
    fn times(self) -> Times {
        Times { accessed: (self.mtime, 0), modified: (self.mtime, 0) }
    }
}

/// A path without the link that its first directory may be, as where `/bin` is `/usr/bin`.
fn resolved(path: &str, links: &HashMap<String, String>) -> String {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match links.get(first) {
        Some(target) if !rest.is_empty() => format!("{target}/{rest}"),
        _ => path.to_owned(),
    }
}

/// The links in a tree's root to other directories of it.
fn links_of_root(tree: &Tree) -> Result<HashMap<String, String>, Error> {
    let mut links = HashMap::new();
    for name in tree.read_dir("/")? {
        if tree.symlink_metadata(&name)?.is_symlink() {
            let target = tree.read_link(&name)?.to_string_lossy().trim_matches('/').to_owned();
            links.insert(name.to_string_lossy().into_owned(), target);
        }
    }
    Ok(links)
}

impl<'a> Target<'a> {
    /// A tree as it is now.
    ///
    /// # Errors
    /// What dpkg and the tree know cannot be read.
    pub(crate) fn new(tree: &'a Tree, filter: &'a Filter) -> Result<Self, Error> {
        let owners = Owners::read(tree)?;
        let overrides = database::overrides(tree, &owners)?;
        let (diversions, links) = (Diversions::read(tree)?, links_of_root(tree)?);
        Ok(Self { tree, filter, diversions, overrides, owners, links, made: Mutex::default() })
    }

    /// Where what a package has at a path goes.
    pub(crate) fn place<'p>(&'p self, path: &'p str, package: &str) -> &'p str {
        self.diversions.of(path, package)
    }

    /// Sets what packages say of the directories that were made for them; of a directory in several the first one
    /// counts.
    ///
    /// # Errors
    /// A directory is gone or the process may not.
    pub(crate) fn finish<'u>(self, unpacked: impl IntoIterator<Item = &'u Unpacked>) -> Result<(), Error> {
        let mut made = self.made.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut directories = Vec::new();
        for (path, attributes) in unpacked.into_iter().flat_map(|one| &one.directories) {
            let path = resolved(path, &self.links);
            if made.remove(&path) {
                self.tree.chown(&path, Some(attributes.user), Some(attributes.group))?;
                self.tree.chmod(&path, attributes.mode)?;
                directories.push((path, attributes.times()));
            }
        }
        directories.iter().try_for_each(|(path, times)| self.tree.set_times(path, *times))
    }

    /// Unpacks a package.
    ///
    /// # Errors
    /// It is damaged, has a path that leaves the tree or something that no package may have, or does not fit what is
    /// there.
    pub(crate) fn unpack(&self, package: &Package) -> Result<Unpacked, Error> {
        let name = package.name();
        let damaged = |error: io::Error| Error::failed(format!("cannot unpack the package {name}: {error}"));
        let configuration: HashSet<&str> = package.configuration_files().collect();
        let mut unpacked = Unpacked::default();
        let mut sums = package.file("md5sums").is_none().then(String::new);
        let mut archive = package.data().map_err(damaged)?;
        for member in members(&mut archive).map_err(damaged)? {
            let Member { path, target, mut entry } = member.map_err(damaged)?;
            let path = inside(&path).map_err(damaged)?;
            let full = format!("/{path}");
            let kind = entry.header().entry_type();
            unpacked.paths.push(if path.is_empty() { "/.".to_owned() } else { full.clone() });
            if path.is_empty() {
                continue;
            }
            if kind != EntryType::Directory {
                unpacked.files.push(full.clone());
            }
            let leads_on = matches!(kind, EntryType::Directory | EntryType::Symlink);
            if self.filter.leaves_out(&full, leads_on) {
                continue;
            }
            let place = |path: &str| {
                let full = format!("/{path}");
                let new = if configuration.contains(full.as_str()) { NEW } else { "" };
                format!("{}{new}", self.place(&full, name))
            };
            let attributes = self.attributes(&entry, &full).map_err(damaged)?;
            let put = Put { target: self, path: &place(&path), attributes };
            let done = match kind {
                EntryType::Directory => {
                    unpacked.directories.push((path.clone(), attributes));
                    self.make_directories(&path)
                }
                EntryType::Symlink => put.link(&String::from_utf8_lossy(&target)),
                EntryType::Link => put.hard_link(&place(&inside(&target).map_err(damaged)?)),
                EntryType::Regular | EntryType::Continuous => put.file(&mut entry, sums.is_some()).map(|sum| {
                    if let (Some(sums), Some(sum)) = (&mut sums, sum) {
                        sums.push_str(&format!("{sum}  {path}\n"));
                    }
                }),
                other => Err(Error::failed(format!("it is of a kind that no package may have: {other:?}"))),
            };
            done.map_err(|error| Error::failed(format!("cannot unpack {full} of the package {name}: {error}")))?;
            if configuration.contains(full.as_str()) {
                unpacked.configuration.push(full);
            }
        }
        unpacked.sums = sums;
        Ok(unpacked)
    }

    /// Makes a directory unless there is one, also by way of a link, and those around it.
    fn make_directories(&self, path: &str) -> Result<(), Error> {
        if path.is_empty() || self.tree.is_dir(path)? {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_directories(parent)?;
        }
        match self.tree.create_dir(path, 0o755) {
            Ok(()) => {
                self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(resolved(path, &self.links));
                Ok(())
            }
            // Another package made it meanwhile.
            Err(_) if self.tree.is_dir(path)? => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn attributes<R: Read>(&self, entry: &Entry<R>, path: &str) -> io::Result<Attributes> {
        let header = entry.header();
        let mtime = i64::try_from(header.mtime()?).unwrap_or(0);
        if let Some(&(user, group, mode)) = self.overrides.get(path) {
            return Ok(Attributes { user, group, mode, mtime });
        }
        let number = |id: u64| u32::try_from(id).map_err(io::Error::other);
        let named = |name: Option<&str>, find: &dyn Fn(&str) -> Option<u32>| name.and_then(find);
        let user = match named(header.username().ok().flatten(), &|name| self.owners.user(name)) {
            Some(user) => user,
            None => number(header.uid()?)?,
        };
        let group = match named(header.groupname().ok().flatten(), &|name| self.owners.group(name)) {
            Some(group) => group,
            None => number(header.gid()?)?,
        };
        Ok(Attributes { user, group, mode: header.mode()? & 0o7777, mtime })
    }
}

/// A path of an archive as one inside the tree, without anything before or behind; empty for the root.
fn inside(path: &[u8]) -> io::Result<String> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let path = str::from_utf8(path).map_err(|_| invalid("it has a path that is not UTF-8".to_owned()))?;
    let words: Vec<&str> = path.split('/').filter(|word| !matches!(*word, "" | ".")).collect();
    if words.contains(&"..") {
        return Err(invalid(format!("it has a path that leaves the tree: {path}")));
    }
    if path.contains('\n') {
        return Err(invalid(format!("it has a path of two lines, which dpkg could not record: {path:?}")));
    }
    Ok(words.join("/"))
}

/// Something that is put into the tree.
struct Put<'a> {
    target: &'a Target<'a>,
    path: &'a str,
    attributes: Attributes,
}

impl Put<'_> {
    fn link(&self, target: &str) -> Result<(), Error> {
        if self.target.tree.is_dir(self.path)? {
            return Ok(());
        }
        self.anew(|| self.target.tree.symlink(target, self.path))?;
        self.target.tree.lchown(self.path, Some(self.attributes.user), Some(self.attributes.group))?;
        self.target.tree.set_times(self.path, self.attributes.times())
    }

    fn hard_link(&self, from: &str) -> Result<(), Error> {
        self.anew(|| self.target.tree.hard_link(from, self.path))
    }

    /// Writes a file, and returns its MD5 sum where that is asked for.
    fn file(&self, content: &mut impl Read, summed: bool) -> Result<Option<String>, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = self.anew(|| self.target.tree.open_file(self.path, flags, 0o600))?;
        let mut attempt = || -> io::Result<Option<String>> {
            let mut out = BufWriter::with_capacity(CHUNK, &file);
            let sum = if summed {
                let mut summing = Summing { sum: Md5::new(), out: &mut out };
                io::copy(content, &mut summing)?;
                Some(hex(&summing.sum.finalize()))
            } else {
                io::copy(content, &mut out)?;
                None
            };
            out.flush()?;
            drop(out);
            let Attributes { user, group, mode, mtime } = self.attributes;
            rustix::fs::fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(|error| owners::refused(error, Some(user), Some(group)))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
            Ok(sum)
        };
        attempt().map_err(Error::io("write", Path::new("/").join(self.path)))
    }

    /// Makes something in place of what may be there, which may be no directory.
    fn anew<T>(&self, make: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match make() {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // Packages may come without the directories around what they have.
                let (parent, _) = self.path.rsplit_once('/').unwrap_or_default();
                self.target.make_directories(parent.trim_start_matches('/'))?;
                make()
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists || is_link(&source) => {
                self.target.tree.remove_file(self.path)?;
                make()
            }
            result => result,
        }
    }
}

/// Whether an error says that there is a link.
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Sums what is written.
struct Summing<W> {
    sum: Md5,
    out: W,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.out.write(data)?;
        self.sum.update(&data[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::package::testing::packed;

    /// A package whose files are these members: names, kinds, and what links lead to.
    fn package(directory: &Path, members: &[(&str, EntryType, &str)]) -> Package {
        let archive = |members: &[(&str, EntryType, &str)]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, kind, content) in members {
                let mut header = tar::Header::new_gnu();
                // The crate's own way would refuse what is tried here.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(*kind);
                header.set_mode(if *kind == EntryType::Directory { 0o2750 } else { 0o640 });
                header.set_mtime(1_000_000_000);
                header.set_uid(rustix::process::getuid().as_raw().into());
                header.set_gid(rustix::process::getgid().as_raw().into());
                let plain = *kind == EntryType::Regular;
                header.set_size(if plain { content.len() as u64 } else { 0 });
                header.as_old_mut().linkname[..content.len().min(100)].copy_from_slice(content.as_bytes());
                header.set_cksum();
                builder.append(&header, if plain { content.as_bytes() } else { b"" }).unwrap();
            }
            builder.into_inner().unwrap()
        };
        let control = "Package: one\nVersion: 1\nArchitecture: all\n";
        let control = [("./control", EntryType::Regular, control), ("./conffiles", EntryType::Regular, "/etc/conf\n")];
        let path = directory.join("one.deb");
        let deb = packed(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &archive(&control)),
            ("data.tar", &archive(members)),
        ]);
        std::fs::write(&path, deb).unwrap();
        Package::open(&path).unwrap()
    }

    fn unpacked(
        members: &[(&str, EntryType, &str)],
        prepare: impl FnOnce(&Path),
    ) -> (tempfile::TempDir, Result<Unpacked, Error>) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        prepare(&root);
        let (tree, filter) = (Tree::open(&root).unwrap(), Filter::default());
        let target = Target::new(&tree, &filter).unwrap();
        let unpacked = target.unpack(&package(directory.path(), members));
        if let Ok(unpacked) = &unpacked {
            target.finish([unpacked]).unwrap();
        }
        (directory, unpacked)
    }

    #[test]
    fn files_links_and_directories_come_as_the_package_has_them() {
        use std::os::unix::fs::MetadataExt;
        let members = [
            ("./", EntryType::Directory, ""),
            ("./etc/", EntryType::Directory, ""),
            ("./etc/conf", EntryType::Regular, "new"),
            ("./etc/hard", EntryType::Link, "./etc/conf"),
            ("./lib/deep/er/file", EntryType::Regular, "content"),
            ("./lib/", EntryType::Directory, ""),
            ("./link", EntryType::Symlink, "/absolute"),
            ("./link", EntryType::Symlink, "/another"),
        ];
        let (directory, unpacked) = unpacked(&members, |root| {
            std::fs::create_dir_all(root.join("usr/lib")).unwrap();
            std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
            std::fs::write(root.join("link"), "in the way").unwrap();
        });
        let (root, unpacked) = (directory.path().join("tree"), unpacked.unwrap());
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(
            (read("etc/conf.dpkg-new"), read("etc/hard"), read("usr/lib/deep/er/file")),
            ("new".into(), "new".into(), "content".into())
        );
        assert_eq!(std::fs::read_link(root.join("link")).unwrap(), Path::new("/another"));
        let stat = |path: &str| std::fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!((stat("etc").mode() & 0o7777, stat("etc").mtime()), (0o2750, 1_000_000_000));
        assert_eq!((stat("usr/lib/deep/er/file").mode() & 0o7777, stat("link").mtime()), (0o640, 1_000_000_000));
        // What was there stays as it was.
        assert_ne!(stat("usr/lib").mode() & 0o7777, 0o2750);
        assert_eq!(unpacked.paths[..3], ["/.", "/etc", "/etc/conf"]);
        assert_eq!(unpacked.configuration, ["/etc/conf"]);
        assert_eq!(
            unpacked.sums.unwrap(),
            "22af645d1859cb5ca6da0c484f1f37ea  etc/conf\n9a0364b9e99bb480dd25e1f0284c8555  lib/deep/er/file\n"
        );
    }

    #[test]
    fn nothing_leaves_the_tree_and_nothing_odd_gets_in() {
        for (name, kind, content, reason) in [
            ("./../outside", EntryType::Regular, "", "it has a path that leaves the tree: ./../outside"),
            ("usr/../../outside", EntryType::Symlink, "x", "leaves the tree"),
            ("./hard", EntryType::Link, "../outside", "it has a path that leaves the tree: ../outside"),
            (
                "./null",
                EntryType::Char,
                "",
                "cannot unpack /null of the package one: it is of a kind that no package may have",
            ),
            (
                "./etc",
                EntryType::Regular,
                "",
                "cannot unpack /etc of the package one: cannot remove /etc: Is a directory",
            ),
            ("./two\nlines", EntryType::Regular, "", "a path of two lines"),
        ] {
            let (directory, unpacked) =
                unpacked(&[(name, kind, content)], |root| std::fs::create_dir(root.join("etc")).unwrap());
            let error = unpacked.map(drop).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!directory.path().join("outside").exists());
        }
        // A link that leads out leads nowhere but inside.
        let outside = tempfile::tempdir().unwrap();
        let members = [("./out/file", EntryType::Regular, "x")];
        let link = |root: &Path| std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        unpacked(&members, link).1.map(drop).unwrap_err();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
