//! Layers whose files keep their data in the layers below.

use std::os::unix::fs::{FileExt, lchown};

use rustix::fs::XattrFlags;

use super::*;
use crate::digest;

const MB: usize = 1 << 20;

fn no_items(item: &Item) -> Result<(), String> {
    panic!("{} is no item of these tests", item.path.display())
}

/// Sets a time at which no stage runs.
fn set_time(path: &Path) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(5);
    fs::File::open(path).and_then(|file| file.set_modified(time)).expect("sets");
}

type Change = fn(&Path);

/// What stages do to a large file without changing its data, one after the other; the last one does.
const CHANGES: [(&str, Change); 9] = [
    ("mode", |root| fs::set_permissions(root.join("d/large"), fs::Permissions::from_mode(0o600)).expect("sets")),
    ("owner", |root| lchown(root.join("d/large"), Some(7), Some(8)).expect("sets")),
    ("attribute", |root| {
        rustix::fs::setxattr(root.join("d/large"), "user.a", b"1", XattrFlags::empty()).expect("sets");
    }),
    ("time", |root| set_time(&root.join("d/large"))),
    ("time of an open file", |root| {
        let file = fs::OpenOptions::new().write(true).open(root.join("d/large")).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(6)).expect("sets");
    }),
    ("link", |root| fs::hard_link(root.join("d/large"), root.join("linked")).expect("links")),
    ("name", |root| fs::rename(root.join("d/large"), root.join("large")).expect("renames")),
    ("directory", |root| {
        fs::rename(root.join("d"), root.join("e")).expect("renames");
        // The time of the run counts where the name is new.
        set_time(&root.join("e"));
    }),
    ("mode of one name", |root| {
        fs::set_permissions(root.join("linked"), fs::Permissions::from_mode(0o640)).expect("sets");
    }),
];

/// Builds a large file and a stage for each of the changes; returns their objects.
fn changed(transaction: &Transaction, ids: &[StageId]) -> Vec<Arc<ObjectMeta>> {
    let first = build(transaction, None, ids[0], |root| {
        fs::create_dir(root.join("d")).expect("makes");
        fs::write(root.join("d/large"), vec![7; 4 * MB]).expect("writes");
        fs::write(root.join("d/small"), "small").expect("writes");
        for name in ["d/large", "d/small", "d"] {
            set_time(&root.join(name));
        }
    });
    let pairs = ids.windows(2).zip(CHANGES);
    [first]
        .into_iter()
        .chain(pairs.map(|(pair, (_, change))| build(transaction, Some(pair[0]), pair[1], change)))
        .collect()
}

#[test]
fn root_what_changes_no_data_takes_no_room_and_gives_the_same_trees() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let (sketch, ids) = long_chain(CHANGES.len() + 1);
    let ways = [Layers::Overlay, Layers::Copy].map(|layers| {
        let directory = directory();
        let store = open(directory.path(), layers);
        let transaction = sketch.begin(&store);
        let objects = changed(&transaction, &ids);
        let digests: Vec<_> = ids.iter().map(|id| transaction.digest(*id).expect("is computed")).collect();
        with_tree(&transaction.tree(ids[CHANGES.len()]).expect("reads").expect("is there"), |root| {
            let names = ["large", "linked"].map(|name| fs::symlink_metadata(root.join(name)).expect("looks"));
            assert_eq!(names[0].ino(), names[1].ino());
            assert_eq!((names[0].uid(), names[0].mode() & 0o777, names[0].mtime()), (7, 0o640, 6));
            assert_eq!(fs::read(root.join("large")).expect("reads"), vec![7; 4 * MB]);
        });
        drop(transaction);
        assert_eq!(store.verify(false, &no_items).expect("verifies").damages, [], "{layers:?}");
        assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()), "{layers:?}");
        (digests, objects)
    });
    let [(layered, objects), (copied, _)] = ways;
    for (index, (name, _)) in CHANGES.iter().enumerate() {
        let object = &objects[index + 1];
        assert!(object.has_placeholders && object.bytes < 64 << 10, "{name}: {object:?}");
        assert_eq!(layered[index + 1], copied[index + 1], "{name}");
    }
    assert!(!objects[0].has_placeholders);
}

#[test]
fn root_only_what_was_not_changed_is_left_out() {
    type Write = fn(&fs::File);
    let cases: [(&str, Write, bool); 5] = [
        ("nothing", |_| {}, true),
        ("the same bytes", |file| file.write_all_at(&[7; 100], MB as u64).expect("writes"), true),
        ("another byte", |file| file.write_all_at(&[8], 4 * MB as u64 - 1).expect("writes"), false),
        (
            "a hole",
            |file| {
                file.set_len(MB as u64).expect("cuts");
                file.set_len(4 * MB as u64).expect("grows");
            },
            false,
        ),
        ("a byte less", |file| file.set_len(4 * MB as u64 - 1).expect("cuts"), false),
    ];
    if !osbc_fixtures::has_root() {
        return;
    }
    for (name, write, is_same) in cases {
        let directory = directory();
        let (sketch, ids) = long_chain(2);
        let store = open(directory.path(), Layers::Overlay);
        let transaction = sketch.begin(&store);
        let mut expected = Vec::new();
        changed(&transaction, &ids[..1]);
        let object = build(&transaction, Some(ids[0]), ids[1], |root| {
            let path = root.join("d/large");
            write(&fs::OpenOptions::new().write(true).open(&path).expect("opens"));
            expected = fs::read(&path).expect("reads");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("sets");
        });
        assert_eq!(object.has_placeholders, is_same, "{name}");
        assert!(!is_same || object.bytes < 64 << 10, "{name}: {}", object.bytes);
        with_tree(&transaction.tree(ids[1]).expect("reads").expect("is there"), |root| {
            assert!(fs::read(root.join("d/large")).expect("reads") == expected, "{name}");
            assert_eq!(fs::metadata(root.join("d/large")).expect("looks").mode() & 0o7777, 0o4755, "{name}");
        });
    }
}

