//! Decides what runs next.
//!
//! Counts what is missing and knows indices, ranks, pools and what tasks take of the machine; what a task is, is its
//! caller's business.
//!
//! A task is ready when all that it needs has succeeded. Each pool's workers ask for the ready task of the highest rank
//! that the machine has room for beside those that run, and say how it went. If no stage is running, the next one is
//! always admitted. After a failure no more task begins, unless the build is to keep going; what needs a failed task
//! never begins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use osbc_sandbox::interrupt::Interrupt;

use crate::event::Wait;
use crate::machine::{Free, Machine, ResourceNeed};

/// How soon the machine is asked again what it has free.
const MACHINE_POLL_INTERVAL: Duration = Duration::from_millis(100);

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
    /// What it takes of the machine.
    pub(crate) takes: ResourceNeed,
}

/// The state of all tasks.
pub(crate) struct Scheduler<'a> {
    tasks: Vec<Task>,
    /// For every task, those that need it.
    needed_by: Vec<Vec<usize>>,
    keep_going: bool,
    machine: &'a dyn Machine,
    interrupt: &'a Interrupt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// For every task, how many of its needs are not yet met.
    missing: Vec<usize>,
    ready: [BinaryHeap<(u64, Reverse<usize>)>; 2],
    /// For every task that is or was ready, from when on.
    since: Vec<Option<Instant>>,
    running: usize,
    /// How many of those are stages, and what they take.
    stages: usize,
    taken: ResourceNeed,
    /// Tasks that the machine had no room for.
    put_off: HashSet<usize>,
    /// What the machine had free when it was last asked.
    free: Option<(Instant, Free)>,
    failed: bool,
}

/// A task that a worker has taken. Dropped without success it counts as failed.
pub(crate) struct Ticket<'s, 'a> {
    scheduler: &'s Scheduler<'a>,
    /// The task's index.
    pub(crate) task: usize,
    /// When all that it needs had succeeded.
    pub(crate) ready: Instant,
    /// What it has waited for since then.
    pub(crate) waited_for: Wait,
    succeeded: bool,
}

