//! Eviction: what nobody holds goes, least valuable first, when the store passes its size limit or the file system runs
//! out of room.
//!
//! The first to go are the parts of items that nobody goes on with at the moment: they may never become anything.
//!
//! An object is worth the less the longer it was not used, the more it takes, and the quicker it is built again. One
//! that others lie on stays as long as they do; so an object that alone keeps others there is weighed together with
//! them.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic;
use std::time::{Duration, SystemTime};

use osbc_ir::{Plan, StageId};
use rustix::io::Errno;

use crate::error::{StoreError, free_space};
use crate::fs::delete::remove_tree;
use crate::fs::lock;
use crate::lease::own_new_directory;
use crate::reclaim::inventory::{Inventory, holds_item, holds_object};
use crate::reclaim::size;
use crate::store::{Limit, Store};

/// The part of the file system that a store may take by default, as a divisor.
const SHARE: u64 = 10;
/// What is left free of the file system: this part of it, as a divisor, but no more than [`FLOOR_MAX`].
const FLOOR_SHARE: u64 = 20;
/// The most that is left free of the file system.
const FLOOR_MAX: u64 = 2 << 30;
/// What an eviction frees at least when a write found no room: the next one would find none again.
const AT_LEAST: u64 = 64 << 20;
/// What an item is taken to come in with, in bytes a second.
const DOWNLOAD: u64 = 10_000_000;

/// What an eviction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// How many results went.
    pub objects: usize,
    /// How many fetched items went.
    pub items: usize,
    /// How many parts of items went that were fetched so far.
    pub parts: usize,
    /// How many things went that were of no use.
    pub useless: usize,
    /// What all of it took.
    pub bytes: u64,
    /// What the store takes now.
    pub left: u64,
}

impl Store {
    /// How many bytes the store may take; `None` if it may take all.
    pub fn limit(&self) -> Option<u64> {
        match self.shared.settings.limit {
            Limit::Share => Some(self.file_system().0 / SHARE),
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Unlimited => None,
        }
    }

    /// How many bytes it takes, where that is known without counting.
    pub fn usage(&self) -> Option<u64> {
        size::read(&self.layout().usage())
    }

    /// Evicts until the store is within its limit and the file system has its floor of free room, and removes what is
    /// damaged, of no use or only a part.
    ///
    /// # Errors
    /// The store cannot be read or written to.
    pub fn gc(&self) -> Result<Evicted, StoreError> {
        remove_tree(&self.layout().damaged()).map_err(StoreError::io("remove", self.layout().damaged()))?;
        self.evict(0, self.limit(), true)
    }

    /// The same where `need` more bytes are to be written.
    ///
    /// # Errors
    /// As [`Store::gc`].
    pub fn make_room(&self, need: u64) -> Result<Evicted, StoreError> {
        self.evict(need, self.limit(), false)
    }

    /// Makes room for what a plan is expected to write, by how much its stages wrote the last time. Returns what it
    /// needs and what there is, if that is less.
    ///
    /// # Errors
    /// The store cannot be read or written to.
    pub fn make_room_for(&self, plan: &Plan) -> Result<Option<(u64, u64)>, StoreError> {
        let history = self.history()?;
        let stages = plan.segments.iter().filter_map(|segment| plan.graph.stage_node(*segment.steps.last()?));
        let stages: u64 =
            stages.filter_map(|stage| history.bytes(stage.id, &plan.graph.stage(stage).1.module.name)).sum();
        let items = plan.fetches.iter().filter_map(|node| plan.graph.item_node(*node));
        let items: u64 = items.filter_map(|item| plan.graph.item(item).1.size).sum();
        let need = stages + items;
        let (size, free) = self.file_system();
        let over = self.limit().is_some_and(|limit| self.usage().is_none_or(|total| total > limit));
        if over || free < need + floor(size) {
            self.make_room(need)?;
        }
        let have = self.file_system().1;
        Ok((have < need).then_some((need, have)))
    }

    /// Evicts after a stage found no room; says whether that freed any.
    pub fn make_some_room(&self) -> bool {
        self.make_room(AT_LEAST).is_ok_and(|evicted| evicted.bytes > 0)
    }

