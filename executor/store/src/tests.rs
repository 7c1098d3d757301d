//! What the store promises: objects whole or absent, layers that read like plain trees, nothing left of the dead.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use osbc_fixtures::mounted::{Mounted, fill_up, run};
use osbc_ir::{CachedSet, ItemKey, NodeId, StageId, Value};
use serde_json::json;

mod deltas;
mod differential;
mod eviction;
mod faults;
mod file_systems;
mod layering;
mod links;
mod marks;
mod operations;
mod placeholders;
mod power;
mod verification;

use crate::disk::{Disk, RealDisk};
use crate::fs::copy::Ownership;
use crate::fs::{overlay, regular};
use crate::objects::{object, work};
use crate::store::Shared;
use crate::testing::{FinalizedSketch, Sketch, directory};
use crate::{
    CheckItem, CommitInfo, Damage, DamageAction, Evicted, Item, Layers, Limit, ObjectMeta, Slot, StepRecord, Store,
    StoreError, StoreSettings, Transaction, Way,
};
use crate::{items, osbuild};

fn record(id: StageId, metadata: Value) -> StepRecord {
    StepRecord { id, module: "test.stage".to_owned(), metadata, duration: Duration::from_millis(7) }
}

fn info(id: StageId) -> CommitInfo {
    CommitInfo { source_epoch: None, steps: vec![record(id, Value::Null)] }
}

/// Builds the result of one stage: `change` is given the merged tree.
fn build(transaction: &Transaction, base: Option<StageId>, id: StageId, change: impl FnOnce(&Path)) -> Arc<ObjectMeta> {
    let work = transaction.work(base).expect("a tree begins");
    with_tree(&work.stack().expect("a tree"), change);
    work.commit(info(id)).expect("commits")
}

fn with_tree<T>(stack: &crate::tree_stack::TreeStack, look: impl FnOnce(&Path) -> T) -> T {
    use std::os::fd::AsRawFd;
    let root = overlay::open(stack).expect("opens");
    look(&PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())))
}

fn read(transaction: &Transaction, id: StageId, name: &str) -> String {
    with_tree(&transaction.tree(id).expect("reads").expect("is under the lease"), |root| {
        fs::read_to_string(root.join(name)).expect("reads")
    })
}

fn entries(path: &Path) -> usize {
    fs::read_dir(path).expect("reads").count()
}

/// The directory of an object that holds its tree or layer.
fn content(object: &Path) -> PathBuf {
    let entries = fs::read_dir(object).expect("reads").map(|entry| entry.expect("reads").path());
    let is_content = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tree-"));
    entries.into_iter().find(is_content).expect("an object has a tree")
}

/// Changes what an object says about itself.
fn change_meta(object: &Path, change: impl FnOnce(&mut ObjectMeta)) {
    let path = object.join("meta.json");
    let mut meta = object::decode(&fs::read(&path).expect("reads")).expect("was written");
    change(&mut meta);
    fs::write(path, object::encode(&meta).expect("is written")).expect("writes");
}

fn object_path(store: &Store, id: StageId) -> PathBuf {
    store.layout().object(id)
}

fn open(path: &Path, layers: Layers) -> Store {
    Store::open(path, layers).expect("opens")
}

#[test]
fn a_new_store_is_made_and_an_old_one_found_again() {
    let directory = directory();
    let path = directory.path().join("a/store");
    assert!(Store::open_existing(&path).expect("looks").is_none());
    for _ in 0..2 {
        open(&path, Layers::Auto);
    }
    assert!(Store::open_existing(&path).expect("looks").is_some());
    assert!(fs::read_to_string(path.join("CACHEDIR.TAG")).expect("reads").starts_with("Signature: 8a477f597d28d172"));
    assert_eq!(fs::read_to_string(path.join("format")).expect("reads"), "1\n");
}

#[test]
fn an_empty_file_system_of_its_own_becomes_a_store() {
    let directory = directory();
    fs::create_dir(directory.path().join("lost+found")).expect("makes");
    open(directory.path(), Layers::Auto);
}

