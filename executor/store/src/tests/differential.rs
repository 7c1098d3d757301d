//! Nobody can tell a stage's tree from a plain directory: random operations on both return the same and leave the same,
//! stage after stage, for every way of keeping trees on every file system.
//!
//! `OSBC_TREE_SEEDS=n` runs so many seeds, `OSBC_TREE_SEED=k` just one.

mod apply;
mod generate;
mod look;
mod random;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Timespec};
use rustix::io::Errno;

use self::apply::{Operation, Outcome, World};
use self::generate::{CAPABILITY, Class, Model};
use self::random::Random;
use super::file_systems::{self, FileSystem};
use super::*;
use crate::digest::{self, TreeRecord};
use crate::objects::mtime_clamp;
use crate::user_namespace;

/// How many seeds are run unless somebody wants more.
const SEEDS: u64 = 200;

/// A way of keeping trees on a file system.
type Combination = (FileSystem, Layers);

/// All of them, in the order in which seeds take them.
fn combinations() -> Vec<Combination> {
    file_systems::ALL.into_iter().flat_map(|on| on.ways().iter().map(move |layers| (on, *layers))).collect()
}

/// The seeds to run, with the combination of each.
fn seeds() -> impl Iterator<Item = (u64, Combination)> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("OSBC_TREE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OSBC_TREE_SEEDS").unwrap_or(SEEDS),
    };
    let combinations = combinations();
    seeds.map(move |seed| (seed, combinations[seed as usize % combinations.len()]))
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Length {
    stages: usize,
    /// In each stage at least, and how many more there may be.
    operations: (u64, u64),
}

const SHORT: Length = Length { stages: 10, operations: (20, 80) };
/// Ten thousand operations, and more layers than a stack may have.
const LONG: Length = Length { stages: 40, operations: (250, 0) };

fn on(file_system: FileSystem) {
    if !osbc_fixtures::has_root() {
        return;
    }
    let Some(place) = file_system.mount() else { return };
    for (seed, (_, layers)) in seeds().filter(|(_, (on, _))| *on == file_system) {
        // One of each combination.
        let length = if seed < combinations().len() as u64 { LONG } else { SHORT };
        run_seed(&place.path, &format!("{file_system:?}"), layers, seed, length);
    }
}

#[test]
fn root_a_tree_on_ext4_is_like_a_directory() {
    on(FileSystem::Ext4);
}

#[test]
fn root_a_tree_on_xfs_is_like_a_directory() {
    on(FileSystem::Xfs);
}

#[test]
fn root_a_tree_on_btrfs_is_like_a_directory() {
    on(FileSystem::Btrfs);
}

#[test]
fn root_a_tree_in_memory_is_like_a_directory() {
    on(FileSystem::Tmpfs);
}

#[test]
fn root_a_tree_on_an_overlay_is_like_a_directory() {
    on(FileSystem::Overlay);
}

/// The variables of a process of an ordinary user's.
const USER_PLACE: &str = "OSBC_TEST_TREE_PLACE";
const USER_NAME: &str = "OSBC_TEST_TREE_NAME";

/// How many seeds an ordinary user runs in each way.
const USER_SEEDS: u64 = 8;

#[test]
fn tester_a_tree_of_a_user_is_like_a_directory() {
    if !osbc_fixtures::has_tester() || !osbc_fixtures::has_tool("unshare") {
        return;
    }
    for file_system in [FileSystem::Ext4, FileSystem::Tmpfs] {
        let Some(place) = file_system.mount() else { return };
        // Where the test's program was built may be out of their reach.
        let (above, program) = (place.path.ancestors().nth(2).expect("lies deeper"), place.path.join("program"));
        fs::copy(std::env::current_exe().expect("the test's program"), &program).expect("there is room");
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).expect("sets");
        run(Command::new("chown").arg(osbc_fixtures::TESTER).arg(&place.path));
        let user = osbc_fixtures::TESTER;
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]);
        command.args(["unshare", "--map-root-user", "--map-auto", "--mount", "--"]).arg(&program);
        command.args(["--exact", "tests::differential::of_a_user", "--ignored", "--nocapture"]);
        run(command.env(USER_PLACE, &place.path).env(USER_NAME, format!("{file_system:?}")));
    }
}

/// Runs as a process of its own, in a user namespace.
#[test]
#[ignore = "started by the test above"]
fn of_a_user() {
    let Some(place) = std::env::var_os(USER_PLACE) else { return };
    let name = std::env::var(USER_NAME).expect("is set") + ", as a user";
    assert!(user_namespace::in_namespace());
    for layers in [Layers::Overlay, Layers::Shuffled, Layers::Copy] {
        for seed in 0..USER_SEEDS {
            run_seed(Path::new(&place), &name, layers, seed, SHORT);
        }
    }
}

