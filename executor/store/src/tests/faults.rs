//! A disk that fails at any one change: the failure is reported, nothing half made is ever found, and the next try
//! succeeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::*;

/// Fails one change, or from it on all.
#[derive(Debug)]
struct FaultyDisk {
    /// How many more changes succeed.
    left: AtomicUsize,
    error: Errno,
    /// Whether the failing change is made all the same, as by a disk that fails to say so.
    made: bool,
    /// Whether those after it succeed again.
    once: bool,
    failed: Mutex<Vec<String>>,
}

impl Disk for FaultyDisk {
    fn change(&self, act: &'static str, path: &Path, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if left == usize::MAX {
            return change();
        }
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            return change();
        }
        if self.once {
            self.left.store(usize::MAX, Ordering::SeqCst);
        }
        if self.made {
            change()?;
        }
        self.failed.lock().expect("nobody panicked").push(format!("{act} {}", path.display()));
        Err(self.error.into())
    }
}

/// What is in a large file, of which the second result changes a byte.
fn large(changed: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..400_000_u32).map(|index| (index * 7 % 251) as u8 + 1).collect();
    bytes[70_000] = u8::from(!changed);
    bytes
}

/// Makes two results and an item, the second result on the first; says how far it came.
fn build_all(store: &Store, sketch: &FinalizedSketch) -> Result<(), StoreError> {
    let transaction = Transaction::begin(store.lease(&sketch.graph, sketch.ids())?)?;
    if let Slot::Fetch(download) = transaction.download(&ItemKey::new("test.files", "sha256:1"), &|| false)? {
        fs::write(download.target(), "item").expect("the disk itself is fine");
        download.commit()?;
    }
    let mut base = None;
    for label in ["a", "b"] {
        let id = sketch.id(label);
        if transaction.object(id).is_none() {
            let work = transaction.work(base)?;
            work.scratch()?;
            with_tree(&work.stack()?, |root| {
                fs::write(root.join(label), label).expect("the disk itself is fine");
                let file = fs::File::options().create(true).truncate(false).write(true).open(root.join("large"));
                std::os::unix::fs::FileExt::write_all_at(&file.expect("opens"), &large(label == "b"), 0)
                    .expect("writes");
            });
            work.commit(CommitInfo { source_epoch: Some(7), ..info(id) })?;
        }
        base = Some(id);
    }
    transaction.settle()
}

fn survives_every_fault(layers: Layers, place: &Path) {
    let sketch = Sketch::chain(&["a", "b"]).item("sha256:1", json!({"data": "item"})).finalize();
    let mut seen = std::collections::BTreeSet::new();
    let errors = [
        (Errno::NOSPC, false, true),
        (Errno::NOSPC, false, false),
        (Errno::IO, true, true),
        (Errno::IO, false, false),
        (Errno::ROFS, false, false),
    ];
    for (error, made, once) in errors {
        for nth in 0.. {
            let directory = tempfile::tempdir_in(place).expect("a directory");
            // What is at stake is a build, not the making of the store.
            drop(open(directory.path(), layers));
            let (left, failed) = (AtomicUsize::new(nth), Mutex::default());
            let disk = Arc::new(FaultyDisk { left, error, made, once, failed });
            let store = Store::open_on(directory.path(), layers.into(), Arc::<FaultyDisk>::clone(&disk) as _);
            let built = store.and_then(|store| build_all(&store, &sketch));
            let failed = disk.failed.lock().expect("nobody panicked").clone();
            let Some(first) = failed.first() else {
                built.expect("nothing failed");
                assert!(nth > 15, "a build changes more than {nth} things");
                break;
            };
            let words: Vec<&str> = first.split('/').next().unwrap_or_default().split(' ').collect();
            seen.insert(words.join(" ").trim_end().to_owned());
            let case = || format!("{layers:?}, {error} at change {nth}: {first}");
            if let Err(built) = built {
                let reported = match error {
                    Errno::NOSPC => matches!(built, StoreError::NoSpace { .. }),
                    Errno::ROFS => matches!(built, StoreError::ReadOnly { .. }),
                    _ => matches!(built, StoreError::Io { .. } | StoreError::NoSpace { .. }),
                };
                assert!(reported, "{}: {built}", case());
            }
            let store = open(directory.path(), layers);
            assert_eq!(entries(&directory.path().join("work")), 0, "{}", case());
            let verified = store.verify(false, &|item| whole_item(&item.path)).expect("reads");
            // A mark that could not be taken back is as good as none: such an object was committed, and is whole.
            assert_eq!(verified.damages, [], "{}", case());
            build_all(&store, &sketch).unwrap_or_else(|error| panic!("{}: {error}", case()));
            let transaction = sketch.begin(&store);
            assert_eq!(*transaction.present(), sketch.ids().collect::<CachedSet>(), "{}", case());
            transaction.check(sketch.id("b")).expect("is whole");
            assert_eq!(
                (read(&transaction, sketch.id("b"), "a"), read(&transaction, sketch.id("b"), "b")),
                ("a".into(), "b".into())
            );
            with_tree(&transaction.tree(sketch.id("b")).expect("is put together").expect("is there"), |root| {
                assert!(fs::read(root.join("large")).expect("reads") == large(true), "{}", case());
            });
            drop(transaction);
            let counted = store.gc().expect("counts").left;
            assert_eq!(store.usage(), Some(counted), "{}", case());
        }
    }
    for act in ["make", "write", "put in place", "set the times of", "write to the disk", "lock"] {
        assert!(seen.contains(act), "{act} was not among {seen:?}");
    }
}

