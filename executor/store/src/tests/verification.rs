//! Damage of every kind is found, set aside, and built again.

use std::os::unix::fs::FileExt;

use super::*;

fn no_items(item: &Item) -> Result<(), String> {
    panic!("{} is no item of these tests", item.path.display())
}

/// Two results, `a` below `b`, and `c` on its own.
fn built(directory: &Path, layers: Layers) -> (FinalizedSketch, Store) {
    let sketch = Sketch::chain(&["a", "b"]).pipeline("other", None).stage("c", &[]).finalize();
    let store = open(directory, layers);
    build_missing(&sketch, &store);
    (sketch, store)
}

/// Builds what is not there, and says what that was.
fn build_missing(sketch: &FinalizedSketch, store: &Store) -> Vec<&'static str> {
    let transaction = sketch.begin(store);
    let mut made = Vec::new();
    for (label, base) in [("a", None), ("b", Some("a")), ("c", None)] {
        if transaction.object(sketch.id(label)).is_none() {
            build(&transaction, base.map(|base| sketch.id(base)), sketch.id(label), |root| {
                fs::write(root.join(format!("{label}-file")), label.repeat(1000)).expect("writes");
                fs::create_dir_all(root.join("directory")).expect("makes");
                symlink("target", root.join("directory").join(format!("{label}-link"))).expect("links");
            });
            made.push(label);
        }
    }
    made
}

fn flip(path: &Path, place: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("reads");
    file.write_all_at(&[byte[0] ^ 4], place).expect("writes");
}

type Inflict = fn(&Path);

const DAMAGES: [(&str, Inflict); 8] = [
    ("a bit of a file", |object| flip(&content(object).join("a-file"), 777)),
    ("a bit of the description", |object| flip(&object.join("meta.json"), 300)),
    ("a truncated file", |object| {
        let file = fs::OpenOptions::new().write(true).open(content(object).join("a-file")).expect("opens");
        file.set_len(999).expect("cuts off");
    }),
    ("an empty description", |object| fs::write(object.join("meta.json"), "").expect("writes")),
    ("a missing file", |object| fs::remove_file(content(object).join("a-file")).expect("removes")),
    ("a missing layer", |object| fs::remove_dir_all(content(object)).expect("removes")),
    ("a half-deleted directory", |object| fs::remove_dir_all(content(object).join("directory")).expect("removes")),
    ("a link elsewhere", |object| {
        let link = content(object).join("directory/a-link");
        fs::remove_file(&link).expect("removes");
        symlink("tarfet", link).expect("links");
    }),
];

fn every_damage_is_found_and_built_again(layers: Layers) {
    for (name, damage) in DAMAGES {
        let directory = directory();
        let (sketch, store) = built(directory.path(), layers);
        let sound = store.verify(true, &no_items).expect("verifies");
        assert_eq!((sound.objects, sound.damages), (3, Vec::new()), "{name}");
        let damaged = object_path(&store, sketch.id("a"));
        damage(&damaged);
        let found = store.verify(false, &no_items).expect("verifies");
        assert!(
            found.damages.iter().any(|damage| damage.path == damaged && damage.fate == DamageAction::Left),
            "{name}"
        );
        assert!(damaged.exists(), "{name}: without repair everything stays");
        let repaired = store.verify(true, &no_items).expect("repairs");
        assert!(repaired.damages.iter().all(|damage| damage.fate == DamageAction::SetAside), "{name}: {repaired:?}");
        // A whole tree needs nothing below it.
        let expected: &[&str] = if layers == Layers::Copy { &["a"] } else { &["a", "b"] };
        assert_eq!(store.damaged().0, expected.len(), "{name}: {repaired:?}");
        assert_eq!(build_missing(&sketch, &store), expected, "{name}");
        assert_eq!(store.verify(false, &no_items).expect("verifies").damages, [], "{name}");
        let transaction = sketch.begin(&store);
        assert_eq!(read(&transaction, sketch.id("b"), "a-file"), "a".repeat(1000), "{name}");
        drop(transaction);
        store.gc().expect("clears away");
        assert_eq!(store.damaged(), (0, 0), "{name}");
        assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()), "{name}");
    }
}