const BEFORE_COMMIT: &str = "the tree before its commit";

/// One sequence on a plain directory and in a store.
struct Run<'a> {
    title: String,
    layers: Layers,
    plain_path: &'a Path,
    random: Random,
    model: Model,
    /// Whether there is what overlayfs marks its layers with.
    with_marks: bool,
    /// The time that what a stage wrote gets.
    epoch: Option<i64>,
    log: String,
    /// The record of the plain directory as the last stage left it, with its listings.
    record: Option<(TreeRecord, HashMap<digest::Hash, Arc<digest::Listing>>)>,
}

fn run_seed(place: &Path, name: &str, layers: Layers, seed: u64, length: Length) {
    let around = tempfile::Builder::new().prefix("seed-").tempdir_in(place).expect("makes");
    let (plain_path, store) = (around.path().join("plain"), open(&around.path().join("store"), layers));
    fs::create_dir(&plain_path).expect("makes");
    fs::set_permissions(&plain_path, fs::Permissions::from_mode(0o755)).expect("sets");
    let mut run = Run {
        title: format!("seed {seed}: {layers:?} on {name}"),
        layers,
        plain_path: &plain_path,
        random: Random::new(seed),
        model: Model::new(),
        with_marks: seed.is_multiple_of(3),
        epoch: seed.is_multiple_of(2).then_some(1_600_000_000),
        log: String::new(),
        record: None,
    };
    let (sketch, ids) = long_chain(length.stages);
    let mut transaction = sketch.begin(&store);
    for (index, id) in ids.iter().enumerate() {
        let base = index.checked_sub(1).map(|before| ids[before]);
        run.stage(&transaction, base, *id, length.operations);
        if index == length.stages / 2 {
            drop(transaction);
            transaction = sketch.begin(&store);
        }
    }
    let to = around.path().join("out");
    crate::export::export(&transaction, ids.last().copied(), &to, Ownership::Keep).expect("exports");
    run.compare(&to, "the export");
    drop(transaction);
    assert_eq!(store.verify(true, &|_| Ok(())).expect("verifies").damages, [], "{}", run.title);
}