#[test]
fn a_directory_with_something_else_is_refused_and_left_alone() {
    let directory = directory();
    fs::write(directory.path().join("thesis.tex"), "years of work").expect("writes");
    for error in [
        Store::open(directory.path(), Layers::Auto).expect_err("refuses"),
        Store::open_existing(directory.path()).expect_err("refuses"),
    ] {
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    }
    assert_eq!(entries(directory.path()), 1);
    let file = directory.path().join("thesis.tex");
    Store::open(&file, Layers::Auto).expect_err("a file is no directory");
}

#[test]
fn whatever_lies_in_the_place_of_a_store_s_file_nobody_waits_for_it() {
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let mut files = vec!["format".to_owned(), "lock".to_owned(), "usage".to_owned(), "history.jsonl".to_owned()];
    files.extend(["contents".to_owned(), "CACHEDIR.TAG".to_owned()]);
    let object = PathBuf::from("objects").join(sketch.id("a").to_string());
    files.extend(
        ["meta.json", "durable", "digest", "stamp", "alias.json"].map(|name| object.join(name).display().to_string()),
    );
    type Make = fn(&Path);
    let things: [(&str, Make); 3] = [
        ("a named pipe", |path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
                .expect("makes");
        }),
        ("a symbolic link", |path| symlink("/dev/zero", path).expect("links")),
        ("a directory", |path| fs::create_dir(path).expect("makes")),
    ];
    for file in &files {
        for (kind, make) in things {
            let directory = directory();
            let store = open(directory.path(), Layers::Copy);
            let transaction = sketch.begin(&store);
            build(&transaction, None, sketch.id("a"), |root| fs::write(root.join("f"), "a").expect("writes"));
            transaction.settle().expect("settles");
            drop(transaction);
            let path = directory.path().join(file);
            fs::remove_file(&path).ok();
            make(&path);
            let used = || -> Result<(), StoreError> {
                let store = Store::open(directory.path(), Layers::Copy)?;
                store.history()?;
                regular::read(&store.contents()).ok();
                let transaction = Transaction::begin(store.lease(&sketch.graph, sketch.ids())?)?;
                transaction.quick_check(&sketch.plan(transaction.present()), true, &|_| Ok(()))?;
                store.inventory()?;
                store.verify(true, &|_| Ok(()))?;
                store.gc().map(drop)
            };
            let always = ["format", "lock", "history.jsonl"].contains(&file.as_str());
            match used() {
                Ok(()) => assert!(!always, "{file} as {kind}"),
                Err(error) => {
                    let error = error.to_string();
                    let named = error.contains(&path.display().to_string()) && error.contains(kind);
                    assert!(named && error.contains("put an empty file in its place"), "{file} as {kind}: {error}");
                    // Which is true.
                    fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("removes");
                    fs::write(&path, "").expect("writes");
                    used().unwrap_or_else(|error| panic!("{file}, empty: {error}"));
                }
            }
        }
    }
}

#[test]
fn a_store_may_lie_anywhere() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = directory();
    let path = directory.path().join(std::ffi::OsStr::from_bytes(b"st\xff\n\xfe"));
    let sketch = Sketch::chain(&["a"]).finalize();
    let store = open(&path, Layers::Auto);
    let transaction = sketch.begin(&store);
    build(&transaction, None, sketch.id("a"), |root| fs::write(root.join("f"), "a").expect("writes"));
    assert_eq!(read(&transaction, sketch.id("a"), "f"), "a");
    transaction.settle().expect("settles");
    let error = store.sources_to_tell().expect_err("is not UTF-8").to_string();
    assert!(error.contains("on-disk modules") && error.contains("name another store"), "{error}");
}

