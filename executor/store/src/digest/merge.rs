//! Joins what was scanned with the record below to the record of the whole: no entry below is read again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::Timespec;

use super::scan::{Directory, Inode, Own, Placeholder, Scanned, What};
use super::{Entry, FORMAT, Find, Hash, Kind, Listing, TreeRecord};
use crate::fs::directories::ROOT;

pub(crate) fn merge(scanned: &Scanned, created: Timespec, kind: Kind<'_>) -> io::Result<TreeRecord> {
    let created = (created.tv_sec, created.tv_nsec);
    let is_layer = matches!(kind, Kind::Layer(..));
    let mut below = kind.below().map(|(record, find)| Below::new(record, find)).transpose()?;
    let continued = below.as_mut().map_or(Ok(Vec::new()), |below| below.continued(scanned))?;
    let continued = |place: usize| continued.get(place).copied().flatten();
    let directories = scanned.directories();
    let mut finished: Vec<Option<Hash>> = vec![None; directories.len()];
    let mut listings: BTreeMap<Hash, Listing> = BTreeMap::new();
    // The last first, so that a directory's directories are finished before it.
    for (place, directory) in directories.iter().enumerate().rev() {
        let at = continued(place);
        let before: Option<Arc<Listing>> = below.as_ref().zip(at).map(|(below, at)| Arc::clone(&below.known[at]));
        let before = before.as_deref();
        let mut entries: BTreeMap<&[u8], Entry> = BTreeMap::new();
        if is_layer && let Some(before) = before {
            entries.extend(before.entries.iter().map(|entry| (entry.name.as_slice(), entry.clone())));
        }
        for found in &directory.entries {
            let name = found.name.as_slice();
            let before = before.and_then(|before| before.get(name));
            let made = |own: &Own| entry(name, own, before, created);
            let entry = match &found.what {
                What::Gone => None,
                What::Directory(inner) => Some(Entry { directory: finished[*inner], ..made(&directories[*inner].own) }),
                What::Placeholder(placeholder, _) => {
                    let content = below.as_mut().map_or(Ok(None), |below| below.content(at, name, placeholder))?;
                    let content = content.ok_or_else(|| missing(&scanned.path(place).join(OsStr::from_bytes(name))))?;
                    Some(Entry { content: Some(content), ..made(&placeholder.with(&content)) })
                }
                What::Delta(_, whole) => Some(Entry { content: Some(whole.1), ..made(&whole.0) }),
                What::Other(own, content, _) => Some(Entry { content: *content, ..made(own) }),
            };
            match entry {
                Some(entry) => entries.insert(name, entry),
                None => entries.remove(name),
            };
        }
        let listing = Listing { entries: entries.into_values().collect() };
        let hash = listing.hash();
        finished[place] = Some(hash);
        // What the tree below has already need not be kept again, but for the times that hashes leave out.
        if !is_layer || before.is_none_or(|before| *before != listing) {
            listings.insert(hash, listing);
        }
    }
    let root_before = kind.below().map(|(record, _)| &record.root);
    let root = Entry { directory: finished[ROOT], ..entry(b"", &directories[ROOT].own, root_before, created) };
    let links = links(scanned, below.as_ref().filter(|_| is_layer), &continued, kind);
    Ok(TreeRecord { format: FORMAT, root, links, listings: listings.into_values().collect() })
}

/// An entry with its time as it counts: "now" if it was written by this run, or was so by the run that it comes from.
fn entry(name: &[u8], own: &Own, before: Option<&Entry>, created: (i64, i64)) -> Entry {
    let now = own.modified >= created || before.is_some_and(|before| before.now == Some(own.modified));
    let now_at = now.then_some(own.modified);
    Entry { name: name.to_vec(), own: own.hash(now), directory: None, content: None, now: now_at }
}

fn missing(path: &Path) -> io::Error {
    let text = format!("{}: the file with its data is missing in the records below", path.display());
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// The tree below, as far as it was looked at.
struct Below<'a> {
    find: &'a Find<'a>,
    /// The root first.
    known: Vec<Arc<Listing>>,
    /// The directories that a directory has, by its place in `known` and their name.
    children: HashMap<(usize, Vec<u8>), usize>,
}

impl<'a> Below<'a> {
    fn new(record: &TreeRecord, find: &'a Find<'a>) -> io::Result<Self> {
        let root = listing(record.root.directory.as_ref(), find)?;
        Ok(Self { find, known: vec![root], children: HashMap::new() })
    }

    /// For each directory, by its place, the directory of the tree below that it continues.
    fn continued(&mut self, scanned: &Scanned) -> io::Result<Vec<Option<usize>>> {
        let mut all: Vec<Option<usize>> = Vec::with_capacity(scanned.directories().len());
        // Parents first.
        for (place, directory) in scanned.directories().iter().enumerate() {
            let continued = match place {
                ROOT => Some(ROOT),
                _ if directory.opaque => None,
                _ => self.continues(directory, all[directory.parent])?,
            };
            all.push(continued);
        }
        Ok(all)
    }

