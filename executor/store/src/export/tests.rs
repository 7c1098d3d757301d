//! What an export leaves behind, done or failed.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use osbc_ir::Value;
use tempfile::TempDir;

use super::*;
use crate::objects::commit::CommitInfo;
use crate::objects::object::StepRecord;
use crate::store::{Layers, Store};
use crate::testing::{FinalizedSketch, Sketch, directory};
use crate::transaction::Transaction;

struct Bench {
    directory: TempDir,
    store: Store,
    sketch: FinalizedSketch,
}

impl Bench {
    fn new() -> Self {
        let directory = directory();
        let store = Store::open(&directory.path().join("store"), Layers::Copy).expect("opens");
        Self { directory, store, sketch: Sketch::chain(&["a"]).finalize() }
    }

    /// A transaction on a result with the content that `make` makes.
    fn transaction(&self, make: impl FnOnce(&Path)) -> Transaction {
        let transaction = self.sketch.begin(&self.store);
        let work = transaction.work(None).expect("begins");
        make(&work.stack().expect("a tree").upper.expect("is written to").dir);
        let id = self.sketch.id("a");
        let record = StepRecord { id, module: String::new(), metadata: Value::Null, duration: Default::default() };
        work.commit(CommitInfo { source_epoch: Some(5), steps: vec![record] }).expect("commits");
        transaction
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out/new/main")
    }

    fn export(&self, transaction: &Transaction) -> Result<Copied, ExportError> {
        export(transaction, Some(self.sketch.id("a")), &self.out(), Ownership::Keep)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("reads");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A transaction on a result in a store that keeps nothing: a whole tree, or a layer on one.
fn unkept(directory: &TempDir, sketch: &FinalizedSketch, base: Option<StageId>) -> Transaction {
    let cache = crate::osbuild::Cache::open(&directory.path().join("osbuild"), None).expect("opens");
    let transaction = sketch.begin(&Store::open_within(&cache, false).expect("opens"));
    for (base, id) in base.map(|base| (None, base)).into_iter().chain([(base, sketch.id("b"))]) {
        let work = transaction.work(base).expect("begins");
        let stack = work.stack().expect("a tree");
        fs::write(stack.upper.expect("is written to").dir.join("disk.raw"), id.to_string()).expect("writes");
        let record = StepRecord { id, module: String::new(), metadata: Value::Null, duration: Default::default() };
        work.commit(CommitInfo { source_epoch: Some(5), steps: vec![record] }).expect("commits");
    }
    transaction
}

#[test]
fn what_nobody_else_needs_is_moved() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    for (name, there) in [("new", false), ("there", true)] {
        let transaction = unkept(&directory, &sketch, None);
        let to = directory.path().join(name);
        if there {
            fs::create_dir(&to).expect("makes");
            fs::write(to.join("disk.raw"), "old").expect("writes");
            fs::write(to.join("other"), "stays").expect("writes");
        }
        let tree =
            transaction.tree(sketch.id("b")).expect("reads").expect("is there").lower.pop().expect("a directory");
        let inode = fs::metadata(tree.join("disk.raw")).expect("is there").ino();
        assert!(move_out(&transaction, sketch.id("b"), &to).expect("moves"), "{name}");
        assert_eq!(fs::metadata(to.join("disk.raw")).expect("is there").ino(), inode, "{name}");
        assert_eq!(names(&to), if there { vec!["disk.raw", "other"] } else { vec!["disk.raw"] });
        let root = fs::metadata(&to).expect("is there");
        assert_eq!((root.mtime(), root.mode() & 0o7777), (5, 0o755), "{name}");
        assert!(!tree.exists());
        drop(transaction);
    }
}

#[test]
fn what_others_need_is_not_moved() {
    let bench = Bench::new();
    let transaction = bench.transaction(|_| {});
    assert!(!move_out(&transaction, bench.sketch.id("a"), &bench.out()).expect("says no"), "the store keeps it");
    drop(transaction);
    if !osbc_fixtures::has_root() {
        return;
    }
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let transaction = unkept(&bench.directory, &sketch, Some(sketch.id("a")));
    for label in ["a", "b"] {
        assert!(
            !move_out(&transaction, sketch.id(label), &bench.out()).expect("says no"),
            "{label} is one of two layers"
        );
    }
    assert!(!bench.out().exists());
}

#[test]
fn a_result_becomes_a_directory_with_nothing_beside_it() {
    let bench = Bench::new();
    let transaction = bench.transaction(|tree| {
        fs::write(tree.join("disk.raw"), "image").expect("writes");
        fs::set_permissions(tree, fs::Permissions::from_mode(0o711)).expect("sets");
    });
    let copied = bench.export(&transaction).expect("exports");
    assert_eq!((copied.entries, copied.bytes), (2, 5));
    assert_eq!(names(&bench.out()), ["disk.raw"]);
    assert_eq!(names(bench.out().parent().expect("a parent")), ["main"]);
    let metadata = bench.out().metadata().expect("is there");
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o711, 5));
}

