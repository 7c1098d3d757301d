//! What goes when there is no room, in which order, and what never does.

use std::time::SystemTime;

use super::*;

const MB: usize = 1 << 20;

/// A store with a limit and independent results, each a file of so many megabytes that took so long to build and was
/// last used so many hours ago.
fn store_with(directory: &Path, limit: Limit, results: &[(&str, usize, u64, u64)]) -> (FinalizedSketch, Store) {
    let sketch = results
        .iter()
        .fold(Sketch::new(), |sketch, (label, ..)| sketch.pipeline(label, None).stage(label, &[]))
        .finalize();
    let settings = StoreSettings { layers: Layers::Copy, limit: Limit::Unlimited };
    let store = Store::open(directory, settings).expect("opens");
    let transaction = sketch.begin(&store);
    for (label, megabytes, seconds, _) in results {
        let work = transaction.work(None).expect("begins");
        with_tree(&work.stack().expect("a tree"), |root| {
            fs::write(root.join("file"), vec![7; megabytes * MB]).expect("writes");
        });
        let mut step = record(sketch.id(label), Value::Null);
        step.duration = Duration::from_secs(*seconds);
        work.commit(CommitInfo { source_epoch: None, steps: vec![step] }).expect("commits");
    }
    drop(transaction);
    for (label, .., hours) in results {
        unused_for(&store, sketch.id(label), *hours);
    }
    (sketch, Store::open(directory, StoreSettings { limit, ..settings }).expect("opens"))
}

fn unused_for(store: &Store, id: StageId, hours: u64) {
    let when = SystemTime::now() - Duration::from_secs(hours * 3600);
    fs::File::open(object_path(store, id)).expect("opens").set_modified(when).expect("sets");
}

fn left(sketch: &FinalizedSketch, store: &Store) -> Vec<String> {
    let nodes = sketch.graph.dag.node_indices().filter(|node| is_there(sketch, store, *node));
    let mut labels: Vec<String> = nodes.map(|node| sketch.label(node)).collect();
    labels.sort();
    labels.dedup();
    labels
}

fn is_there(sketch: &FinalizedSketch, store: &Store, node: osbc_ir::graph::NodeIndex) -> bool {
    store.present(&sketch.graph, [sketch.graph.id(node)]) != CachedSet::default()
}

#[test]
fn what_is_old_large_and_quickly_built_goes_first() {
    type Results<'a> = [(&'a str, usize, u64, u64); 2];
    let cases: [(&str, Results<'_>); 3] = [
        ("the longer unused", [("goes", 1, 1, 50), ("stays", 1, 1, 5)]),
        ("the larger", [("goes", 3, 1, 5), ("stays", 1, 1, 5)]),
        ("the quicker to build", [("goes", 1, 1, 5), ("stays", 1, 100, 5)]),
    ];
    for (name, results) in cases {
        let directory = directory();
        let (sketch, store) = store_with(directory.path(), Limit::Bytes(5 * MB as u64 / 2), &results);
        // One more than there is room for.
        let total = store.usage().expect("is known");
        let store =
            Store::open(directory.path(), StoreSettings { layers: Layers::Copy, limit: Limit::Bytes(total - 4096) })
                .expect("opens");
        let evicted = store.gc().expect("evicts");
        assert_eq!(evicted.objects, 1, "{name}");
        assert_eq!(left(&sketch, &store), ["stays"], "{name}");
        assert_eq!(store.usage(), Some(total - evicted.bytes), "{name}");
        assert_eq!(entries(&directory.path().join("work")), 0, "{name}");
    }
}

#[test]
fn what_a_lease_holds_stays_whatever_the_limit() {
    let directory = directory();
    let results = [("held", 1, 1, 500), ("free", 1, 1, 1)];
    let (sketch, store) = store_with(directory.path(), Limit::Bytes(0), &results);
    let transaction =
        Transaction::begin(store.lease(&sketch.graph, [NodeId::Stage(sketch.id("held"))]).expect("a lease"))
            .expect("begins");
    store.gc().expect("evicts");
    assert_eq!(left(&sketch, &store), ["held"]);
    assert!(store.usage().expect("is known") > 0);
    assert_eq!(store.leases().expect("counts"), 1);
    drop(transaction);
    assert_eq!(store.gc().expect("evicts").left, 0);
    assert_eq!(left(&sketch, &store), [""; 0]);
}