#[test]
fn every_damage_of_a_whole_tree_is_found_and_built_again() {
    every_damage_is_found_and_built_again(Layers::Copy);
}

#[test]
fn root_every_damage_of_a_layer_is_found_and_built_again() {
    if osbc_fixtures::has_root() {
        every_damage_is_found_and_built_again(Layers::Overlay);
    }
}

#[test]
fn nothing_damaged_is_exported() {
    let directory = directory();
    let (sketch, store) = built(directory.path(), Layers::Copy);
    flip(&content(&object_path(&store, sketch.id("b"))).join("a-file"), 5);
    let export = |transaction: &Transaction| {
        crate::export::export(transaction, Some(sketch.id("b")), &directory.path().join("out"), Ownership::Keep)
    };
    let transaction = sketch.begin(&store);
    let error = export(&transaction).expect_err("it is damaged").to_string();
    assert!(error.contains(&sketch.id("b").short()) && error.contains("set aside"), "{error}");
    assert!(!directory.path().join("out").exists());
    drop(transaction);
    assert_eq!(build_missing(&sketch, &store), ["b"]);
    export(&sketch.begin(&store)).expect("is whole again");
    assert_eq!(fs::read_to_string(directory.path().join("out/b-file")).expect("reads"), "b".repeat(1000));
}

/// What a build that lacks `b` finds damaged of what it is about to read, and then builds.
fn looked_over(sketch: &FinalizedSketch, store: &Store) -> (Vec<Damage>, Vec<&'static str>) {
    let transaction = sketch.begin(store);
    let found = transaction.quick_check(&sketch.plan(transaction.present()), false, &no_items).expect("looks");
    drop(transaction);
    (found, build_missing(sketch, store))
}

fn damage_is_found_before_a_stage_reads_it(layers: Layers) {
    for (name, damage) in DAMAGES {
        let directory = directory();
        let (sketch, store) = built(directory.path(), layers);
        store.remove(&[sketch.id("b")]).expect("removes");
        assert_eq!(looked_over(&sketch, &store), (Vec::new(), vec!["b"]), "{name}: all is sound");
        store.remove(&[sketch.id("b")]).expect("removes");
        let damaged = object_path(&store, sketch.id("a"));
        // Change times are only as fine as the kernel's clock ticks.
        std::thread::sleep(Duration::from_millis(20));
        damage(&damaged);
        let (found, made) = looked_over(&sketch, &store);
        // Without its description it is not there in the first place.
        let is_there = !name.contains("description") && name != "a missing layer";
        let expected = if is_there { vec![(damaged, DamageAction::SetAside)] } else { Vec::new() };
        let found: Vec<_> = found.into_iter().map(|damage| (damage.path, damage.fate)).collect();
        assert_eq!((found, made), (expected, vec!["a", "b"]), "{name}");
        assert_eq!(store.verify(false, &no_items).expect("verifies").damages, [], "{name}");
    }
}

#[test]
fn damage_of_a_whole_tree_is_found_before_a_stage_reads_it() {
    damage_is_found_before_a_stage_reads_it(Layers::Copy);
}

#[test]
fn root_damage_of_a_layer_is_found_before_a_stage_reads_it() {
    if osbc_fixtures::has_root() {
        damage_is_found_before_a_stage_reads_it(Layers::Overlay);
    }
}

