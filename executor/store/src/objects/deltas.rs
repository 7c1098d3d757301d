//! Large files of which a layer keeps only the blocks that differ from a file below it.
//!
//! overlayfs copies a file whole when a byte of it changes. At the commit such a copy is compared with the file that
//! lies below, and the layer keeps a file of the same size with the changed blocks alone; the rest of it is a hole. Such
//! a tree is read with one more directory above that layer, which has the whole file: the one that the stage wrote, as
//! long as a build goes on from there, else one that is put together when it is first needed. It ends with the lease.
//!
//! A delta always goes back to a file that is there as a whole, so none needs another one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, XattrFlags};

use crate::digest::bytes;
use crate::error::StoreError;
use crate::fs::copy::{copy_attributes, copy_data};
use crate::fs::delete::remove_tree;
use crate::fs::{overlay, times};
use crate::lease::Lease;
use crate::objects::large::{BLOCK, Comparison, LargeFile, open_within};
use crate::objects::object::{Delta, ObjectMeta, ObjectRef};
use crate::objects::work::Work;

/// Smaller files are kept whole. Tests make many, which are small.
const LARGE: u64 = if cfg!(test) { 16 << 10 } else { 16 << 20 };

impl Work<'_> {
    /// Leaves out of the layer what its large files have in common with those below, and returns the deltas that its
    /// tree then has, with those of the layers below. `own` is the object that the layer becomes, `files` are its large
    /// files. It is done once, also where a commit is tried again.
    ///
    /// # Errors
    /// A file cannot be read or written; the layer then has all that it had.
    pub(crate) fn make_deltas(&self, own: &ObjectRef, files: &[LargeFile]) -> Result<Vec<Delta>, StoreError> {
        if let Some(made) = self.deltas.get() {
            return Ok(made.clone());
        }
        let (Some(below), true) = (&self.below, self.transaction.store().keeps()) else { return Ok(Vec::new()) };
        let layer = &self.upper().dir;
        let failed = |act| move |error| StoreError::io(act, layer)(error);
        let mut made = Vec::new();
        for path in files.iter().filter(|file| file.size >= LARGE).map(|file| &file.path) {
            let Some(new) = open_in(layer, path).filter(|file| !is_noted(file, overlay::METACOPY)) else { continue };
            let Some(on) = self.original(&below.deltas, path) else { continue };
            let Some(old) = open_in(&self.place_of(&on), path) else { continue };
            let path = path.clone();
            if let Some(changed) = changed_blocks(&new, &old).map_err(failed("read"))? {
                made.push(Delta { layer: own.clone(), path, on, changed });
            }
        }
        if !made.is_empty() {
            let whole = self.transaction.new_path();
            let store = self.transaction.store();
            let thinned = store.change("leave unchanged blocks out of", layer, || {
                made.iter().try_for_each(|delta| thin_out(layer, delta, &whole, &self.directory))
            });
            if let Err(error) = thinned {
                made.iter()
                    .try_for_each(|delta| put_back(layer, delta, &whole))
                    .map_err(failed("put back files of"))?;
                remove_tree(&whole).ok();
                return Err(error);
            }
            self.transaction.restored().insert(own.clone(), whole);
        }
        // A placeholder above may have its data in any of those below.
        let is_hidden = |delta: &&Delta| !below.has_placeholders && made.iter().any(|new| new.path == delta.path);
        let kept = below.deltas.iter().filter(|delta| !is_hidden(delta)).cloned();
        let all = kept.chain(made.iter().cloned()).collect();
        Ok(self.deltas.get_or_init(|| all).clone())
    }

    /// The object below that has all of the file which the layer has a changed copy of; `None` if it is not known.
    fn original(&self, deltas: &[Delta], path: &Path) -> Option<ObjectRef> {
        for lower in self.lowers.iter().rev() {
            if let Some(delta) = deltas.iter().find(|delta| delta.layer == *lower && delta.path == *path) {
                return Some(delta.on.clone());
            }
            let Some(file) = open_in(&self.place_of(lower), path) else { continue };
            if !is_noted(&file, overlay::METACOPY) {
                let is_whole = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() >= LARGE);
                return (is_whole && !is_noted(&file, overlay::DELTA)).then(|| lower.clone());
            }
        }
        None
    }

    fn place_of(&self, object: &ObjectRef) -> PathBuf {
        object.content(self.transaction.store().layout())
    }
}

impl Lease {
    /// The directory with the whole files of a layer that has deltas; put together when it is first needed.
    ///
    /// # Errors
    /// There is no room for it, or the files cannot be read.
    pub(crate) fn restore(&self, layer: &ObjectRef, deltas: &[Delta]) -> Result<PathBuf, StoreError> {
        let mut restored = self.restored();
        if let Some(known) = restored.get(layer) {
            return Ok(known.clone());
        }
        let (store, whole) = (self.store(), self.new_path());
        let place = layer.content(store.layout());
        let own = deltas.iter().filter(|delta| delta.layer == *layer);
        let made = store.change("put together the files of", &place, || {
            own.clone().try_for_each(|delta| put_together(&place, delta, &delta.on.content(store.layout()), &whole))
        });
        if let Err(error) = made {
            remove_tree(&whole).ok();
            return Err(error);
        }
        restored.insert(layer.clone(), whole.clone());
        Ok(whole)
    }