#[test]
fn root_no_room_for_more_files_is_distinguished_from_no_room_for_bytes() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=50M,nr_inodes=100", "none"]).arg(directory.path()));
    let mounted = Mounted(directory.path().to_owned());
    let store = open(&mounted.0, Layers::Copy);
    let mut number = 0;
    while fs::write(mounted.0.join(format!("downloads/{number}")), "").is_ok() {
        number += 1;
    }
    let error = store.lease_nothing().expect_err("has no room");
    let expected = "no space left for more files, all 100 inodes of the file system are in use";
    assert!(error.to_string().contains(expected), "{error}");
    let hint = store.full(|| 0, None).expect("is full");
    assert!(hint.contains("all 100 inodes"), "{hint}");
    for number in 0..number {
        fs::remove_file(mounted.0.join(format!("downloads/{number}"))).expect("removes");
    }
    assert_eq!(store.full(|| 0, None), None);
}

#[test]
fn a_store_of_the_future_is_refused() {
    let directory = directory();
    open(directory.path(), Layers::Auto);
    fs::write(directory.path().join("format"), "2\n").expect("writes");
    let error = Store::open(directory.path(), Layers::Auto).expect_err("refuses");
    assert!(matches!(error, StoreError::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_committed_result_is_there_for_the_next_lease() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let store = open(directory.path(), Layers::Copy);
    let transaction = sketch.begin(&store);
    assert_eq!(*transaction.present(), CachedSet::default());
    let work = transaction.work(None).expect("begins");
    with_tree(&work.stack().expect("a tree"), |root| {
        assert_eq!(root.metadata().expect("is there").mode() & 0o7777, 0o755);
        fs::write(root.join("file"), "from a").expect("writes");
    });
    let metadata = serde_json::from_str(r#"{"size":123456789012345678901234567890,"version":1.50}"#).expect("JSON");
    work.commit(CommitInfo { source_epoch: None, steps: vec![record(sketch.id("a"), metadata)] }).expect("commits");
    build(&transaction, Some(sketch.id("a")), sketch.id("b"), |root| {
        fs::write(root.join("other"), "b").expect("writes")
    });
    assert_eq!(read(&transaction, sketch.id("b"), "file"), "from a");
    drop(transaction);

    let again = sketch.begin(&store);
    assert_eq!(*again.present(), sketch.ids().collect::<CachedSet>());
    assert_eq!(store.present(&sketch.graph, sketch.ids()), *again.present());
    assert_eq!(read(&again, sketch.id("b"), "other"), "b");
    let object = again.object(sketch.id("a")).expect("is there");
    assert_eq!(object.metadata().to_string(), r#"{"size":123456789012345678901234567890,"version":1.50}"#);
    assert_eq!(object.steps[0].duration, Duration::from_millis(7));
}

#[test]
fn nothing_remains_of_a_tree_that_is_not_committed_nor_of_a_lease() {
    let directory = directory();
    let sketch = Sketch::chain(&["a"]).finalize();
    let store = open(directory.path(), Layers::Copy);
    let transaction = sketch.begin(&store);
    let work = transaction.work(None).expect("begins");
    with_tree(&work.stack().expect("a tree"), |root| fs::write(root.join("file"), "x").expect("writes"));
    let scratch = work.scratch().expect("a directory");
    fs::write(scratch.join("x"), "x").expect("writes");
    assert_eq!(entries(&work.scratch().expect("a new one")), 0);
    drop(work);
    drop(transaction);
    assert_eq!(entries(&directory.path().join("work")), 0);
    assert_eq!(entries(&directory.path().join("objects")), 0);
}

#[test]
fn the_loser_of_a_race_takes_the_winner_s_result() {
    let directory = directory();
    let sketch = Sketch::chain(&["a"]).finalize();
    let store = open(directory.path(), Layers::Copy);
    let (first, second) = (sketch.begin(&store), sketch.begin(&store));
    let works = [first.work(None).expect("begins"), second.work(None).expect("begins")];
    for (work, text) in works.into_iter().zip(["winner", "loser"]) {
        with_tree(&work.stack().expect("a tree"), |root| fs::write(root.join("who"), text).expect("writes"));
        work.commit(info(sketch.id("a"))).expect("commits");
    }
    assert_eq!(read(&second, sketch.id("a"), "who"), "winner");
    drop((first, second));
    assert_eq!(entries(&directory.path().join("work")), 0);
}

#[test]
fn what_is_damaged_is_absent_and_built_again() {
    let sketch = Sketch::chain(&["a"]).finalize();
    let object = |root: &Path| root.join("objects").join(sketch.id("a").to_string());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("a changed bit in the description", |object| {
            let mut text = fs::read(object.join("meta.json")).expect("reads");
            let place = text.windows(10).position(|word| word == b"test.stage").expect("names its stage");
            text[place] ^= 1;
            fs::write(object.join("meta.json"), text).expect("writes");
        }),
        ("no description", |object| fs::remove_file(object.join("meta.json")).expect("removes")),
        ("a cut-off description", |object| {
            let text = fs::read_to_string(object.join("meta.json")).expect("reads");
            fs::write(object.join("meta.json"), &text[..text.len() / 2]).expect("writes");
        }),
        ("another's description", |object| {
            change_meta(object, |meta| meta.id = StageId::from_bytes([0; 32]));
        }),
        ("no tree", |object| fs::remove_dir_all(content(object)).expect("removes")),
        ("an empty directory", |object| {
            fs::remove_dir_all(object).expect("removes");
            fs::create_dir(object).expect("makes");
        }),
        ("a file", |object| {
            fs::remove_dir_all(object).expect("removes");
            fs::write(object, "what?").expect("writes");
        }),
    ];
    for (name, damage) in damages {
        let directory = directory();
        let store = open(directory.path(), Layers::Copy);
        let transaction = sketch.begin(&store);
        build(&transaction, None, sketch.id("a"), |root| fs::write(root.join("file"), "old").expect("writes"));
        drop(transaction);
        damage(&object(directory.path()));
        let transaction = sketch.begin(&store);
        assert_eq!(*transaction.present(), CachedSet::default(), "{name}");
        build(&transaction, None, sketch.id("a"), |root| fs::write(root.join("file"), "new").expect("writes"));
        transaction.settle().expect("settles");
        drop(transaction);
        assert_eq!(read(&sketch.begin(&store), sketch.id("a"), "file"), "new", "{name}");
    }
}

#[test]
fn after_a_crash_of_the_system_only_what_had_reached_the_disk_counts() {
    let directory = directory();
    let sketch = Sketch::chain(&["a"]).finalize();
    let store = open(directory.path(), Layers::Copy);
    let transaction = sketch.begin(&store);
    build(&transaction, None, sketch.id("a"), |_| {});
    transaction.settle().expect("settles");
    let object = directory.path().join("objects").join(sketch.id("a").to_string());
    change_meta(&object, |meta| meta.boot = Some("another boot".to_owned()));
    assert_eq!(*sketch.begin(&store).present(), sketch.ids().collect::<CachedSet>(), "it was durable");
    fs::remove_file(object.join("durable")).expect("was there");
    assert_eq!(*sketch.begin(&store).present(), CachedSet::default(), "its data may be gone");
}

#[test]
fn the_times_of_what_was_written_are_clamped() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let store = open(directory.path(), Layers::Copy);
    let transaction = sketch.begin(&store);
    let work = transaction.work(None).expect("begins");
    with_tree(&work.stack().expect("a tree"), |root| {
        fs::create_dir(root.join("directory")).expect("makes");
        fs::write(root.join("directory/new"), "x").expect("writes");
        fs::write(root.join("old"), "x").expect("writes");
        symlink("/nowhere", root.join("directory/link")).expect("links");
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1000);
        fs::File::open(root.join("old")).expect("opens").set_modified(long_ago).expect("sets");
    });
    work.commit(CommitInfo { source_epoch: Some(77), steps: vec![record(sketch.id("a"), Value::Null)] })
        .expect("commits");
    let time = |name: &str| {
        with_tree(&transaction.tree(sketch.id("a")).expect("reads").expect("is there"), |root| {
            let metadata = root.join(name).symlink_metadata().expect("is there");
            (metadata.mtime(), metadata.mtime_nsec())
        })
    };
    for name in [".", "directory", "directory/new", "directory/link"] {
        assert_eq!(time(name), (77, 0), "{name}");
    }
    assert_eq!(time("old"), (1000, 0));
}

#[test]
fn a_cut_off_download_is_gone_on_with_and_a_finished_one_found() {
    let directory = directory();
    let sketch = Sketch::new().item("sha256:1", json!({"data": "x"})).finalize();
    let store = open(directory.path(), Layers::Auto);
    let never = || false;
    let fetch = |transaction: &Transaction| match transaction
        .download(&ItemKey::new("test.files", "sha256:1"), &never)
        .expect("begins")
    {
        Slot::Fetch(download) => download,
        Slot::There(path) => panic!("{} is there", path.display()),
    };
    let transaction = sketch.begin(&store);
    drop(fetch(&transaction));
    assert_eq!(entries(&directory.path().join("downloads")), 0, "nothing was fetched");
    let cut_off = fetch(&transaction);
    fs::write(cut_off.target(), "half").expect("writes");
    drop(cut_off);
    drop(transaction);

    let store = open(store.path(), Layers::Auto);
    let transaction = sketch.begin(&store);
    let download = fetch(&transaction);
    assert_eq!(fs::read_to_string(download.target()).expect("reads"), "half");
    let other = sketch.begin(&store);
    let waiting =
        std::thread::spawn(move || match other.download(&ItemKey::new("test.files", "sha256:1"), &|| false) {
            Ok(Slot::There(path)) => fs::read_to_string(path).expect("reads"),
            other => panic!("{other:?}"),
        });
    let impatient =
        transaction.download(&ItemKey::new("test.files", "sha256:1"), &|| true).expect_err("was interrupted");
    assert!(matches!(impatient, StoreError::Interrupted));
    fs::write(download.target(), "whole").expect("writes");
    fs::set_permissions(download.target(), fs::Permissions::from_mode(0o600)).expect("sets");
    assert_eq!(download.commit().expect("commits"), 5);
    let metadata =
        transaction.item(&ItemKey::new("test.files", "sha256:1")).expect("a name").metadata().expect("is there");
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()),
        (0o644, 318_211_200, 0),
        "when and how it was fetched does not show"
    );
    assert_eq!(waiting.join().expect("finds it"), "whole");
    assert_eq!(
        fs::read_to_string(transaction.item(&ItemKey::new("test.files", "sha256:1")).expect("a name")).expect("reads"),
        "whole"
    );
    assert_eq!(*sketch.begin(&store).present(), sketch.ids().collect::<CachedSet>());
    assert!(matches!(transaction.item(&ItemKey::new("test.files", "../x")), Err(StoreError::ItemName { .. })));
}