impl Run<'_> {
    fn stage(&mut self, transaction: &Transaction, base: Option<StageId>, id: StageId, (least, more): (u64, u64)) {
        // As a stage that makes a device 0:0 gets it. Then layers begin anew when nothing of it is left.
        let is_plain = self.with_marks && self.random.percent(10);
        let work = if is_plain { transaction.plain_work(base) } else { transaction.work(base) };
        let work = work.expect("a tree begins");
        let is_copied = matches!(self.layers, Layers::Copy | Layers::Reflink);
        let class = Class {
            marks: self.with_marks && (is_copied || is_plain || !work.is_plain()),
            whiteouts: self.with_marks && (is_copied || is_plain),
        };
        let created = self.now();
        writeln!(self.log, "stage {}", id.short()).expect("writes");
        let mut left = least + self.random.below(more);
        while left > 0 {
            // Several stages may share a work.
            let part = if self.random.percent(30) { left / 2 + 1 } else { left };
            let mut store = World::open(overlay::open(&work.stack().expect("a tree")).expect("opens"));
            let mut plain = World::open(directory_at(self.plain_path));
            for _ in 0..part {
                self.operation(&mut plain, &mut store, class);
            }
            if self.random.percent(20) {
                self.compare(&store.root(), BEFORE_COMMIT);
            }
            self.model.released();
            left -= part;
        }
        work.commit(CommitInfo { source_epoch: self.epoch, ..info(id) }).expect("commits");
        if let Some(epoch) = self.epoch {
            mtime_clamp::clamp(self.plain_path, created, epoch).expect("sets");
        }
        let tree = transaction.tree(id).expect("reads").expect("is there");
        with_tree(&tree, |root| self.compare(root, "the committed tree"));
        let for_stages = transaction.tree_for_stages(id).expect("is made").expect("is there");
        if for_stages != tree {
            with_tree(&for_stages, |root| self.compare(root, "the committed tree, for stages"));
        }
        // Without an epoch the times of renamed files are those at which the stages ran.
        if self.epoch.is_some() {
            let digest = self.digest(created);
            let Run { title, log, .. } = self;
            let stored = transaction.digest(id).unwrap_or_else(|error| panic!("{title}: {error} after:\n{log}"));
            assert_eq!(digest, stored, "{title}: the trees are equal, their digests are not, after:\n{log}");
        }
    }

    /// Does the same to both.
    fn operation(&mut self, plain: &mut World, store: &mut World, class: Class) {
        let operation = generate::next(&self.random, &self.model, class);
        let stored = store.apply(&operation);
        writeln!(self.log, "{operation:?} -> {stored:?}").expect("writes");
        if self.is_documented(&operation, &stored) {
            return;
        }
        let expected = plain.apply(&operation);
        if leveled(&operation, &expected) != leveled(&operation, &stored) {
            panic!("{}: a directory returns {expected:?} for the last of:\n{}", self.title, self.log);
        }
        // Overlayfs copies the data of a file whose attributes were changed when it is opened for writing, and leaves it
        // the time of that moment, as if it had been written to.
        if let Some(path) = opened(&operation)
            && !matches!(self.layers, Layers::Copy | Layers::Reflink)
        {
            let path = path.to_owned();
            let now = Operation::SetTime { path, seconds: 0, nanoseconds: rustix::fs::UTIME_NOW as _ };
            for world in [&mut *plain, &mut *store] {
                world.apply(&now).ok();
            }
        }
        let equalize = match (&operation, &expected) {
            // Btrfs sets no time where there was a hole, and a copy has other holes.
            (Operation::Allocate { path, offset, .. }, Ok(_)) => {
                Operation::Write { path: path.clone(), offset: *offset, length: 1, byte: 0, flags: OFlags::empty() }
            }
            // Overlayfs has taken the capability before it is refused.
            (Operation::Allocate { path, .. }, Err(_)) => {
                Operation::RemoveAttribute { path: path.clone(), name: CAPABILITY.to_owned() }
            }
            (_, Ok(_)) => return self.model.done(&operation),
            _ => return,
        };
        for world in [plain, store] {
            world.apply(&equalize).ok();
        }
    }

    /// Whether the refusal is one that a stage may meet where a directory has none.
    fn is_documented(&self, operation: &Operation, outcome: &Outcome) -> bool {
        match operation {
            Operation::Rename { .. } => {
                self.layers != Layers::Copy && user_namespace::in_namespace() && *outcome == Err(Errno::XDEV)
            }
            _ => false,
        }
    }

    fn compare(&self, store: &Path, what: &str) {
        let [mut plain, mut store] = [self.plain_path, store].map(|root| {
            look::at_tree(root).unwrap_or_else(|error| panic!("{}: {what}: {error} after:\n{}", self.title, self.log))
        });
        // Until then a user's overlay, which has no index, has two numbers for a file that has got more names.
        if what == BEFORE_COMMIT && user_namespace::in_namespace() {
            for (_, name) in plain.values_mut().chain(store.values_mut()) {
                name.clear();
            }
        }
        let differences = look::differences(&plain, &store);
        if !differences.is_empty() {
            let (title, log) = (&self.title, &self.log);
            panic!("{title}: {what} is different:\n{}\nafter:\n{log}", differences.join("\n"));
        }
    }

    /// The time by the clock that stamps files.
    fn now(&self) -> Timespec {
        let directory = tempfile::tempdir_in(self.plain_path.parent().expect("is in one")).expect("makes");
        let metadata = directory.path().metadata().expect("is there");
        Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() }
    }

    /// The digest of the plain directory, by way of the record of the stage before.
    fn digest(&mut self, created: Timespec) -> osbc_ir::TreeDigest {
        let before = self.record.take();
        let find = |hash: &digest::Hash| before.as_ref().and_then(|(_, listings)| listings.get(hash).cloned());
        let below = before.as_ref().map(|(record, _)| (record, &find as &digest::Find<'_>));
        let mut record = digest::record(self.plain_path, created, digest::Kind::Whole(below)).expect("reads");
        let (digest, listings) = (record.digest(), record.take_listings());
        self.record = Some((record, listings));
        digest
    }
}

fn directory_at(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).expect("opens")
}

/// The file that an operation opens for writing, if it need not write.
fn opened(operation: &Operation) -> Option<&Path> {
    match operation {
        Operation::Hold { path, .. } | Operation::Allocate { path, .. } | Operation::Map { path, .. } => Some(path),
        Operation::CopyRange { to, .. } => Some(to),
        Operation::Write { path, length: 0, .. } => Some(path),
        _ => None,
    }
}

/// An outcome with one error where it may be either: for a rename to a directory that is not empty POSIX has two, and
/// XFS uses the other one; to remove an attribute that is not there and may not be set is wrong in two ways.
fn leveled(operation: &Operation, outcome: &Outcome) -> Outcome {
    match (operation, outcome) {
        (Operation::Rename { .. }, Err(Errno::EXIST)) => Err(Errno::NOTEMPTY),
        (Operation::RemoveAttribute { .. }, Err(Errno::PERM)) => Err(Errno::NODATA),
        (_, other) => other.clone(),
    }
}