    /// Removes the whole files that no result needs which is still used.
    pub(crate) fn forget_restored(&self, used: &[Arc<ObjectMeta>]) {
        let is_used = |layer: &ObjectRef| used.iter().flat_map(|meta| &meta.deltas).any(|delta| delta.layer == *layer);
        self.restored().retain(|layer, whole| {
            let used = is_used(layer);
            if !used {
                // What cannot be removed now goes with the lease.
                remove_tree(whole).ok();
            }
            used
        });
    }
}

/// Opens a file of a layer.
fn open_in(layer: &Path, path: &Path) -> Option<File> {
    open_within(open_directory(layer).ok()?, path)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Whether a file has a note, or may have one.
fn is_noted(file: &File, name: &str) -> bool {
    overlay::has_note(file, name).unwrap_or(true)
}

/// The blocks of a file that differ from those of another; `None` if keeping them alone is not worth it.
fn changed_blocks(new: &File, old: &File) -> io::Result<Option<Vec<(u64, u64)>>> {
    let files = Comparison::new(new, old)?;
    let (own, blocks) = files.blocks()?;
    let differs = |block: &u64| Ok(files.differs(*block)?.then_some(*block));
    let changed: io::Result<Vec<Option<u64>>> = blocks.par_iter().map(differs).collect();
    let changed: Vec<u64> = changed?.into_iter().flatten().collect();
    if changed.len() > own / 2 {
        return Ok(None);
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for start in changed.into_iter().map(|block| block * BLOCK) {
        let length = BLOCK.min(files.size - start);
        match ranges.last_mut() {
            Some((first, before)) if *first + *before == start => *before += length,
            _ => ranges.push((start, length)),
        }
    }
    Ok(Some(ranges))
}

/// Copies what differs from one file to the same place of another.
fn copy_changed(from: &File, to: &File, changed: &[(u64, u64)]) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK as usize];
    for (start, length) in changed {
        let mut done = 0;
        while done < *length {
            let piece = usize::try_from(BLOCK.min(length - done)).expect("a block fits");
            from.read_exact_at(&mut buffer[..piece], start + done)?;
            to.write_all_at(&buffer[..piece], start + done)?;
            done += piece as u64;
        }
    }
    Ok(())
}

/// Puts a file with the changed blocks alone in the place of the whole one, which goes to the directory `whole`.
fn thin_out(layer: &Path, delta: &Delta, whole: &Path, scratch: &Path) -> io::Result<()> {
    let path = layer.join(&delta.path);
    let from = open_in(layer, &delta.path).ok_or(io::ErrorKind::NotFound)?;
    let stat = rustix::fs::fstat(&from)?;
    let thin = scratch.join("delta");
    let to = File::create(&thin)?;
    to.set_len(stat.st_size as u64)?;
    copy_changed(&from, &to, &delta.changed)?;
    let hash = bytes::hash(from.as_fd(), stat.st_size as u64)?;
    copy_attributes(from.as_fd(), to.as_fd(), &stat)?;
    rustix::fs::fsetxattr(&to, overlay::note(overlay::DELTA), &hash, XattrFlags::empty())?;
    make_directories(&delta.path, whole)?;
    // Both names, so that nothing is lost whatever fails.
    std::fs::hard_link(&path, whole.join(&delta.path))?;
    replace(&path, &thin)?;
    finish_directories(layer, &delta.path, whole)
}

/// Puts the whole file in its place in the layer again, if it was taken out.
fn put_back(layer: &Path, delta: &Delta, whole: &Path) -> io::Result<()> {
    match replace(&layer.join(&delta.path), &whole.join(&delta.path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Puts a file in the place of another one; the directory that it is in keeps its time.
fn replace(path: &Path, by: &Path) -> io::Result<()> {
    let around = open_directory(path.parent().unwrap_or(Path::new("/")))?;
    let before = rustix::fs::fstat(&around)?;
    std::fs::rename(by, path)?;
    Ok(rustix::fs::futimens(&around, &times::modified(&before))?)
}

/// Makes the whole file of a delta in the directory `whole`.
fn put_together(layer: &Path, delta: &Delta, on: &Path, whole: &Path) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{} is missing", delta.path.display()));
    let (thin, old) = (open_in(layer, &delta.path), open_in(on, &delta.path));
    let (thin, old) = (thin.ok_or_else(missing)?, old.ok_or_else(missing)?);
    let stat = rustix::fs::fstat(&thin)?;
    let size = stat.st_size as u64;
    make_directories(&delta.path, whole)?;
    let to = File::options().read(true).write(true).create_new(true).open(whole.join(&delta.path))?;
    copy_data(old.as_fd(), to.as_fd(), old.metadata()?.len().min(size))?;
    to.set_len(size)?;
    copy_changed(&thin, &to, &delta.changed)?;
    copy_attributes(thin.as_fd(), to.as_fd(), &stat)?;
    finish_directories(layer, &delta.path, whole)
}

/// Makes the directories that a file is in.
fn make_directories(path: &Path, whole: &Path) -> io::Result<()> {
    std::fs::create_dir_all(whole.join(path.parent().unwrap_or(Path::new(""))))
}

/// Gives the directories that a file is in, the deepest first, the attributes that they have in the layer.
fn finish_directories(layer: &Path, path: &Path, whole: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        let from = open_directory(&layer.join(directory))?;
        let stat = rustix::fs::fstat(&from)?;
        copy_attributes(from.as_fd(), open_directory(&whole.join(directory))?.as_fd(), &stat)?;
    }
    Ok(())
}