fn whole_item(path: &Path) -> Result<(), String> {
    (fs::read_to_string(path).expect("reads") == "item").then_some(()).ok_or_else(|| "it is cut off".to_owned())
}

#[test]
fn a_store_of_whole_trees_survives_every_fault() {
    survives_every_fault(Layers::Copy, directory().path());
}

#[test]
fn root_a_store_of_layers_survives_every_fault() {
    if osbc_fixtures::has_root() {
        let directory = directory();
        survives_every_fault(Layers::Overlay, &Mounted::in_memory(directory.path()).0);
    }
}

/// Notes what is changed, and fails where the test says.
#[derive(Debug, Default)]
struct WatchedDisk {
    /// The first sync fails as a disk that is broken; the file system then takes no more changes.
    breaks: bool,
    acts: Mutex<Vec<String>>,
}

impl Disk for WatchedDisk {
    fn change(&self, act: &'static str, path: &Path, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut acts = self.acts.lock().expect("nobody panicked");
        let is_sync = act == "write to the disk what is in";
        if self.breaks && acts.iter().any(|act| act == "sync") {
            return Err(Errno::ROFS.into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        acts.push(if is_sync { "sync".to_owned() } else { name });
        if self.breaks && is_sync { Err(Errno::IO.into()) } else { change() }
    }
}

#[test]
fn what_a_finished_build_made_is_on_the_disk_and_so_are_the_marks() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let disk = Arc::new(WatchedDisk::default());
    let store =
        Store::open_on(directory.path(), Layers::Copy.into(), Arc::<WatchedDisk>::clone(&disk) as _).expect("opens");
    build_all(&store, &sketch).expect("builds");
    let marks_and_syncs = || {
        let acts = disk.acts.lock().expect("nobody panicked").clone();
        acts.into_iter().filter(|act| act == "sync" || act == "durable").collect::<Vec<_>>()
    };
    assert_eq!(marks_and_syncs(), ["sync", "durable", "durable", "sync"]);
    // An alias has no mark, and is to be there too.
    let transaction = sketch.begin(&store);
    let object = transaction.object(sketch.id("b")).expect("was built");
    fs::remove_dir_all(object_path(&store, sketch.id("a"))).expect("removes");
    transaction.adopt(sketch.id("a"), &object.reference()).expect("the disk takes it").expect("it is there");
    transaction.settle().expect("settles");
    assert_eq!(marks_and_syncs()[4..], ["sync", "sync"]);
    // Who makes nothing waits for nothing.
    build_all(&store, &sketch).expect("has all");
    assert_eq!(marks_and_syncs().len(), 6);
}

#[test]
fn a_broken_disk_is_reported_as_such_though_it_takes_no_changes_then() {
    let directory = directory();
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let disk = Arc::new(WatchedDisk { breaks: true, acts: Mutex::default() });
    let store = Store::open_on(directory.path(), Layers::Copy.into(), disk as _).expect("opens");
    let error = build_all(&store, &sketch).expect_err("the disk is broken");
    assert!(error.to_string().contains("Input/output error"), "{error}");
}