#[test]
fn an_old_part_of_a_download_is_swept() {
    let directory = directory();
    open(directory.path(), Layers::Auto);
    for (name, days) in [("a:new", 6), ("a:old", 8)] {
        let part = directory.path().join("downloads").join(name);
        fs::create_dir(&part).expect("makes");
        fs::write(part.join("data"), "x").expect("writes");
        let time = std::time::SystemTime::now() - Duration::from_secs(days * 86_400);
        fs::File::open(&part).expect("opens").set_modified(time).expect("sets");
    }
    open(directory.path(), Layers::Auto);
    assert!(directory.path().join("downloads/a:new").exists());
    assert!(!directory.path().join("downloads/a:old").exists());
}

/// The stages `s0`, `s1`, … of one pipeline.
fn long_chain(length: usize) -> (FinalizedSketch, Vec<StageId>) {
    let labels: Vec<String> = (0..length).map(|index| format!("s{index}")).collect();
    let sketch = Sketch::chain(&labels.iter().map(String::as_str).collect::<Vec<_>>()).finalize();
    let ids = labels.iter().map(|label| sketch.id(label)).collect();
    (sketch, ids)
}

#[test]
fn root_a_layer_holds_only_what_its_stage_wrote() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(2);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| {
        fs::write(root.join("large"), vec![1; 1 << 20]).expect("writes");
        fs::create_dir(root.join("directory")).expect("makes");
        fs::write(root.join("directory/file"), "old").expect("writes");
        fs::write(root.join("gone"), "x").expect("writes");
        fs::set_permissions(root, fs::Permissions::from_mode(0o750)).expect("sets");
        std::os::unix::fs::chown(root, Some(3), Some(4)).expect("owns");
    });
    let object = build(&transaction, Some(ids[0]), ids[1], |root| {
        fs::write(root.join("directory/file"), "new").expect("writes");
        fs::remove_file(root.join("gone")).expect("removes");
        fs::rename(root.join("directory"), root.join("renamed")).expect("renames a directory of the layer below");
    });
    assert_eq!(object.lowers.iter().map(|lower| lower.id).collect::<Vec<_>>(), [ids[0]]);
    let layer = content(&directory.path().join("objects").join(ids[1].to_string()));
    assert!(!layer.join("large").exists());
    drop(transaction);
    let transaction = sketch.begin(&store);
    assert_eq!(read(&transaction, ids[1], "renamed/file"), "new");
    with_tree(&transaction.tree(ids[1]).expect("reads").expect("is there"), |root| {
        let mut names: Vec<_> =
            fs::read_dir(root).expect("reads").map(|entry| entry.expect("reads").file_name()).collect();
        names.sort();
        assert_eq!(names, ["large", "renamed"]);
        let metadata = root.metadata().expect("is there");
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o750, 3, 4));
        fs::write(root.join("x"), "x").expect_err("a committed tree is read-only");
    });
    assert_eq!(read(&transaction, ids[0], "directory/file"), "old");
}

