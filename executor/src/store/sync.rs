//! Makes sealed objects durable behind the build's back: one sync of the file system for all that were sealed since the
//! last one, then a mark in each.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use osbc_ir::StageId;
use rustix::fs::{CWD, Mode, OFlags};

use super::Store;
use super::error::StoreError;
use super::layout::DURABLE;

/// For how long results are gathered before the disk is synced.
const GATHER: Duration = Duration::from_secs(2);

/// The thread that syncs; started with the first object.
#[derive(Debug)]
pub(super) struct Syncer {
    store: Store,
    running: Mutex<Option<Running>>,
}

/// The way to the thread, and what will come of it.
type Running = (Sender<StageId>, JoinHandle<Result<(), StoreError>>);

impl Syncer {
    pub(super) fn new(store: Store) -> Self {
        Self { store, running: Mutex::default() }
    }

    /// Notes an object that has just appeared.
    pub(super) fn add(&self, id: StageId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, _) = running.get_or_insert_with(|| {
            let (sender, receiver) = crossbeam_channel::unbounded();
            let store = self.store.clone();
            (sender, std::thread::spawn(move || run(&store, &receiver)))
        });
        // The thread ends early only with an error, which `settle` gives.
        sender.send(id).ok();
    }

    /// Waits until all objects noted so far are durable.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, thread)) = running else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Gathers until somebody has waited long enough or nothing more comes, then syncs; again, until the other end is gone.
fn run(store: &Store, objects: &Receiver<StageId>) -> Result<(), StoreError> {
    while let Ok(first) = objects.recv() {
        let mut batch = vec![first];
        let until = Instant::now() + GATHER;
        let ended = loop {
            match objects.recv_deadline(until) {
                Ok(id) => batch.push(id),
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        make_durable(store, &batch)?;
        if ended {
            break;
        }
    }
    Ok(())
}

fn make_durable(store: &Store, batch: &[StageId]) -> Result<(), StoreError> {
    let path = store.layout().objects();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(StoreError::io("open", &path))?;
    if let Err(error) = store.change("write to the disk what is in", &path, || Ok(rustix::fs::syncfs(&folder)?)) {
        // What the disk refused may be part of any of them.
        for &id in batch {
            store.set_aside(id)?;
        }
        return Err(error);
    }
    for &id in batch {
        let mark = store.layout().object(id).join(DURABLE);
        store.change("write", &mark, || std::fs::File::create(&mark).map(drop))?;
    }
    Ok(())
}