#[test]
fn a_use_is_noted() {
    let directory = directory();
    let results = [("used", 1, 1, 900), ("unused", 1, 1, 800)];
    let (sketch, store) = store_with(directory.path(), Limit::Unlimited, &results);
    drop(store.lease(&sketch.graph, [NodeId::Stage(sketch.id("used"))]).expect("a lease"));
    let inventory = store.inventory().expect("counts");
    let age = |label: &str| inventory.objects[&sketch.id(label)].used.elapsed().expect("in the past").as_secs() / 3600;
    assert_eq!((age("used"), age("unused")), (0, 800));
}

#[test]
fn a_number_that_is_lost_is_counted_again() {
    let directory = directory();
    let results = [("a", 1, 1, 9), ("b", 1, 1, 8)];
    let (_, store) = store_with(directory.path(), Limit::Unlimited, &results);
    let total = store.usage().expect("is known");
    assert_eq!(store.inventory().expect("counts").bytes(), total);
    fs::write(directory.path().join("usage"), "no number").expect("writes");
    assert_eq!(store.usage(), None);
    assert_eq!(store.gc().expect("evicts"), Evicted { left: total, ..Evicted::default() });
    assert_eq!(store.usage(), Some(total));
}

#[test]
fn what_is_of_no_use_goes_with_every_eviction() {
    let directory = directory();
    let (sketch, store) = store_with(directory.path(), Limit::Unlimited, &[("good", 1, 1, 9), ("bad", 1, 1, 8)]);
    fs::remove_file(object_path(&store, sketch.id("bad")).join("meta.json")).expect("removes");
    fs::write(directory.path().join("objects/rubbish"), "x").expect("writes");
    let evicted = store.gc().expect("evicts");
    assert_eq!((evicted.objects, evicted.useless), (0, 2));
    assert_eq!(entries(&directory.path().join("objects")), 1);
    assert_eq!(left(&sketch, &store), ["good"]);
}

#[test]
fn items_go_too_when_they_are_worth_less() {
    let directory = directory();
    let sketch = Sketch::new().item("sha256:1", json!({"data": "x"})).item("sha256:2", json!({"data": "x"})).finalize();
    let settings = StoreSettings { layers: Layers::Copy, limit: Limit::Bytes(MB as u64) };
    let store = Store::open(directory.path(), settings).expect("opens");
    let transaction = sketch.begin(&store);
    for checksum in ["sha256:1", "sha256:2"] {
        let Slot::Fetch(download) =
            transaction.download(&ItemKey::new("test.files", checksum), &|| false).expect("begins")
        else {
            panic!("nobody else fetches")
        };
        fs::write(download.target(), vec![1; 800 << 10]).expect("writes");
        download.commit().expect("commits");
    }
    assert_eq!(store.usage(), Some(2 * (800 << 10)));
    let path = transaction.item(&ItemKey::new("test.files", "sha256:1")).expect("a name");
    drop(transaction);
    let long_ago = fs::FileTimes::new().set_accessed(SystemTime::now() - Duration::from_secs(10_000));
    fs::File::open(&path).expect("opens").set_times(long_ago).expect("sets");
    let evicted = store.gc().expect("evicts");
    assert_eq!((evicted.items, evicted.bytes), (1, 800 << 10));
    assert!(!path.exists());
}

#[test]
fn a_result_is_removed_by_hand_with_all_that_lies_on_it_unless_it_is_used() {
    let directory = directory();
    let (sketch, store) = store_with(directory.path(), Limit::Unlimited, &[("a", 1, 1, 9), ("b", 1, 1, 8)]);
    let (a, b) = (sketch.id("a"), sketch.id("b"));
    assert_eq!(store.find(&a.short()).expect("finds"), a);
    assert!(matches!(store.find("xyz"), Err(StoreError::NoSuchObject { .. })));
    assert!(matches!(store.find(""), Err(StoreError::Ambiguous { .. })));
    let transaction =
        Transaction::begin(store.lease(&sketch.graph, [NodeId::Stage(a)]).expect("a lease")).expect("begins");
    assert!(matches!(store.remove(&[b, a]), Err(StoreError::InUse(id)) if id == a));
    assert_eq!(left(&sketch, &store), ["a", "b"], "all or nothing");
    drop(transaction);
    assert_eq!(store.remove(&[a]).expect("removes").0, 1);
    assert_eq!(left(&sketch, &store), ["b"]);
    assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()));
}