#[test]
fn root_several_stages_change_one_layer_one_after_the_other() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(3);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| fs::write(root.join("file"), "0").expect("writes"));
    let work = transaction.work(Some(ids[0])).expect("begins");
    for stage in ["1", "2"] {
        with_tree(&work.stack().expect("a tree"), |root| {
            let text = fs::read_to_string(root.join("file")).expect("reads");
            fs::write(root.join("file"), text + stage).expect("writes");
        });
    }
    let steps = vec![record(ids[1], json!(1)), record(ids[2], json!(2))];
    let object = work.commit(CommitInfo { source_epoch: Some(1), steps }).expect("commits");
    assert_eq!((object.id, object.steps.len(), object.metadata()), (ids[2], 2, &json!(2)));
    assert_eq!(read(&transaction, ids[2], "file"), "012");
}

#[test]
fn root_a_stack_never_grows_beyond_its_limit() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(70);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    let mut deepest = 0;
    for (index, id) in ids.iter().enumerate() {
        let base = index.checked_sub(1).map(|before| ids[before]);
        let object = build(&transaction, base, *id, |root| {
            fs::write(root.join(format!("f{index}")), index.to_string()).expect("writes");
            if index >= 2 {
                fs::remove_file(root.join(format!("f{}", index - 2))).expect("removes");
            }
        });
        deepest = deepest.max(object.lowers.len() + 1);
    }
    assert_eq!(deepest, work::MAX_LAYERS);
    let flattened = entries(&directory.path().join("objects")) - ids.len();
    assert_eq!(flattened, 2, "once for each time that the limit was reached");
    let names = with_tree(&transaction.tree(ids[69]).expect("reads").expect("is there"), entries);
    assert_eq!(names, 2);
    assert_eq!(read(&transaction, ids[69], "f69"), "69");
}