impl<'a> Scheduler<'a> {
    /// A schedule of tasks, none of which has begun.
    pub(crate) fn new(tasks: Vec<Task>, keep_going: bool, machine: &'a dyn Machine, interrupt: &'a Interrupt) -> Self {
        let mut needed_by = vec![Vec::new(); tasks.len()];
        let mut state = State {
            missing: tasks.iter().map(|task| task.needs.len()).collect(),
            ready: Default::default(),
            since: vec![None; tasks.len()],
            running: 0,
            stages: 0,
            taken: ResourceNeed::default(),
            put_off: HashSet::new(),
            free: None,
            failed: false,
        };
        for (index, task) in tasks.iter().enumerate() {
            for &need in &task.needs {
                needed_by[need].push(index);
            }
            if task.needs.is_empty() {
                state.ready[task.pool as usize].push((task.rank, Reverse(index)));
                state.since[index] = Some(Instant::now());
            }
        }
        Self { tasks, needed_by, keep_going, machine, interrupt, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next task for a worker of a pool; waits until there is one. `None` if there will be none any more.
    pub(crate) fn next(&self, pool: Pool) -> Option<Ticket<'_, 'a>> {
        let mut state = self.lock();
        loop {
            if self.is_stopped(&state) {
                return None;
            }
            if let Some(task) = self.take(&mut state, pool) {
                state.running += 1;
                if pool == Pool::Stages {
                    state.stages += 1;
                    state.taken = state.taken.plus(self.tasks[task].takes);
                }
                let ready = state.since[task].unwrap_or_else(Instant::now);
                let waited_for = if state.put_off.remove(&task) { Wait::Admission } else { Wait::Worker };
                return Some(Ticket { scheduler: self, task, ready, waited_for, succeeded: false });
            }
            if state.running == 0 && state.ready.iter().all(BinaryHeap::is_empty) {
                return None;
            }
            state = if state.ready[pool as usize].is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                // Room may also come from elsewhere.
                self.changed.wait_timeout(state, MACHINE_POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// Takes the ready task of the highest rank that there is room for.
    fn take(&self, state: &mut State, pool: Pool) -> Option<usize> {
        let mut put_off = Vec::new();
        let taken = loop {
            let Some(next) = state.ready[pool as usize].pop() else { break None };
            let Reverse(task) = next.1;
            if pool == Pool::Fetches || state.stages == 0 || self.has_room(state, self.tasks[task].takes) {
                break Some(task);
            }
            state.put_off.insert(task);
            put_off.push(next);
        };
        state.ready[pool as usize].extend(put_off);
        taken
    }

    fn has_room(&self, state: &mut State, need: ResourceNeed) -> bool {
        let free = match state.free {
            Some((asked, free)) if asked.elapsed() < MACHINE_POLL_INTERVAL => free,
            _ => {
                let free = self.machine.free();
                state.free = Some((Instant::now(), free));
                free
            }
        };
        let loop_devices = if need.loop_devices > 0 { self.machine.loop_devices() } else { None };
        need.fits(state.taken, free, loop_devices)
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
        if self.tasks[task].pool == Pool::Stages {
            state.stages -= 1;
            state.taken = state.taken.minus(self.tasks[task].takes);
        }
        state.failed |= !succeeded;
        if succeeded {
            for &next in &self.needed_by[task] {
                state.missing[next] -= 1;
                if state.missing[next] == 0 {
                    let task = &self.tasks[next];
                    state.ready[task.pool as usize].push((task.rank, Reverse(next)));
                    state.since[next] = Some(Instant::now());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::fake::FakeMachine;

    /// What happened to a task.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Moment {
        Began(usize),
        Ended(usize, bool),
    }

    /// Runs tasks by real threads; each takes a moment, and those of `failing` fail.
    fn run(tasks: &[Task], failing: &BTreeSet<usize>, keep_going: bool, jobs: usize) -> Vec<Moment> {
        let interrupt = Interrupt::new().expect("an eventfd");
        let scheduler = Scheduler::new(tasks.to_vec(), keep_going, &PLENTY, &interrupt);
        let moments = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for pool in [Pool::Stages, Pool::Fetches] {
                for _ in 0..jobs {
                    let (scheduler, moments) = (&scheduler, &moments);
                    scope.spawn(move || {
                        while let Some(ticket) = scheduler.next(pool) {
                            let (task, succeeds) = (ticket.task, !failing.contains(&ticket.task));
                            assert_eq!(tasks[task].pool, pool);
                            moments.lock().expect("no panic").push(Moment::Began(task));
                            std::thread::yield_now();
                            moments.lock().expect("no panic").push(Moment::Ended(task, succeeds));
                            if succeeds {
                                ticket.succeed();
                            }
                        }
                    });
                }
            }
        });
        moments.into_inner().expect("no panic")
    }

    /// A machine that has enough of everything.
    static PLENTY: FakeMachine = FakeMachine::plenty();

    fn task(pool: Pool, rank: u64, needs: Vec<usize>) -> Task {
        Task { pool, rank, needs, takes: ResourceNeed::default() }
    }

    fn began(moments: &[Moment]) -> Vec<usize> {
        moments.iter().filter_map(|moment| if let Moment::Began(task) = moment { Some(*task) } else { None }).collect()
    }

    fn stages(needs: &[&[usize]]) -> Vec<Task> {
        needs.iter().map(|needs| task(Pool::Stages, 0, needs.to_vec())).collect()
    }

    /// A DAG: every task needs some of those before it.
    fn dag() -> impl Strategy<Value = Vec<Task>> {
        let task = (any::<bool>(), 0..5u64, proptest::collection::vec(any::<prop::sample::Index>(), 0..4));
        proptest::collection::vec(task, 1..40).prop_map(|tasks| {
            let task = |(position, (fetch, rank, needs)): (usize, (bool, u64, Vec<prop::sample::Index>))| {
                let needs = if position == 0 { Vec::new() } else { needs };
                let mut needs: Vec<usize> = needs.iter().map(|need| need.index(position)).collect();
                needs.sort_unstable();
                needs.dedup();
                self::task(if fetch { Pool::Fetches } else { Pool::Stages }, rank, needs)
            };
            tasks.into_iter().enumerate().map(task).collect()
        })
    }

    /// Those that fail, and all that needs them.
    fn doomed(tasks: &[Task], failing: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut doomed = BTreeSet::new();
        for (index, task) in tasks.iter().enumerate() {
            if task.needs.iter().any(|need| failing.contains(need) || doomed.contains(need)) {
                doomed.insert(index);
            }
        }
        doomed
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn every_task_runs_once_after_all_that_it_needs(tasks in dag(), jobs in 1..6usize) {
            let moments = run(&tasks, &BTreeSet::new(), false, jobs);
            let mut order = began(&moments);
            for (at, moment) in moments.iter().enumerate() {
                if let Moment::Began(task) = moment {
                    for need in &tasks[*task].needs {
                        prop_assert!(moments[..at].contains(&Moment::Ended(*need, true)));
                    }
                }
            }
            order.sort_unstable();
            prop_assert_eq!(order, (0..tasks.len()).collect::<Vec<_>>());
        }

        #[test]
        fn what_needs_a_failed_task_never_runs_and_all_else_does_when_kept_going(
            tasks in dag(), failing in proptest::collection::btree_set(0..40usize, 0..5), jobs in 1..6usize
        ) {
            let mut order = began(&run(&tasks, &failing, true, jobs));
            order.sort_unstable();
            let doomed = doomed(&tasks, &failing);
            let expected: Vec<usize> = (0..tasks.len()).filter(|task| !doomed.contains(task)).collect();
            prop_assert_eq!(order, expected);
        }

        #[test]
        fn after_a_failure_no_task_is_started(
            tasks in dag(), failing in proptest::collection::btree_set(0..40usize, 1..5), width in 1..6usize
        ) {
            // By one thread that holds several tickets: what it sees is exact.
            let interrupt = Interrupt::new().expect("an eventfd");
            let scheduler = Scheduler::new(tasks.clone(), false, &PLENTY, &interrupt);
            let mut held: Vec<Ticket<'_, '_>> = Vec::new();
            loop {
                let has_ready = !scheduler.lock().ready[Pool::Stages as usize].is_empty();
                if has_ready && held.len() < width {
                    held.push(scheduler.next(Pool::Stages).expect("is ready"));
                } else if !scheduler.lock().ready[Pool::Fetches as usize].is_empty() && held.len() < width {
                    held.push(scheduler.next(Pool::Fetches).expect("is ready"));
                } else if let Some(ticket) = held.pop() {
                    if !failing.contains(&ticket.task) {
                        ticket.succeed();
                        continue;
                    }
                    drop(ticket);
                    prop_assert!(scheduler.stops());
                    for pool in [Pool::Stages, Pool::Fetches] {
                        prop_assert!(scheduler.next(pool).is_none());
                    }
                    break;
                } else {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_highest_rank_goes_first_and_among_equals_the_first() {
        let ranks = [1, 5, 3, 5];
        let tasks: Vec<Task> = ranks.iter().map(|&rank| task(Pool::Stages, rank, Vec::new())).collect();
        assert_eq!(began(&run(&tasks, &BTreeSet::new(), false, 1)), [1, 3, 2, 0]);
    }

    #[test]
    fn an_interrupt_ends_the_giving_out() {
        let interrupt = Interrupt::new().expect("an eventfd");
        let scheduler = Scheduler::new(stages(&[&[], &[]]), true, &PLENTY, &interrupt);
        let ticket = scheduler.next(Pool::Stages).expect("is ready");
        interrupt.raise();
        ticket.succeed();
        assert!(scheduler.next(Pool::Stages).is_none());
        assert!(scheduler.stops());
    }

    #[test]
    fn a_worker_that_panics_holds_nobody_up() {
        let interrupt = Interrupt::new().expect("an eventfd");
        let scheduler = Scheduler::new(stages(&[&[], &[0]]), false, &PLENTY, &interrupt);
        std::thread::scope(|scope| {
            let first = scheduler.next(Pool::Stages).expect("is ready");
            let waiting = scope.spawn(|| scheduler.next(Pool::Stages).is_none());
            std::thread::sleep(Duration::from_millis(5));
            drop(first);
            assert!(waiting.join().expect("ends"));
        });
    }

    #[test]
    fn independent_tasks_run_side_by_side() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let interrupt = Interrupt::new().expect("an eventfd");
        let scheduler = Scheduler::new(stages(&[&[], &[], &[], &[]]), false, &PLENTY, &interrupt);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(ticket) = scheduler.next(Pool::Stages) {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        while most.load(Ordering::SeqCst) < 4 {
                            std::thread::yield_now();
                        }
                        running.fetch_sub(1, Ordering::SeqCst);
                        ticket.succeed();
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 4);
    }

    #[test]
    fn what_does_not_fit_waits_while_others_overtake_it() {
        let machine = FakeMachine { memory: AtomicU64::new(1 << 30), ..FakeMachine::plenty() };
        let interrupt = Interrupt::new().expect("an eventfd");
        let large = |rank| Task {
            takes: ResourceNeed { memory: 900 << 20, loop_devices: 0 },
            ..task(Pool::Stages, rank, vec![])
        };
        let tasks = vec![large(5), large(4), task(Pool::Stages, 3, vec![])];
        let scheduler = Scheduler::new(tasks, false, &machine, &interrupt);
        let first = scheduler.next(Pool::Stages).expect("beside nothing there is always room");
        assert_eq!((first.task, first.waited_for), (0, Wait::Worker));
        machine.memory.store(1200 << 20, Ordering::SeqCst);
        let small = scheduler.next(Pool::Stages).expect("it takes nothing");
        assert_eq!(small.task, 2);
        small.succeed();
        first.succeed();
        let last = scheduler.next(Pool::Stages).expect("nothing runs beside it");
        assert_eq!((last.task, last.waited_for), (1, Wait::Admission));
        last.succeed();
        assert!(scheduler.next(Pool::Stages).is_none());
    }

    #[test]
    fn room_that_comes_from_elsewhere_is_noticed() {
        let machine = FakeMachine { memory: AtomicU64::new(0), ..FakeMachine::plenty() };
        let interrupt = Interrupt::new().expect("an eventfd");
        let scheduler = Scheduler::new(stages(&[&[], &[]]), false, &machine, &interrupt);
        let first = scheduler.next(Pool::Stages).expect("beside nothing there is always room");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| scheduler.next(Pool::Stages).map(|ticket| (ticket.task, ticket.waited_for)));
            std::thread::sleep(Duration::from_millis(5));
            machine.memory.store(u64::MAX, Ordering::SeqCst);
            assert_eq!(second.join().expect("ends"), Some((1, Wait::Admission)));
        });
        first.succeed();
    }
}