#[test]
fn root_layers_stay_as_long_as_something_lies_on_them() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    // base ── middle ── old
    //              └─── new
    let sketch = Sketch::chain(&["base", "middle", "old"]).pipeline("other", None);
    let sketch = ["base", "middle", "new"].iter().fold(sketch, |sketch, label| sketch.stage(label, &[])).finalize();
    let settings = StoreSettings { layers: Layers::Overlay, limit: Limit::Unlimited };
    let store = Store::open(directory.path(), settings).expect("opens");
    let transaction = sketch.begin(&store);
    let mut base = None;
    for (label, megabytes) in [("base", 4), ("middle", 2), ("old", 1), ("new", 1)] {
        let id = sketch.id(label);
        build(&transaction, base, id, |root| fs::write(root.join(label), vec![7; megabytes * MB]).expect("writes"));
        base = if label == "base" { Some(id) } else { Some(sketch.id("middle")) };
    }
    drop(transaction);
    for (label, hours) in [("base", 1000), ("middle", 1000), ("old", 500), ("new", 1)] {
        unused_for(&store, sketch.id(label), hours);
    }
    let down_to = |bytes: u64| {
        let settings = StoreSettings { limit: Limit::Bytes(bytes), ..settings };
        Store::open(directory.path(), settings).expect("opens").gc().expect("evicts")
    };
    let full = store.usage().expect("is known");
    down_to(full - 4096);
    assert_eq!(left(&sketch, &store), ["base", "middle", "new"]);
    let transaction = sketch.begin(&store);
    assert_eq!(down_to(0).objects, 0, "the held one needs them all");
    assert_eq!(with_tree(&transaction.tree(sketch.id("new")).expect("reads").expect("is there"), entries), 3);
    drop(transaction);
    let evicted = down_to(5 * MB as u64);
    assert_eq!(left(&sketch, &store), ["base"], "{evicted:?}");
    assert_eq!(down_to(0).left, 0);
}

#[test]
fn nothing_that_is_held_is_ever_missing_while_many_evict() {
    let directory = directory();
    let labels = ["a", "b", "c", "d", "e", "f"];
    let sketch = labels.iter().fold(Sketch::new(), |sketch, label| sketch.pipeline(label, None).stage(label, &[]));
    let sketch = sketch.finalize();
    let settings = StoreSettings { layers: Layers::Copy, limit: Limit::Bytes(150 << 10) };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (sketch, path) = (&sketch, directory.path());
            scope.spawn(move || {
                let store = Store::open(path, settings).expect("opens");
                for round in 0..12 {
                    let label = labels[(thread + round) % labels.len()];
                    let id = sketch.id(label);
                    let transaction =
                        Transaction::begin(store.lease(&sketch.graph, [NodeId::Stage(id)]).expect("a lease"))
                            .expect("begins");
                    if transaction.object(id).is_none() {
                        build(&transaction, None, id, |root| {
                            fs::write(root.join("f"), label.repeat(50_000)).expect("writes")
                        });
                    }
                    assert_eq!(read(&transaction, id, "f").len(), 50_000);
                    transaction.check(id).expect("is whole");
                }
            });
        }
    });
    let store = Store::open(directory.path(), settings).expect("opens");
    let evicted = store.gc().expect("evicts");
    assert!(evicted.left <= 150 << 10, "{evicted:?}");
    assert_eq!(evicted.useless, 0);
    assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()));
    assert_eq!(entries(&directory.path().join("work")), 0);
}

#[test]
fn root_a_full_disk_is_made_room_on_once() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let directory = directory();
    let mounted = Mounted::new(directory.path(), 24);
    let sketch = Sketch::chain(&["old"]).pipeline("other", None).stage("base", &[]).stage("new", &[]).finalize();
    let settings = StoreSettings { layers: Layers::Copy, limit: Limit::Unlimited };
    let store = Store::open(&mounted.0, settings).expect("opens");
    let megabytes =
        |count: usize| move |root: &Path| fs::write(root.join("file"), vec![1; count * MB]).expect("writes");
    let transaction = sketch.begin(&store);
    build(&transaction, None, sketch.id("old"), megabytes(8));
    transaction.settle().expect("settles");
    drop(transaction);
    let transaction = Transaction::begin(store.lease(&sketch.graph, []).expect("a lease")).expect("begins");
    build(&transaction, None, sketch.id("base"), megabytes(8));
    transaction.settle().expect("settles");
    // A copy of `base` has room only in the place of `old`.
    build(&transaction, Some(sketch.id("base")), sketch.id("new"), |_| {});
    transaction.settle().expect("settles");
    assert_eq!(left(&sketch, &store), ["base", "new"]);
    let error = transaction.work(Some(sketch.id("new"))).expect_err("there is nothing more to evict");
    let StoreError::NoSpace { need: Some(need), have, .. } = error else { panic!("{error}") };
    assert!(need >= 8 * MB as u64 && have < need, "{need} {have}");
}