#[test]
fn root_a_tall_stack_is_flattened_once_for_all_that_go_on_from_it() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let height = work::MAX_LAYERS;
    let (sketch, ids) = long_chain(height + 4);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    for (index, id) in ids[..height].iter().enumerate() {
        let base = index.checked_sub(1).map(|before| ids[before]);
        build(&transaction, base, *id, |root| fs::write(root.join(format!("f{index}")), "x").expect("writes"));
    }
    let tall = ids[height - 1];
    let lowers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ids[height..]
            .iter()
            .map(|id| scope.spawn(|| build(&transaction, Some(tall), *id, |_| {}).lowers.clone()))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("builds")).collect()
    });
    assert_eq!(entries(&directory.path().join("objects")), ids.len() + 1);
    assert!(lowers.iter().all(|below| below.len() == 1 && *below == lowers[0]), "{lowers:?}");
    drop(transaction);
    let transaction = sketch.begin(&store);
    for id in &ids[height..] {
        let names = with_tree(&transaction.tree(*id).expect("reads").expect("is there"), entries);
        assert_eq!(names, height);
    }
}

#[test]
fn root_an_object_without_its_lower_layers_is_absent() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(3);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    for index in 0..3 {
        build(&transaction, (index > 0).then(|| ids[index - 1]), ids[index], |_| {});
    }
    drop(transaction);
    fs::remove_dir_all(directory.path().join("objects").join(ids[1].to_string())).expect("removes");
    let transaction = sketch.begin(&store);
    assert_eq!(*transaction.present(), [NodeId::Stage(ids[0])].into_iter().collect::<CachedSet>());
    build(&transaction, Some(ids[0]), ids[1], |root| {
        fs::write(root.join("other"), "than the first time").expect("writes")
    });
    drop(transaction);
    let have: CachedSet = [NodeId::Stage(ids[0]), NodeId::Stage(ids[1])].into_iter().collect();
    assert_eq!(*sketch.begin(&store).present(), have, "the last one was made on another");
}