    /// The size of the file system that the store is on, and what is free of it.
    pub fn file_system(&self) -> (u64, u64) {
        let size = rustix::fs::statvfs(self.path()).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
        (size, free_space(self.path()))
    }

    /// Does something, and once more after an eviction if there was no room for it.
    pub(crate) fn with_room<T>(&self, act: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match act() {
            Err(error) if error.is_full() => {
                let need = if let StoreError::NoSpace { need, .. } = error { need } else { None };
                let evicted = self.make_room(need.unwrap_or(0).max(AT_LEAST));
                if evicted.is_ok_and(|evicted| evicted.bytes > 0) { act() } else { Err(error) }
            }
            other => other,
        }
    }

    /// Evicts when the store has grown beyond its limit.
    ///
    /// What cannot be done now is tried again by the next one to add something, but not before there is more to win.
    pub(crate) fn keep_within_limit(&self) {
        let Some(limit) = self.limit() else { return };
        let again = &self.shared.evict_above;
        let total = self.usage().unwrap_or(u64::MAX);
        if total <= limit.max(again.load(atomic::Ordering::Relaxed)) {
            return;
        }
        // A tenth less than allowed, so that it is some time until the next one.
        if let Ok(evicted) = self.evict(0, Some(limit - limit / 10), false) {
            let next = if evicted.left > limit { evicted.left.saturating_add(limit / 10) } else { 0 };
            again.store(next, atomic::Ordering::Relaxed);
        }
    }

    /// Evicts as much as it takes, and with `all_parts` every part that nobody goes on with.
    fn evict(&self, need: u64, limit: Option<u64>, all_parts: bool) -> Result<Evicted, StoreError> {
        let (directory, _owner) = own_new_directory(self)?;
        let mut inventory = self.inventory()?;
        let evicted = {
            // Nothing is leased, appears or is evicted by others as long as this is held.
            let _alone = self.alone()?;
            inventory.renew(self)?;
            let (held, _) = self.held()?;
            let total = inventory.bytes();
            let (size, free) = self.file_system();
            let over = limit.map_or(0, |limit| total.saturating_sub(limit));
            let mut goal = over.max((floor(size) + need).saturating_sub(free));
            let mut evicted = Evicted::default();
            for (number, path) in inventory.useless.iter().enumerate() {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                if !name.is_some_and(|id| holds_object(&held, id)) {
                    take(path, &directory.join(format!("useless-{number}")))?;
                    evicted.useless += 1;
                }
            }
            for part in &inventory.parts {
                if (all_parts || goal > 0)
                    && let Ok(Some(_owner)) = lock::own_existing(&part.path)
                {
                    take(&part.path, &directory.join(format!("part-{}", evicted.parts)))?;
                    evicted.parts += 1;
                    evicted.bytes += part.bytes;
                    goal = goal.saturating_sub(part.bytes);
                }
            }
            let mut aliases: HashMap<StageId, Vec<StageId>> = HashMap::new();
            for (alias, target) in &inventory.aliases {
                aliases.entry(*target).or_default().push(*alias);
            }
            let mut candidates = Candidates::new(&inventory, &held);
            while goal > 0
                && let Some(what) = candidates.pop()
            {
                let (path, bytes) = match what {
                    Candidate::Object(id) => {
                        evicted.objects += 1;
                        // Without it they are nothing; who holds one of them holds it, too.
                        for alias in aliases.get(&id).into_iter().flatten() {
                            take(&self.layout().object(*alias), &directory.join(format!("alias-{alias}")))?;
                        }
                        (self.layout().object(id), inventory.objects[&id].bytes)
                    }
                    Candidate::Item(index) => {
                        let item = &inventory.items[index];
                        evicted.items += 1;
                        self.forget_item(&item.key);
                        (item.path.clone(), item.bytes)
                    }
                };
                take(&path, &directory.join((evicted.objects + evicted.items).to_string()))?;
                evicted.bytes += bytes;
                goal = goal.saturating_sub(bytes);
            }
            evicted.left = total - evicted.bytes;
            let path = self.layout().usage();
            self.change("write", &path, || size::set(&path, evicted.left))?;
            evicted
        };
        remove_tree(&directory).map_err(StoreError::io("remove", &directory))?;
        Ok(evicted)
    }
}