#[test]
fn a_pipeline_without_stages_is_an_empty_directory() {
    let bench = Bench::new();
    let transaction = bench.sketch.begin(&bench.store);
    export(&transaction, None, &bench.out(), Ownership::Keep).expect("exports");
    assert_eq!(names(&bench.out()), [""; 0]);
    assert_eq!(bench.out().metadata().expect("is there").mode() & 0o7777, 0o755);
}

#[test]
fn what_is_there_is_replaced_entry_by_entry() {
    let bench = Bench::new();
    fs::create_dir_all(bench.out().join("directory/old")).expect("makes");
    fs::write(bench.out().join("file"), "old").expect("writes");
    fs::write(bench.out().join("mine"), "mine").expect("writes");
    symlink("mine", bench.out().join("link")).expect("links");
    let transaction = bench.transaction(|tree| {
        fs::create_dir_all(tree.join("file")).expect("makes");
        fs::write(tree.join("directory"), "new").expect("writes");
        fs::write(tree.join("link"), "new").expect("writes");
    });
    bench.export(&transaction).expect("exports");
    assert_eq!(names(&bench.out()), ["directory", "file", "link", "mine"]);
    assert!(bench.out().join("file").is_dir());
    assert_eq!(fs::read_to_string(bench.out().join("directory")).expect("reads"), "new");
    assert_eq!(fs::read_to_string(bench.out().join("mine")).expect("reads"), "mine", "no link was followed");
    assert_eq!(bench.out().metadata().expect("is there").mtime(), 5);
}

#[test]
fn a_failed_export_leaves_nothing() {
    let bench = Bench::new();
    let transaction = bench.sketch.begin(&bench.store);
    let error = bench.export(&transaction).expect_err("was never built");
    assert!(matches!(error, ExportError::Missing(_)), "{error}");
    let transaction = bench.transaction(|tree| fs::write(tree.join("file"), "x").expect("writes"));
    fs::create_dir_all(bench.out().parent().expect("a parent")).expect("makes");
    fs::write(bench.out(), "a file").expect("writes");
    let error = bench.export(&transaction).expect_err("is in the way");
    assert!(matches!(error, ExportError::NoDirectory(_)), "{error}");
    assert_eq!(fs::read_to_string(bench.out()).expect("reads"), "a file");
}

#[test]
fn what_a_dead_process_left_is_removed() {
    let bench = Bench::new();
    let parent = bench.out().parent().expect("a parent").to_owned();
    let cut_off = parent.join(format!("{UNFINISHED}dead"));
    fs::create_dir_all(cut_off.join("half")).expect("makes");
    let alive = parent.join(format!("{UNFINISHED}alive"));
    let _owner = crate::fs::lock::own_directory(&alive).expect("makes").expect("owns");
    let transaction = bench.transaction(|_| {});
    bench.export(&transaction).expect("exports");
    assert!(!cut_off.exists() && alive.exists());
}

#[test]
fn a_large_sparse_image_takes_no_more_room_than_its_data() {
    let bench = Bench::new();
    let transaction = bench.transaction(|tree| {
        let file = fs::File::create(tree.join("disk.raw")).expect("makes");
        file.set_len(8 << 30).expect("sets");
        file.write_all_at(b"data", 4 << 30).expect("writes");
    });
    bench.export(&transaction).expect("exports");
    let metadata = bench.out().join("disk.raw").metadata().expect("is there");
    assert_eq!(metadata.len(), 8 << 30);
    assert!(metadata.blocks() * 512 < 1 << 20);
}

#[test]
fn root_a_full_destination_is_reported_and_left_clean() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let bench = Bench::new();
    let transaction = bench.transaction(|tree| fs::write(tree.join("large"), vec![1; 4 << 20]).expect("writes"));
    let target = bench.directory.path().join("small");
    fs::create_dir(&target).expect("makes");
    let mount = ["-t", "tmpfs", "-o", "size=1m", "none"];
    assert!(std::process::Command::new("mount").args(mount).arg(&target).status().expect("starts").success());
    let result = export(&transaction, Some(bench.sketch.id("a")), &target.join("main"), Ownership::Keep);
    let left = names(&target);
    assert!(std::process::Command::new("umount").arg(&target).status().expect("starts").success());
    let error = result.expect_err("there is no room");
    let ExportError::NoSpace { need, have, .. } = &error else { panic!("{error}") };
    assert!((4 << 20..5 << 20).contains(need) && (1..=1 << 20).contains(have), "{error}");
    assert!(error.to_string().contains("no space left: it takes 4.0 MiB"), "{error}");
    assert_eq!(left, [""; 0]);
}
