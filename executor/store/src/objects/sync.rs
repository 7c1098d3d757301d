//! Makes committed objects durable behind the build's back: one sync of the file system for all that were committed
//! since the last one, then a mark in each.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use osbc_ir::StageId;
use osbc_module_api::threads;
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::StoreError;
use crate::fs::regular;
use crate::objects::layout::DURABLE;
use crate::store::Store;

/// For how long results are gathered before the disk is synced.
const COALESCE_DELAY: Duration = Duration::from_secs(2);

/// The thread that syncs; started with the first object.
#[derive(Debug)]
pub(crate) struct Syncer {
    store: Store,
    /// Opened before anything is written in the transaction: the kernel reports what it could not write back only to
    /// processes that had the file system open by then.
    objects: Arc<OwnedFd>,
    running: Mutex<Option<Running>>,
}

/// What is to be made durable, and who does it.
#[derive(Debug)]
struct Running {
    appeared: Sender<New>,
    receiver: Receiver<New>,
    /// `None` where the system has no thread to give: then all of it is done in the end.
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

/// What has just appeared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum New {
    /// An object, which gets its mark.
    Object(StageId),
    /// The name of another object.
    Alias,
}

impl Syncer {
    /// Returns one for a transaction that is about to begin.
    ///
    /// # Errors
    /// The directory of objects cannot be opened.
    pub(crate) fn new(store: Store) -> Result<Self, StoreError> {
        let path = store.layout().objects();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let objects = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(StoreError::io("open", &path))?;
        Ok(Self { store, objects: Arc::new(objects), running: Mutex::default() })
    }

    /// Notes what has just appeared.
    pub(crate) fn add(&self, new: New) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_with(|| {
            let (appeared, receiver) = crossbeam_channel::unbounded();
            let (store, objects, theirs) = (self.store.clone(), Arc::clone(&self.objects), receiver.clone());
            let thread = threads::spawn(move || run(&store, &objects, &theirs)).ok();
            Running { appeared, receiver, thread }
        });
        // The thread ends early only with an error, which `settle` gives.
        running.appeared.send(new).ok();
    }

    /// Waits until all that was noted so far is on the disk, and so are the marks that say so.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { appeared, receiver, thread }) = running else { return Ok(()) };
        drop(appeared);
        match thread {
            Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => run(&self.store, &self.objects, &receiver),
        }
    }
}

/// Gathers until somebody has waited long enough or nothing more comes, then syncs; again, until the other end is gone.
fn run(store: &Store, objects: &OwnedFd, appeared: &Receiver<New>) -> Result<(), StoreError> {
    while let Ok(first) = appeared.recv() {
        let mut batch = vec![first];
        let until = Instant::now() + COALESCE_DELAY;
        while let Ok(new) = appeared.recv_deadline(until) {
            batch.push(new);
        }
        make_durable(store, objects, &batch)?;
    }
    // The marks: a file system without other changes has little to do for them.
    sync(store, objects)
}

fn make_durable(store: &Store, objects: &OwnedFd, batch: &[New]) -> Result<(), StoreError> {
    let ids = || {
        batch.iter().filter_map(|new| match new {
            New::Object(id) => Some(*id),
            New::Alias => None,
        })
    };
    if let Err(error) = sync(store, objects) {
        for id in ids() {
            // What the disk refused may be part of any of them. One that takes no more changes keeps them in their
            // places, without a mark.
            store.set_aside(id).ok();
        }
        return Err(error);
    }
    for id in ids() {
        let mark = store.layout().object(id).join(DURABLE);
        store.change("write", &mark, || regular::write(&mark, ""))?;
    }
    Ok(())
}

fn sync(store: &Store, objects: &OwnedFd) -> Result<(), StoreError> {
    let path = store.layout().objects();
    store.change("write to the disk what is in", &path, || Ok(rustix::fs::syncfs(objects)?))
}