    fn continues(&mut self, directory: &Directory, parent: Option<usize>) -> io::Result<Option<usize>> {
        match &directory.redirect {
            Some(redirect) if redirect.is_absolute() => self.directory(redirect),
            redirect => {
                let name =
                    redirect.as_ref().map_or(directory.name.as_slice(), |redirect| redirect.as_os_str().as_bytes());
                parent.map_or(Ok(None), |parent| self.child(parent, name))
            }
        }
    }

    /// The content of the file that a placeholder named `name` in a directory stands for, which continues the directory
    /// `parent` of the tree below; `None` if there is none.
    fn content(&mut self, parent: Option<usize>, name: &[u8], placeholder: &Placeholder) -> io::Result<Option<Hash>> {
        let (directory, name) = match &placeholder.redirect {
            Some(redirect) if redirect.is_absolute() => {
                let directory = redirect.parent().unwrap_or(Path::new("/"));
                (self.directory(directory)?, redirect.file_name().unwrap_or_default().as_bytes())
            }
            Some(redirect) => (parent, redirect.as_os_str().as_bytes()),
            None => (parent, name),
        };
        Ok(directory.and_then(|directory| self.known[directory].get(name)?.content))
    }

    /// The directory of this absolute path; `None` if there is none.
    fn directory(&mut self, path: &Path) -> io::Result<Option<usize>> {
        let mut at = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Some(next) = self.child(at, name.as_bytes())? else { return Ok(None) };
            at = next;
        }
        Ok(Some(at))
    }

    /// The directory of this name in a directory; `None` if there is none.
    fn child(&mut self, directory: usize, name: &[u8]) -> io::Result<Option<usize>> {
        if let Some(known) = self.children.get(&(directory, name.to_vec())) {
            return Ok(Some(*known));
        }
        let entry = self.known[directory].get(name).filter(|entry| entry.directory.is_some());
        let Some(entry) = entry else { return Ok(None) };
        let listing = listing(entry.directory.as_ref(), self.find)?;
        self.known.push(listing);
        let place = self.known.len() - 1;
        self.children.insert((directory, name.to_vec()), place);
        Ok(Some(place))
    }
}

fn listing(hash: Option<&Hash>, find: &Find<'_>) -> io::Result<Arc<Listing>> {
    hash.and_then(find)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "a directory's listing is missing in the records below"))
}

/// The names that are one file: those of the tree below that are still to be seen, and those that were scanned.
fn links(
    scanned: &Scanned,
    below: Option<&Below<'_>>,
    continued: &dyn Fn(usize) -> Option<usize>,
    kind: Kind<'_>,
) -> Vec<Vec<Vec<u8>>> {
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    if let (Kind::Layer(record, _), Some(below)) = (kind, below)
        && !record.links.is_empty()
    {
        let places = 0..scanned.directories().len();
        let now_at: HashMap<usize, usize> = places.filter_map(|place| Some((continued(place)?, place))).collect();
        let still_there = |name: &Vec<u8>| moved(Path::new(OsStr::from_bytes(name)), below, &now_at, scanned);
        groups.extend(record.links.iter().map(|names| names.iter().filter_map(still_there).collect()));
    }
    let mut by_file: HashMap<Inode, Vec<Vec<u8>>> = HashMap::new();
    for (place, directory) in scanned.directories().iter().enumerate() {
        for found in &directory.entries {
            if let What::Other(_, _, Some(inode)) | What::Placeholder(_, Some(inode)) = found.what {
                let name = scanned.path(place).join(OsStr::from_bytes(&found.name));
                by_file.entry(inode).or_default().push(name.as_os_str().as_bytes().to_vec());
            }
        }
    }
    groups.extend(by_file.into_values());
    groups.retain(|names| names.len() > 1);
    for names in &mut groups {
        names.sort_unstable();
    }
    groups.sort_unstable();
    groups
}

/// Where an entry of the tree below is to be seen now; `None` if the layer hides it.
fn moved(name: &Path, below: &Below<'_>, now_at: &HashMap<usize, usize>, scanned: &Scanned) -> Option<Vec<u8>> {
    // The last directory on the way that the layer continues, and what follows.
    let (mut at, mut rest) = (Some(ROOT), name.components());
    let mut last = (*now_at.get(&ROOT)?, name);
    while let (Some(directory), Some(next)) = (at, rest.next()) {
        at = below.children.get(&(directory, next.as_os_str().as_bytes().to_vec())).copied();
        if let Some(now) = at.and_then(|at| now_at.get(&at)) {
            last = (*now, rest.as_path());
        }
    }
    let (now, rest) = last;
    let first = rest.components().next()?.as_os_str().as_bytes();
    let hidden = scanned.directories()[now].entries.binary_search_by(|found| found.name.as_slice().cmp(first)).is_ok();
    (!hidden).then(|| scanned.path(now).join(rest).as_os_str().as_bytes().to_vec())
}