#[test]
fn a_store_that_was_copied_is_read_once_and_known_from_then_on() {
    let directory = directory();
    let (sketch, store) = built(directory.path(), Layers::Copy);
    store.remove(&[sketch.id("b")]).expect("removes");
    let tree = content(&object_path(&store, sketch.id("a")));
    std::thread::sleep(Duration::from_millis(20));
    // Its times and numbers are others now, its content is not.
    let text = fs::read(tree.join("a-file")).expect("reads");
    let (mode, modified) = {
        let metadata = fs::metadata(tree.join("a-file")).expect("is there");
        (metadata.permissions(), metadata.modified().expect("has a time"))
    };
    fs::write(tree.join("other"), text).expect("writes");
    fs::set_permissions(tree.join("other"), mode).expect("sets");
    fs::File::open(tree.join("other")).expect("opens").set_modified(modified).expect("sets");
    fs::rename(tree.join("other"), tree.join("a-file")).expect("renames");
    let stamp = object_path(&store, sketch.id("a")).join("stamp");
    assert!(!stamp.exists());
    assert_eq!(looked_over(&sketch, &store), (Vec::new(), vec!["b"]));
    let known = fs::read_to_string(&stamp).expect("was noted");
    assert_eq!(known, crate::digest::stamp(&tree).expect("looks"));
    assert_eq!(store.verify(false, &no_items).expect("verifies").damages, []);
}

#[test]
fn an_item_that_is_not_as_it_came_is_read_before_a_stage_does() {
    let (directory, sketch, store) = with_item();
    let item = directory.path().join(ITEM);
    let time = || item.metadata().expect("is there").mtime();
    let before = time();
    let unread = |item: &Item| panic!("the stamp of {} says enough", item.key);
    assert_eq!(look_at_items(&sketch, &store, &unread), []);
    tick();
    fs::write(&item, "good").expect("writes");
    assert_ne!(time(), before);
    assert_eq!(look_at_items(&sketch, &store, &check_good), []);
    assert_eq!(time(), before, "stages see the time that all items have");
    assert_eq!(look_at_items(&sketch, &store, &unread), [], "it was read once");
    let known = store.layout().stamps().join("test.files:sha256:1");
    fs::remove_file(&known).expect("removes");
    assert_eq!(look_at_items(&sketch, &store, &check_good), [], "of one that nobody knows the content decides");
    assert!(known.symlink_metadata().is_ok());
}