/// Begins to fetch an item and gives up when so many bytes are there.
fn leave_part(transaction: &Transaction, checksum: &str, megabytes: usize) {
    let Slot::Fetch(download) = transaction.download(&ItemKey::new("test.files", checksum), &|| false).expect("begins")
    else {
        panic!("{checksum} is there")
    };
    fs::write(download.target(), vec![7; megabytes * MB]).expect("writes");
}

#[test]
fn parts_of_items_count_and_go_first_of_all() {
    let directory = directory();
    let (sketch, store) = store_with(directory.path(), Limit::Unlimited, &[("old", 1, 1, 5000)]);
    let before = store.usage().expect("is known");
    let part = |checksum: &str| directory.path().join("downloads").join(format!("test.files:{checksum}"));
    let transaction = Transaction::begin(store.lease_nothing().expect("a lease")).expect("begins");
    leave_part(&transaction, "sha256:1", 2);
    let with_part = store.usage().expect("is known");
    assert!(with_part >= before + 2 * MB as u64, "{before} and {with_part}");
    assert_eq!(store.inventory().expect("counts").bytes(), with_part);
    // Who goes on with it has it, whatever becomes of it.
    let Slot::Fetch(download) =
        transaction.download(&ItemKey::new("test.files", "sha256:1"), &|| false).expect("begins")
    else {
        panic!("it is there")
    };
    assert_eq!(store.usage(), Some(before));
    leave_part(&transaction, "sha256:2", 1);
    assert_eq!(store.gc().expect("evicts").parts, 1);
    assert!(part("sha256:1").exists() && !part("sha256:2").exists());
    assert_eq!(store.usage(), Some(before));
    download.clear().expect("removes");
    assert!(!download.target().exists());
    drop(download);
    assert_eq!((store.usage(), part("sha256:1").exists()), (Some(before), false));
    // Before a result, however little that is worth.
    leave_part(&transaction, "sha256:3", 1);
    let limit = Limit::Bytes(store.usage().expect("is known") - 4096);
    let tight = Store::open(directory.path(), StoreSettings { layers: Layers::Copy, limit }).expect("opens");
    let evicted = tight.make_room(0).expect("evicts");
    assert_eq!((evicted.parts, evicted.objects), (1, 0));
    assert_eq!(left(&sketch, &tight), ["old"]);
    assert_eq!(tight.usage(), Some(before));
}

#[test]
fn what_a_build_gives_up_may_go_before_it_is_over() {
    let directory = directory();
    let results = [("done", 1, 1, 5), ("needed", 1, 1, 500)];
    let (sketch, store) = store_with(directory.path(), Limit::Bytes(0), &results);
    let lease = sketch.lease(&store);
    assert_eq!(store.gc().expect("evicts").objects, 0);
    lease.release(sketch.id("done")).expect("releases");
    assert_eq!(left(&sketch, &store), ["needed"], "giving up made the room that was lacking");
    assert!(lease.tree(sketch.id("done")).expect("reads").is_none() && lease.object(sketch.id("done")).is_some());
    assert!(lease.tree(sketch.id("needed")).expect("reads").is_some());
    assert!(lease.add(sketch.id("done")).expect("looks").is_none(), "it is gone");
}

#[test]
fn what_was_given_up_can_be_taken_again() {
    let directory = directory();
    let (sketch, store) = store_with(directory.path(), Limit::Unlimited, &[("result", 1, 1, 5)]);
    let lease = sketch.lease(&store);
    let id = sketch.id("result");
    for _ in 0..2 {
        lease.release(id).expect("releases");
        assert!(lease.add(id).expect("looks").is_some() && lease.tree(id).expect("reads").is_some());
    }
    let store = Store::open(directory.path(), StoreSettings { layers: Layers::Copy, limit: Limit::Bytes(0) });
    assert_eq!(store.expect("opens").gc().expect("evicts").objects, 0);
}
