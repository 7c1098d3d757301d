//! Joins what was scanned with the record below to the record of the whole: no entry below is read again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Timespec;

use super::scan::{Directory, Inode, Own, Scanned, What};
use super::{Entry, FORMAT, Find, Hash, Kind, Listing, TreeRecord};

/// A directory of the tree below: its path there, and its listing.
type Below = (PathBuf, Arc<Listing>);

pub(crate) fn merge(scanned: Scanned, created: Timespec, kind: Kind<'_>) -> io::Result<TreeRecord> {
    let created = (created.tv_sec, created.tv_nsec);
    let is_layer = matches!(kind, Kind::Layer(..));
    let below = directories_below(&scanned, kind)?;
    let mut finished: HashMap<&Path, Hash> = HashMap::with_capacity(scanned.len());
    let mut listings: BTreeMap<Hash, Listing> = BTreeMap::new();
    // The deepest first, so that a directory's directories are finished before it.
    for (path, directory) in scanned.iter().rev() {
        let below = below.get(path.as_path()).map(|(_, listing)| listing.as_ref());
        let mut entries: BTreeMap<&[u8], Entry> = BTreeMap::new();
        if is_layer && let Some(below) = below {
            entries.extend(below.entries.iter().map(|entry| (entry.name.as_slice(), entry.clone())));
        }
        for found in &directory.entries {
            let name = found.name.as_slice();
            let before = below.and_then(|below| below.get(name));
            let entry = match &found.what {
                What::Gone => None,
                What::Directory => {
                    let path = path.join(OsStr::from_bytes(name));
                    let inner = finished.get(path.as_path()).copied();
                    Some(entry(name, &scanned[&path].own, inner, before, created))
                }
                What::Other(own, _) => Some(entry(name, own, None, before, created)),
            };
            match entry {
                Some(entry) => entries.insert(name, entry),
                None => entries.remove(name),
            };
        }
        let listing = Listing { entries: entries.into_values().collect() };
        let hash = listing.hash();
        finished.insert(path, hash);
        // What the tree below has already need not be kept again, but for the times that hashes leave out.
        if !is_layer || below.is_none_or(|below| *below != listing) {
            listings.insert(hash, listing);
        }
    }
    let root_before = kind.below().map(|(record, _)| &record.root);
    let inner = finished.get(Path::new("")).copied();
    let root = entry(b"", &scanned[Path::new("")].own, inner, root_before, created);
    let links = links(&scanned, &below, kind);
    Ok(TreeRecord { format: FORMAT, root, links, listings: listings.into_values().collect() })
}

/// An entry with its time as it counts: "now" if it was written by this run, or was so by the run that it comes from.
fn entry(name: &[u8], own: &Own, directory: Option<Hash>, before: Option<&Entry>, created: (i64, i64)) -> Entry {
    let now = own.modified >= created || before.is_some_and(|before| before.now == Some(own.modified));
    Entry { name: name.to_vec(), own: own.hash(now), directory, now: now.then_some(own.modified) }
}

/// For the directories that have one, the directory of the tree below that they continue.
fn directories_below<'s>(scanned: &'s Scanned, kind: Kind<'_>) -> io::Result<HashMap<&'s Path, Below>> {
    let mut below: HashMap<&Path, Below> = HashMap::new();
    let Some((record, find)) = kind.below() else { return Ok(below) };
    let root = listing(record.root.directory.as_ref(), find)?;
    // Parents first.
    for (path, directory) in scanned {
        let continued = match (path.file_name(), path.parent()) {
            (Some(name), Some(parent)) if !directory.opaque => {
                continued(directory, name, below.get(parent), &root, find)?
            }
            (Some(_), _) => None,
            (None, _) => Some((PathBuf::new(), Arc::clone(&root))),
        };
        if let Some(continued) = continued {
            below.insert(path, continued);
        }
    }
    Ok(below)
}

fn continued(
    directory: &Directory,
    name: &OsStr,
    parent: Option<&Below>,
    root: &Arc<Listing>,
    find: &Find<'_>,
) -> io::Result<Option<Below>> {
    match &directory.redirect {
        Some(redirect) if redirect.is_absolute() => {
            let mut place = (PathBuf::new(), Arc::clone(root));
            for component in redirect.components() {
                let Component::Normal(name) = component else { continue };
                let Some(next) = child(&place, name, find)? else { return Ok(None) };
                place = next;
            }
            Ok(Some(place))
        }
        redirect => {
            let name = redirect.as_ref().map_or(name, |redirect| redirect.as_os_str());
            parent.map_or(Ok(None), |parent| child(parent, name, find))
        }
    }
}

/// The directory of this name in a directory below; `None` if there is none.
fn child((path, inside): &Below, name: &OsStr, find: &Find<'_>) -> io::Result<Option<Below>> {
    let Some(entry) = inside.get(name.as_bytes()).filter(|entry| entry.directory.is_some()) else { return Ok(None) };
    Ok(Some((path.join(name), listing(entry.directory.as_ref(), find)?)))
}

fn listing(hash: Option<&Hash>, find: &Find<'_>) -> io::Result<Arc<Listing>> {
    hash.and_then(find)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "a directory's listing is missing in the records below"))
}

/// The names that are one file: those of the tree below that are still to be seen, and those that were scanned.
fn links(scanned: &Scanned, below: &HashMap<&Path, Below>, kind: Kind<'_>) -> Vec<Vec<Vec<u8>>> {
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    if let Kind::Layer(record, _) = kind
        && !record.links.is_empty()
    {
        let now_at: HashMap<&Path, &Path> = below.iter().map(|(path, (below, _))| (below.as_path(), *path)).collect();
        let still_there = |name: &Vec<u8>| moved(Path::new(OsStr::from_bytes(name)), &now_at, scanned);
        groups.extend(record.links.iter().map(|names| names.iter().filter_map(still_there).collect()));
    }
    let mut by_file: HashMap<Inode, Vec<Vec<u8>>> = HashMap::new();
    for (path, directory) in scanned {
        for found in &directory.entries {
            if let What::Other(_, Some(inode)) = found.what {
                let name = path.join(OsStr::from_bytes(&found.name));
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
fn moved(name: &Path, now_at: &HashMap<&Path, &Path>, scanned: &Scanned) -> Option<Vec<u8>> {
    let directory = name.ancestors().skip(1).find(|directory| now_at.contains_key(directory))?;
    let rest = name.strip_prefix(directory).ok()?;
    let first = rest.components().next()?.as_os_str().as_bytes();
    let now = now_at[directory];
    let hidden = scanned[now].entries.iter().any(|found| found.name == first);
    (!hidden).then(|| now.join(rest).as_os_str().as_bytes().to_vec())
}