#[test]
fn an_item_that_is_no_longer_what_its_name_says_is_set_aside_whatever_its_time() {
    type Change = fn(&Path);
    let changes: [(&str, Change, &str); 7] = [
        ("a changed byte", |item| flip(item, 0), "it is cood"),
        (
            "a cut",
            |item| fs::OpenOptions::new().write(true).open(item).and_then(|file| file.set_len(1)).expect("cuts"),
            "it is g",
        ),
        (
            "another file",
            |item| {
                fs::write(item.with_extension("new"), "evil").expect("writes");
                fs::rename(item.with_extension("new"), item).expect("renames");
            },
            "it is evil",
        ),
        (
            "a link to the same bytes",
            |item| {
                fs::rename(item, item.with_extension("old")).expect("renames");
                symlink(item.with_extension("old"), item).expect("links");
            },
            "it is neither a file nor a directory",
        ),
        (
            "a directory",
            |item| {
                fs::remove_file(item).expect("removes");
                fs::create_dir(item).expect("makes");
            },
            "it cannot be read",
        ),
        (
            "a named pipe",
            |item| {
                fs::remove_file(item).expect("removes");
                rustix::fs::mkfifoat(rustix::fs::CWD, item, rustix::fs::Mode::RUSR).expect("makes");
            },
            "it is neither a file nor a directory",
        ),
        ("nothing", |item| fs::remove_file(item).expect("removes"), ""),
    ];
    for (name, change, reason) in changes {
        let (directory, sketch, store) = with_item();
        let item = directory.path().join(ITEM);
        tick();
        change(&item);
        let time = rustix::fs::Timespec { tv_sec: items::TIME, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &item, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok();
        let verified = store.verify(false, &check_good).expect("verifies").damages;
        let found = look_at_items(&sketch, &store, &check_good);
        assert_eq!(found.len(), usize::from(name != "nothing"), "{name}");
        assert_eq!(verified.len(), found.len(), "{name}");
        for damage in found {
            assert!(damage.reason.starts_with(reason), "{name}: {}", damage.reason);
            assert_eq!(damage.fate, DamageAction::SetAside, "{name}");
        }
        assert_eq!(*sketch.begin(&store).present(), CachedSet::default(), "{name}");
        fetch_good(&sketch, &store);
        assert_eq!(look_at_items(&sketch, &store, &|_| panic!("it has just come in")), [], "{name}");
    }
}

/// In a store of osbuild's, which nobody here has fetched: it is read once.
#[test]
fn an_item_of_osbuild_s_store_is_read_before_its_first_use() {
    let directory = directory();
    let cache = osbuild::Cache::open(&directory.path().join("cache"), None).expect("opens");
    let store = Store::open_within(&cache, false).expect("opens");
    let sketch = item_sketch();
    let item = cache.path().join(ITEM);
    fs::create_dir_all(item.parent().expect("has one")).expect("makes");
    fs::write(&item, "good").expect("writes");
    let time = item.metadata().expect("is there").mtime();
    let read = std::sync::atomic::AtomicUsize::new(0);
    let check = |item: &Item| {
        read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        check_good(item)
    };
    for _ in 0..2 {
        assert_eq!(look_at_items(&sketch, &store, &check), []);
    }
    assert_eq!(read.into_inner(), 1);
    assert_eq!(item.metadata().expect("is there").mtime(), time, "its time is osbuild's");
    tick();
    fs::write(&item, "evil").expect("writes");
    assert_eq!(look_at_items(&sketch, &store, &check_good)[0].fate, DamageAction::SetAside);
    assert!(!item.exists());
}

const ITEM: &str = "sources/test.files/sha256:1";

/// Change times are only as fine as the kernel's clock ticks.
fn tick() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A stage that reads an item.
fn item_sketch() -> FinalizedSketch {
    Sketch::new().item("sha256:1", json!({"data": "x"})).pipeline("p", None).stage("s", &["#sha256:1"]).finalize()
}

/// A store with the item, which is good.
fn with_item() -> (tempfile::TempDir, FinalizedSketch, Store) {
    let (directory, sketch) = (directory(), item_sketch());
    let store = open(directory.path(), Layers::Copy);
    fetch_good(&sketch, &store);
    (directory, sketch, store)
}

fn fetch_good(sketch: &FinalizedSketch, store: &Store) {
    match sketch.begin(store).download(&ItemKey::new("test.files", "sha256:1"), &|| false).expect("begins") {
        Slot::Fetch(download) => {
            fs::write(download.target(), "good").expect("writes");
            download.commit().expect("commits");
        }
        Slot::There(path) => panic!("{} is there", path.display()),
    }
}

fn check_good(item: &Item) -> Result<(), String> {
    let text = fs::read_to_string(&item.path).map_err(|error| format!("it cannot be read: {error}"))?;
    if text == "good" { Ok(()) } else { Err(format!("it is {text}")) }
}

fn look_at_items(sketch: &FinalizedSketch, store: &Store, check: &CheckItem<'_>) -> Vec<Damage> {
    let transaction = sketch.begin(store);
    transaction.quick_check(&sketch.plan(transaction.present()), false, check).expect("looks")
}

/// Makes the result `b` one that stands for `a`.
fn with_alias(directory: &Path) -> (FinalizedSketch, Store) {
    let sketch = Sketch::new().pipeline("one", None).stage("a", &[]).pipeline("other", None).stage("b", &[]).finalize();
    let store = open(directory, Layers::Copy);
    let transaction = sketch.begin(&store);
    let object = build(&transaction, None, sketch.id("a"), |root| fs::write(root.join("a-file"), "a").expect("writes"));
    transaction.adopt(sketch.id("b"), &object.reference()).expect("the disk takes it").expect("it is there");
    drop(transaction);
    assert_eq!(*sketch.begin(&store).present(), sketch.ids().collect::<CachedSet>());
    (sketch, store)
}

#[test]
fn what_stands_for_a_result_goes_with_it() {
    type Away = fn(&FinalizedSketch, &Store);
    let ways: [(&str, Away); 4] = [
        ("eviction", |_, store| {
            store.make_room(u64::MAX / 4).expect("evicts");
        }),
        ("removal", |sketch, store| {
            store.remove(&[sketch.id("a")]).expect("removes");
        }),
        ("repair", |sketch, store| {
            flip(&content(&object_path(store, sketch.id("a"))).join("a-file"), 0);
            let damages = store.verify(true, &no_items).expect("verifies").damages;
            assert_eq!(damages.len(), 2, "{damages:?}");
            store.gc().expect("clears away");
        }),
        ("removal of both", |sketch, store| {
            store.remove(&[sketch.id("b"), sketch.id("a")]).expect("removes");
        }),
    ];
    for (name, away) in ways {
        let directory = directory();
        let (sketch, store) = with_alias(directory.path());
        assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()), "{name}");
        away(&sketch, &store);
        assert_eq!(entries(&directory.path().join("objects")), 0, "{name}");
        assert_eq!(store.verify(false, &no_items).expect("verifies").damages, [], "{name}");
        assert_eq!(store.inventory().expect("counts").bytes(), 0, "{name}");
    }
}

