//! Works through a tree: alone as long as it is small, with all of rayon's threads when it turns out to be large.
//!
//! Knows neither what the things are nor what is done with them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::Scope;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use crate::fs::directories::{Directories, ROOT};

/// From this much work on, what is left is shared. One is about an entry of a directory.
pub(crate) const SHARE: usize = 128;

/// Visits `first` and whatever the visits put to the list, each once; the last put is the next visited, so that what
/// waits stays short.
///
/// A visit returns how much work it was.
pub(crate) fn walk<T: Send>(first: T, visit: impl Fn(T, &mut Vec<T>) -> usize + Sync) {
    rayon::in_place_scope(|scope| go(scope, first, &visit));
}

fn go<'scope, T: Send + 'scope, V: Fn(T, &mut Vec<T>) -> usize + Sync>(
    scope: &Scope<'scope>,
    first: T,
    visit: &'scope V,
) {
    let (mut waiting, mut work) = (vec![first], 0);
    while let Some(next) = waiting.pop() {
        work += visit(next, &mut waiting);
        if work >= SHARE {
            work = 0;
            for next in waiting.drain(..) {
                scope.spawn(move |scope| go(scope, next, visit));
            }
        }
    }
}

/// An entry of a directory, as [`entries`] comes by.
pub(crate) struct Entry<'a> {
    /// The directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// Its number.
    pub(crate) within: usize,
    /// Its name there; that of the first directory of all is `.`, in itself.
    pub(crate) name: &'a CStr,
    /// For a directory its own number.
    pub(crate) number: Option<usize>,
    /// What it is, links not followed.
    pub(crate) stat: Stat,
}

/// Visits the directory `root` and all that is below it, each entry once and in no order. Returns the directories.
pub(crate) fn entries(root: &Path, visit: impl Fn(&Entry<'_>) -> io::Result<()> + Sync) -> io::Result<Directories> {
    let (failure, known) = (Mutex::new(None), Mutex::new(Directories::default()));
    let first = Arc::new(open_directory(CWD, root)?);
    let stat = rustix::fs::fstat(&first)?;
    visit(&Entry { directory: first.as_fd(), within: ROOT, name: c".", number: Some(ROOT), stat })?;
    walk((first, ROOT), |(parent, number), waiting| {
        visit_directory(&parent, number, &known, waiting, &visit).unwrap_or_else(|error| {
            let path = root.join(lock(&known).path(number));
            lock(&failure).get_or_insert(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            1
        })
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(known.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// A directory that is not opened yet, since descriptors are few: the one that it is in, and its number.
type Waiting = (Arc<OwnedFd>, usize);

/// Visits what is in a directory; the directories among that have to wait. Returns how many entries there were.
fn visit_directory(
    parent: &OwnedFd,
    within: usize,
    known: &Mutex<Directories>,
    waiting: &mut Vec<Waiting>,
    visit: &impl Fn(&Entry<'_>) -> io::Result<()>,
) -> io::Result<usize> {
    let name = if within == ROOT { c".".to_owned() } else { lock(known).name(within).to_owned() };
    let opened = Arc::new(open_directory(parent, &*name)?);
    let mut count = 0;
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        count += 1;
        let stat = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let number = is_directory.then(|| lock(known).add(within, name));
        visit(&Entry { directory: opened.as_fd(), within, name, number, stat })?;
        if let Some(number) = number {
            waiting.push((Arc::clone(&opened), number));
        }
    }
    Ok(count)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_directory(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_is_visited_once() {
        let (visits, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // The numbers below 10,000, as a tree: the children of n are 3n + 1, 3n + 2 and 3n + 3.
        walk(0usize, |number, waiting| {
            visits.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(number, Ordering::Relaxed);
            waiting.extend((1..=3).map(|child| 3 * number + child).filter(|child| *child < 10_000));
            10
        });
        assert_eq!((visits.into_inner(), sum.into_inner()), (10_000, 9_999 * 5_000));
    }
}
