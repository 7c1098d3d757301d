//! Builds that start from checkpoints and make some, without a stage being run.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::objects::commit::CommitInfo;
use crate::store::Store;
use crate::testing::{FinalizedSketch, Sketch, directory};
use crate::transaction::Transaction;

/// A build on osbuild's store in a directory, with checkpoints of these stages.
fn begin(directory: &TempDir, sketch: &FinalizedSketch, keeps: bool, wanted: &[&str]) -> Transaction {
    let cache = Cache::open(directory.path(), None).expect("opens");
    let store = Store::open_within(&cache, keeps).expect("opens");
    let mut lease = store.lease(&sketch.graph, sketch.ids()).expect("leases");
    let last = sketch.graph.pipelines[0].last();
    let wanted: Vec<NodeIndex> = wanted.iter().map(|label| sketch.node(label)).collect();
    let mut checkpoints = Checkpoints::new(cache, wanted);
    checkpoints.start_from(&mut lease, &sketch.graph, last).expect("looks for checkpoints");
    Transaction::begin(lease).expect("begins").with_checkpoints(Some(checkpoints))
}

fn record(sketch: &FinalizedSketch, label: &str) -> StepRecord {
    StepRecord {
        id: sketch.id(label),
        module: "test.stage".to_owned(),
        metadata: json!({ "said by": label }),
        duration: Duration::ZERO,
    }
}

/// Runs stages on one work: each writes a file of its own.
fn run(transaction: &Transaction, sketch: &FinalizedSketch, base: Option<&str>, labels: &[&str]) {
    let work = transaction.work(base.map(|label| sketch.id(label))).expect("begins");
    let mut steps = Vec::new();
    for label in labels {
        let root = overlay::open(&work.stack().expect("a tree")).expect("opens");
        fs::write(PathBuf::from(format!("/proc/self/fd/{}/{label}", root.as_raw_fd())), *label).expect("writes");
        drop(root);
        steps.push(record(sketch, label));
        work.keep_checkpoint(&sketch.graph, sketch.node(label), &steps).expect("keeps");
    }
    work.commit(CommitInfo { source_epoch: None, steps }).expect("commits");
}