#[test]
fn root_layers_and_plain_trees_read_alike() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let listing = |layers: Layers| {
        let directory = directory();
        let store = open(directory.path(), layers);
        let transaction = sketch.begin(&store);
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
        let work = transaction.work(None).expect("begins");
        with_tree(&work.stack().expect("a tree"), |root| {
            fs::create_dir_all(root.join("d/e")).expect("makes");
            fs::write(root.join("d/e/f"), "1").expect("writes");
            symlink("f", root.join("d/e/l")).expect("links");
        });
        work.commit(CommitInfo { source_epoch: Some(9), steps: vec![record(sketch.id("a"), Value::Null)] })
            .expect("commits");
        let work = transaction.work(Some(sketch.id("a"))).expect("begins");
        with_tree(&work.stack().expect("a tree"), |root| {
            fs::rename(root.join("d/e"), root.join("moved")).expect("renames");
            fs::create_dir(root.join("d/e")).expect("makes");
            fs::write(root.join("d/e/new"), "2").expect("writes");
            fs::set_permissions(root.join("moved/f"), fs::Permissions::from_mode(0o600)).expect("sets");
            fs::File::open(root.join("moved/f")).expect("opens").set_modified(long_ago).expect("sets");
        });
        work.commit(CommitInfo { source_epoch: Some(9), steps: vec![record(sketch.id("b"), Value::Null)] })
            .expect("commits");
        let to = directory.path().join("out");
        crate::export::export(&transaction, Some(sketch.id("b")), &to, Ownership::Keep).expect("exports");
        let mut lines = Vec::new();
        let mut directories = vec![to.clone()];
        while let Some(path) = directories.pop() {
            let metadata = path.symlink_metadata().expect("is there");
            if metadata.is_dir() {
                directories.extend(fs::read_dir(&path).expect("reads").map(|entry| entry.expect("reads").path()));
            }
            let name = path.strip_prefix(&to).expect("is below").display().to_string();
            let clamped = metadata.mtime() < 10;
            lines.push(format!("{name} {:o} {} {clamped}", metadata.mode(), metadata.nlink()));
        }
        lines.sort();
        lines
    };
    assert_eq!(listing(Layers::Overlay), listing(Layers::Copy));
    assert_eq!(listing(Layers::Shuffled), listing(Layers::Copy));
}

