//! Decides what runs next. Counts what is missing and knows indices, ranks and pools; what a task is, is its caller's
//! business.
//!
//! A task is ready when all that it needs has succeeded. Each pool's workers ask for the ready task of the highest rank
//! and say how it went. After a failure nothing more is given out, unless it is to be kept going; what needs a failed
//! task is never given out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::interrupt::Interrupt;

/// Which workers a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Those that run stages.
    Stages,
    /// Those that fetch.
    Fetches,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Who does it.
    pub(crate) pool: Pool,
    /// The higher, the sooner; among equals, the first in the list.
    pub(crate) rank: u64,
    /// The tasks that must have succeeded before.
    pub(crate) needs: Vec<usize>,
}

/// The state of all tasks.
#[derive(Debug)]
pub(crate) struct Scheduler<'a> {
    tasks: Vec<Task>,
    /// For every task, those that need it.
    needed_by: Vec<Vec<usize>>,
    keep_going: bool,
    interrupt: &'a Interrupt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// For every task, how many of its needs are not yet met.
    missing: Vec<usize>,
    ready: [BinaryHeap<(u64, Reverse<usize>)>; 2],
    running: usize,
    failed: bool,
}

/// A task that was given out. Dropped without a word it counts as failed.
#[derive(Debug)]
pub(crate) struct Ticket<'s, 'a> {
    scheduler: &'s Scheduler<'a>,
    /// The task's index.
    pub(crate) task: usize,
    succeeded: bool,
}

impl<'a> Scheduler<'a> {
    /// A schedule of tasks, none of which has begun.
    pub(crate) fn new(tasks: Vec<Task>, keep_going: bool, interrupt: &'a Interrupt) -> Self {
        let mut needed_by = vec![Vec::new(); tasks.len()];
        let mut state = State {
            missing: tasks.iter().map(|task| task.needs.len()).collect(),
            ready: Default::default(),
            running: 0,
            failed: false,
        };
        for (index, task) in tasks.iter().enumerate() {
            for &need in &task.needs {
                needed_by[need].push(index);
            }
            if task.needs.is_empty() {
                state.ready[task.pool as usize].push((task.rank, Reverse(index)));
            }
        }
        Self { tasks, needed_by, keep_going, interrupt, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next task for a worker of a pool; waits until there is one. None when there will be none any more.
    pub(crate) fn next(&self, pool: Pool) -> Option<Ticket<'_, 'a>> {
        let mut state = self.lock();
        loop {
            if self.is_stopped(&state) {
                return None;
            }
            if let Some((_, Reverse(task))) = state.ready[pool as usize].pop() {
                state.running += 1;
                return Some(Ticket { scheduler: self, task, succeeded: false });
            }
            if state.running == 0 && state.ready.iter().all(BinaryHeap::is_empty) {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether nothing more is to begin: something failed, or the user ended the build.
    pub(crate) fn stops(&self) -> bool {
        self.is_stopped(&self.lock())
    }

    fn is_stopped(&self, state: &State) -> bool {
        self.interrupt.is_raised() || (state.failed && !self.keep_going)
    }

    fn finish(&self, task: usize, succeeded: bool) {
        let mut state = self.lock();
        state.running -= 1;
        state.failed |= !succeeded;
        if succeeded {
            for &next in &self.needed_by[task] {
                state.missing[next] -= 1;
                if state.missing[next] == 0 {
                    let task = &self.tasks[next];
                    state.ready[task.pool as usize].push((task.rank, Reverse(next)));
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_, '_> {
    /// Says that the task succeeded.
    pub(crate) fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Ticket<'_, '_> {
    fn drop(&mut self) {
        self.scheduler.finish(self.task, self.succeeded);
    }
}