#[test]
fn root_a_damaged_placeholder_is_found() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let damages: [(&str, Change); 4] = [
        ("cut off", |file| {
            fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(1)).expect("cuts")
        }),
        ("no placeholder", |file| rustix::fs::removexattr(file, "trusted.overlay.metacopy").expect("removes")),
        ("another place", |file| {
            rustix::fs::setxattr(file, "trusted.overlay.redirect", b"/d/small", XattrFlags::empty()).expect("sets");
        }),
        ("mode", |file| fs::set_permissions(file, fs::Permissions::from_mode(0o611)).expect("sets")),
    ];
    for (name, damage) in damages {
        let directory = directory();
        let (sketch, ids) = long_chain(2);
        let store = open(directory.path(), Layers::Overlay);
        let transaction = sketch.begin(&store);
        changed(&transaction, &ids);
        drop(transaction);
        let object = object_path(&store, ids[1]);
        damage(&content(&object).join("d/large"));
        let found = store.verify(false, &no_items).expect("verifies").damages;
        assert_eq!(found.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [&object], "{name}");
    }
}

#[test]
fn root_a_record_of_an_older_format_is_computed_again() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(3);
    let store = open(directory.path(), Layers::Overlay);
    changed(&sketch.begin(&store), &ids);
    let digest = || sketch.begin(&store).digest(ids[2]).expect("is computed");
    let known = digest();
    let records: Vec<_> = ids.iter().map(|id| object_path(&store, *id).join("digest")).collect();
    let kept: Vec<_> = records.iter().map(|path| fs::read(path).expect("reads")).collect();
    for (path, kept) in records.iter().zip(&kept) {
        // Its first byte is the format, its last ones are a hash of all before them.
        let mut older = kept[..kept.len() - 32].to_vec();
        older[0] = 1;
        older.extend_from_slice(blake3::hash(&older).as_bytes());
        fs::write(path, older).expect("writes");
    }
    assert_eq!(digest(), known);
    assert_eq!(records.iter().map(|path| fs::read(path).expect("reads")).collect::<Vec<_>>(), kept);
    assert_eq!(store.usage(), Some(store.inventory().expect("counts").bytes()));
}

#[test]
fn root_an_object_of_the_format_before_placeholders_is_read() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(3);
    let store = open(directory.path(), Layers::Overlay);
    changed(&sketch.begin(&store), &ids[..1]);
    change_meta(&object_path(&store, ids[0]), |meta| {
        meta.format = object::WITHOUT_PLACEHOLDERS;
        meta.longest_path = None;
    });
    assert_eq!(store.verify(false, &no_items).expect("verifies").damages, []);
    let transaction = sketch.begin(&store);
    // How long its paths are is not known.
    let next = build(&transaction, Some(ids[0]), ids[1], CHANGES[0].1);
    assert!(!next.has_placeholders && next.deltas.len() == 1, "{next:?}");
    assert_eq!(next.longest_path, None);
    let deep = digest::written(&content(&object_path(&store, ids[1])), true, next.naming()).expect("reads");
    assert_eq!(Some(deep.digest), next.digest);
}

/// Overlayfs cannot note where the data of such a file is: it would refuse another name for it.
#[test]
fn root_files_with_long_paths_can_be_renamed_and_linked() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let long = PathBuf::from_iter(["long".repeat(30), "path".repeat(30)]);
    let directory = directory();
    let (sketch, ids) = long_chain(6);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| {
        fs::create_dir_all(root.join("d/e")).expect("makes");
        fs::write(root.join("d/e/a-file-with-a-name"), "data").expect("writes");
        fs::create_dir_all(root.join(&long)).expect("makes");
    });
    let chmod = build(&transaction, Some(ids[0]), ids[1], |root| {
        fs::set_permissions(root.join("d/e/a-file-with-a-name"), fs::Permissions::from_mode(0o600)).expect("sets");
    });
    assert!(chmod.has_placeholders);
    let renamed = build(&transaction, Some(ids[1]), ids[2], |root| {
        fs::rename(root.join("d"), root.join(&long).join("d")).expect("renames");
    });
    assert!(renamed.longest_path.is_some_and(|longest| longest > overlay::LONGEST_REDIRECT), "{renamed:?}");
    let file = long.join("d/e/a-file-with-a-name");
    let linked = build(&transaction, Some(ids[2]), ids[3], |root| {
        fs::hard_link(root.join(&file), root.join("linked")).expect("links");
    });
    assert!(!linked.has_placeholders && linked.lowers.len() == 1, "{linked:?}");
    build(&transaction, Some(ids[3]), ids[4], |root| fs::rename(root.join(&file), root.join("name")).expect("renames"));
    assert_eq!(read(&transaction, ids[4], "name"), "data");
    assert_eq!(read(&transaction, ids[4], "linked"), "data");
    drop(transaction);
    assert_eq!(store.verify(false, &no_items).expect("verifies").damages, []);
}