#[test]
fn who_holds_what_stands_for_a_result_holds_it() {
    let directory = directory();
    let (sketch, store) = with_alias(directory.path());
    let transaction = Transaction::begin(store.lease(&sketch.graph, [NodeId::Stage(sketch.id("b"))]).expect("a lease"))
        .expect("begins");
    assert_eq!(store.make_room(u64::MAX / 4).expect("evicts").objects, 0);
    store.remove(&[sketch.id("a")]).expect_err("is in use");
    assert_eq!(read(&transaction, sketch.id("b"), "a-file"), "a");
}

#[test]
fn what_is_damaged_and_in_use_is_reported_and_left() {
    let directory = directory();
    let (sketch, store) = built(directory.path(), Layers::Copy);
    flip(&content(&object_path(&store, sketch.id("c"))).join("c-file"), 5);
    let transaction = sketch.begin(&store);
    let found = store.verify(true, &no_items).expect("verifies").damages;
    assert_eq!(found.iter().map(|damage| damage.fate).collect::<Vec<_>>(), [DamageAction::InUse]);
    assert!(object_path(&store, sketch.id("c")).exists());
    drop(transaction);
    assert_eq!(store.verify(true, &no_items).expect("verifies").damages[0].fate, DamageAction::SetAside);
}

#[test]
fn a_damaged_item_is_set_aside_and_fetched_again() {
    let directory = directory();
    let sketch = Sketch::new().item("sha256:1", json!({"data": "x"})).finalize();
    let store = open(directory.path(), Layers::Copy);
    let fetch =
        || match sketch.begin(&store).download(&ItemKey::new("test.files", "sha256:1"), &|| false).expect("begins") {
            Slot::Fetch(download) => {
                fs::write(download.target(), "good").expect("writes");
                download.commit().expect("commits")
            }
            Slot::There(path) => panic!("{} is there", path.display()),
        };
    fetch();
    let check = |item: &Item| {
        assert_eq!(item.key, ItemKey::new("test.files", "sha256:1"));
        let text = fs::read_to_string(&item.path).expect("reads");
        if text == "good" { Ok(()) } else { Err(format!("it is {text}")) }
    };
    assert_eq!(store.verify(true, &check).expect("verifies").damages, []);
    flip(&directory.path().join("sources/test.files/sha256:1"), 0);
    let found = store.verify(true, &check).expect("verifies").damages;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].reason.as_str(), found[0].fate), ("it is cood", DamageAction::SetAside));
    assert_eq!(*sketch.begin(&store).present(), CachedSet::default());
    fetch();
    assert_eq!(store.verify(true, &check).expect("verifies").damages, []);
}