/// The files in the checkpoint of a stage, and who has said something about it.
fn kept(directory: &TempDir, sketch: &FinalizedSketch, label: &str) -> Option<(Vec<String>, usize)> {
    let compat = sketch.graph.stage_node(sketch.node(label)).expect("a stage").compat;
    let data = directory.path().join("objects").join(compat.to_string()).join("data");
    let names = |path: PathBuf| {
        let mut names: Vec<String> = fs::read_dir(path)
            .ok()?
            .map(|entry| entry.expect("reads").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        Some(names)
    };
    let meta = names(data.join("meta"))?;
    assert!(meta.contains(&"info.json".to_owned()), "{meta:?}");
    Some((names(data.join("tree"))?, meta.len() - 1))
}

/// The files in a leased tree.
fn tree(transaction: &Transaction, sketch: &FinalizedSketch, label: &str) -> Vec<String> {
    let root = overlay::open(&transaction.tree(sketch.id(label)).expect("reads").expect("is leased")).expect("opens");
    let entries = fs::read_dir(format!("/proc/self/fd/{}", root.as_raw_fd())).expect("reads");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("reads").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn objects(directory: &TempDir) -> usize {
    fs::read_dir(directory.path().join("osbc/objects")).expect("reads").count()
}

#[test]
fn only_checkpoints_outlive_a_build() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b", "c"]).finalize();
    let transaction = begin(&directory, &sketch, false, &["b"]);
    run(&transaction, &sketch, None, &["a"]);
    run(&transaction, &sketch, Some("a"), &["b"]);
    run(&transaction, &sketch, Some("b"), &["c"]);
    assert_eq!(tree(&transaction, &sketch, "c"), ["a", "b", "c"]);
    assert_eq!(transaction.metadata(&sketch.graph, sketch.node("c")).len(), 3);
    drop(transaction);
    assert_eq!(kept(&directory, &sketch, "b"), Some((vec!["a".to_owned(), "b".to_owned()], 2)));
    assert_eq!(kept(&directory, &sketch, "a"), None);
    assert_eq!(kept(&directory, &sketch, "c"), None);
    assert_eq!(objects(&directory), 0);
    assert_eq!(fs::read_dir(directory.path().join("osbc/work")).expect("reads").count(), 0);
}

#[test]
fn the_next_build_goes_on_from_a_checkpoint_whether_or_not_it_keeps_its_own() {
    for keeps in [false, true] {
        let directory = directory();
        let sketch = Sketch::chain(&["a", "b", "c", "d"]).finalize();
        run(&begin(&directory, &sketch, false, &["b"]), &sketch, None, &["a", "b"]);
        let transaction = begin(&directory, &sketch, keeps, &["d"]);
        assert_eq!(*transaction.present(), [NodeId::Stage(sketch.id("b"))].into_iter().collect());
        run(&transaction, &sketch, Some("b"), &["c"]);
        run(&transaction, &sketch, Some("c"), &["d"]);
        let said = transaction.metadata(&sketch.graph, sketch.node("d"));
        assert_eq!(said.len(), 4, "what was said before the checkpoint too");
        drop(transaction);
        assert_eq!(kept(&directory, &sketch, "d").map(|(files, said)| (files.len(), said)), Some((4, 4)));
        assert_eq!(objects(&directory), if keeps { 2 } else { 0 });
        // What is kept does not lie on the checkpoint, which may be gone tomorrow.
        fs::remove_dir_all(directory.path().join("objects")).expect("is there");
        let transaction = begin(&directory, &sketch, keeps, &[]);
        assert_eq!(transaction.present().contains(&NodeId::Stage(sketch.id("d"))), keeps);
        if keeps {
            assert_eq!(tree(&transaction, &sketch, "d"), ["a", "b", "c", "d"]);
        }
    }
}

#[test]
fn a_checkpoint_can_be_made_while_its_segment_goes_on() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b", "c"]).epoch(1_000_000).finalize();
    let transaction = begin(&directory, &sketch, false, &["a", "b"]);
    run(&transaction, &sketch, None, &["a", "b", "c"]);
    assert_eq!(kept(&directory, &sketch, "a"), Some((vec!["a".to_owned()], 1)));
    assert_eq!(kept(&directory, &sketch, "b"), Some((vec!["a".to_owned(), "b".to_owned()], 2)));
    let compat = sketch.graph.stage_node(sketch.node("b")).expect("a stage").compat;
    let file = directory.path().join("objects").join(compat.to_string()).join("data/tree/b");
    assert_eq!(fs::metadata(file).expect("is there").mtime(), 1_000_000, "its times are those of the epoch");
}

#[test]
fn a_checkpoint_in_use_is_not_removed_to_make_room() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    run(&begin(&directory, &sketch, false, &["a"]), &sketch, None, &["a"]);
    let transaction = begin(&directory, &sketch, false, &[]);
    let size = fs::read_to_string(directory.path().join("cache.size")).expect("reads").parse().expect("a number");
    let tight = Cache::open(directory.path(), Some(crate::osbuild::Limit::Bytes(size))).expect("opens");
    let put = |number| {
        let filled = tight.store(CompatId::from_bytes([number; 32]), |data| {
            fs::create_dir(data.join("tree")).expect("makes");
            fs::write(data.join("tree/file"), [0; 4096]).expect("writes");
            Ok(())
        });
        filled.expect("stores, or not");
    };
    put(1);
    assert!(kept(&directory, &sketch, "a").is_some());
    assert_eq!(tree(&transaction, &sketch, "a"), ["a"]);
    drop(transaction);
    put(2);
    assert!(kept(&directory, &sketch, "a").is_none());
}