/// Runs as a process of its own, which is killed in the middle.
#[test]
#[ignore = "started by the test below"]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os("OSBC_TEST_STORE") else { return };
    let (sketch, ids) = long_chain(2);
    let store = open(Path::new(&path), Layers::Auto);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| fs::write(root.join("file"), "kept").expect("writes"));
    let work = transaction.work(Some(ids[0])).expect("begins");
    with_tree(&work.stack().expect("a tree"), |root| fs::write(root.join("half"), "x").expect("writes"));
    fs::write(Path::new(&path).join("logs/ready"), "").expect("writes");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn root_a_killed_process_leaves_what_it_committed_and_nothing_else() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("store");
    let mut child = Command::new(std::env::current_exe().expect("the test's program"))
        .args(["--exact", "tests::child_that_is_killed", "--ignored", "--nocapture"])
        .env("OSBC_TEST_STORE", &path)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    while !path.join("logs/ready").exists() {
        assert_eq!(child.try_wait().expect("asks"), None, "it runs");
        std::thread::sleep(Duration::from_millis(5));
    }
    let store = open(&path, Layers::Auto);
    assert_eq!(entries(&path.join("work")), 1, "what somebody works on is not swept");
    child.kill().expect("kills");
    assert_eq!(child.wait().expect("ends").signal(), Some(9));
    drop(store);
    let store = open(&path, Layers::Auto);
    assert_eq!(entries(&path.join("work")), 0);
    let (sketch, ids) = long_chain(2);
    let transaction = sketch.begin(&store);
    assert_eq!(*transaction.present(), [NodeId::Stage(ids[0])].into_iter().collect::<CachedSet>());
    assert_eq!(read(&transaction, ids[0], "file"), "kept");
}

#[test]
fn root_a_full_disk_is_reported_and_leaves_nothing_half_written() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    for layers in [Layers::Overlay, Layers::Copy] {
        let directory = directory();
        let mounted = Mounted::new(directory.path(), 8);
        let (sketch, ids) = long_chain(2);
        let store = open(&mounted.0, layers);
        let transaction = sketch.begin(&store);
        build(&transaction, None, ids[0], |root| fs::write(root.join("large"), vec![1; 3 << 20]).expect("writes"));
        let fill = mounted.0.join("fill");
        fill_up(&fill);
        let error = match transaction.work(Some(ids[0])) {
            Err(error) => error,
            Ok(work) => {
                let record = record(ids[1], json!("m".repeat(1 << 20)));
                let info = CommitInfo { source_epoch: None, steps: vec![record] };
                work.commit(info).map(drop).expect_err("there is no room")
            }
        };
        let text = error.to_string();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{layers:?}: {text}");
        assert!(text.contains("no space left, ") && text.contains(" free; make room"), "{text}");
        assert_eq!(entries(&mounted.0.join("objects")), 1, "{layers:?}");
        drop(transaction);
        assert_eq!(entries(&mounted.0.join("work")), 0, "{layers:?}");
        fs::remove_file(fill).expect("makes room");
        let transaction = sketch.begin(&store);
        build(&transaction, Some(ids[0]), ids[1], |_| {});
        transaction.settle().expect("settles");
    }
}

#[test]
fn root_a_read_only_store_is_reported() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let directory = directory();
    let mounted = Mounted::new(directory.path(), 8);
    let sketch = Sketch::chain(&["a"]).finalize();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0));
    let error = Store::open(&mounted.0, Layers::Auto).expect_err("cannot be made");
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    run(Command::new("mount").args(["-o", "remount,rw"]).arg(&mounted.0));
    let store = open(&mounted.0, Layers::Auto);
    drop(store);
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0));
    let looked = Store::open_existing(&mounted.0).expect("looking changes nothing").expect("is there");
    assert_eq!(looked.present(&sketch.graph, sketch.ids()), CachedSet::default());
    let error = match Store::open(&mounted.0, Layers::Auto) {
        Ok(store) => store.lease(&sketch.graph, []).expect_err("cannot be written to"),
        Err(error) => error,
    };
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
}