/// Moves something out of the way; what is gone already need not be.
fn take(path: &Path, to: &PathBuf) -> Result<(), StoreError> {
    match rustix::fs::rename(path, to) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(StoreError::io("evict", path)(error)),
    }
}

/// What is left free of a file system of that size.
fn floor(size: u64) -> u64 {
    (size / FLOOR_SHARE).min(FLOOR_MAX)
}

/// Something that can be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    Object(StageId),
    /// By its place in the inventory.
    Item(usize),
}

/// What can be evicted, least valuable first. Objects that others lie on come up when those are gone.
struct Candidates<'a> {
    inventory: &'a Inventory,
    now: SystemTime,
    /// The objects that are held, and those below them.
    held: HashSet<StageId>,
    /// How many objects lie directly on one.
    load: HashMap<StageId, usize>,
    heap: BinaryHeap<Weighed>,
}

/// A candidate with how little it is worth.
struct Weighed {
    worthless: f64,
    what: Candidate,
}

impl Ord for Weighed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.worthless.total_cmp(&other.worthless).then_with(|| self.what.cmp(&other.what))
    }
}

impl PartialOrd for Weighed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Weighed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Weighed {}

impl<'a> Candidates<'a> {
    fn new(inventory: &'a Inventory, lines: &HashSet<String>) -> Self {
        let holders = inventory.objects.values().filter(|kept| holds_object(lines, kept.meta.id));
        let held =
            holders.flat_map(|kept| kept.meta.lowers.iter().map(|lower| lower.id).chain([kept.meta.id])).collect();
        let mut load: HashMap<StageId, usize> = HashMap::new();
        for below in inventory.objects.values().filter_map(|kept| inventory.below(&kept.meta)) {
            *load.entry(below).or_default() += 1;
        }
        let mut candidates = Self { inventory, now: SystemTime::now(), held, load, heap: BinaryHeap::new() };
        for &id in inventory.objects.keys() {
            candidates.offer(id);
        }
        for (index, item) in inventory.items.iter().enumerate().filter(|(_, item)| !holds_item(lines, item)) {
            let cost = Duration::from_millis(300 + item.bytes * 1000 / DOWNLOAD);
            let worthless = worthless(candidates.age(item.used), item.bytes, cost);
            candidates.heap.push(Weighed { worthless, what: Candidate::Item(index) });
        }
        candidates
    }

    fn pop(&mut self) -> Option<Candidate> {
        let what = self.heap.pop()?.what;
        if let Candidate::Object(id) = what
            && let Some(below) = self.inventory.below(&self.inventory.objects[&id].meta)
        {
            *self.load.entry(below).or_insert(1) -= 1;
            self.offer(below);
        }
        Some(what)
    }

    /// Puts an object up, unless somebody needs it.
    fn offer(&mut self, id: StageId) {
        if !self.is_free(id, 0) {
            return;
        }
        let kept = &self.inventory.objects[&id];
        let (mut bytes, mut cost) = (kept.bytes, kept.meta.duration());
        let mut next = self.inventory.below(&kept.meta);
        while let Some(below) = next.filter(|below| self.is_free(*below, 1)) {
            let below = &self.inventory.objects[&below];
            bytes += below.bytes;
            cost += below.meta.duration();
            next = self.inventory.below(&below.meta);
        }
        let worthless = worthless(self.age(kept.used), bytes, cost);
        self.heap.push(Weighed { worthless, what: Candidate::Object(id) });
    }

    /// Whether nobody holds an object, and no more others than that lie on it.
    ///
    /// One that is only good to lie on, since its description is damaged, goes as useless later.
    fn is_free(&self, id: StageId, load: usize) -> bool {
        self.inventory.objects.contains_key(&id)
            && !self.held.contains(&id)
            && self.load.get(&id).copied().unwrap_or(0) <= load
    }

    fn age(&self, used: SystemTime) -> Duration {
        self.now.duration_since(used).unwrap_or_default()
    }
}

/// How little something is worth: long unused, large, quick to get again.
fn worthless(age: Duration, bytes: u64, cost: Duration) -> f64 {
    (age.as_secs_f64() + 1.0) * (bytes as f64 + 4096.0) / (cost.as_secs_f64() + 0.01)
}
