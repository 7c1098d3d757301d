//! Large files of which layers keep the changed blocks alone.

use std::os::unix::fs::FileExt;

use super::*;
use crate::objects::large::large_files;

const SIZE: usize = 4 << 20;

/// What is in the file after so many stages: the first writes it, each other one changes a byte.
fn content(stages: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..SIZE).map(|index| (index * 31 % 253) as u8 + 1).collect();
    for stage in 1..stages {
        bytes[stage * 200_000] = 0;
    }
    bytes
}

fn no_items(item: &Item) -> Result<(), String> {
    panic!("{} is no item of these tests", item.path.display())
}

fn change_byte(file: &Path, at: usize) {
    let file = fs::File::options().write(true).open(file).expect("opens");
    file.write_all_at(&[0], at as u64).expect("writes");
}

/// Builds stages that each change a byte of a large file.
fn chain(transaction: &Transaction, ids: &[StageId]) -> Vec<Arc<ObjectMeta>> {
    let first = build(transaction, None, ids[0], |root| {
        fs::create_dir(root.join("d")).expect("makes");
        fs::write(root.join("d/disk.img"), content(1)).expect("writes");
    });
    let pairs = ids.windows(2).enumerate();
    let others = pairs.map(|(index, pair)| {
        build(transaction, Some(pair[0]), pair[1], |root| {
            assert!(fs::read(root.join("d/disk.img")).expect("reads") == content(index + 1), "stage {index}");
            change_byte(&root.join("d/disk.img"), (index + 1) * 200_000);
        })
    });
    [first].into_iter().chain(others.collect::<Vec<_>>()).collect()
}

fn file_of(transaction: &Transaction, id: StageId, name: &str) -> Vec<u8> {
    with_tree(&transaction.tree(id).expect("is put together").expect("is there"), |root| {
        fs::read(root.join(name)).expect("reads")
    })
}

#[test]
fn root_a_change_of_a_byte_costs_a_block_and_every_stage_has_its_file() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(9);
    let transaction = sketch.begin(&store);
    let objects = chain(&transaction, &ids);
    for (stage, object) in objects.iter().enumerate().skip(1) {
        assert!(object.bytes < SIZE as u64 / 4, "stage {stage} takes {}", object.bytes);
        assert_eq!((object.deltas.len(), object.deltas[0].on.id), (1, ids[0]), "stage {stage}");
        assert_eq!(object.deltas[0].changed.len(), stage, "none needs another delta");
    }
    for (stage, id) in ids.iter().enumerate() {
        assert!(file_of(&transaction, *id, "d/disk.img") == content(stage + 1), "stage {stage}");
    }
    drop(transaction);
    // Another build puts the files together from what is in the store.
    let transaction = sketch.begin(&store);
    for (stage, id) in ids.iter().enumerate() {
        assert!(file_of(&transaction, *id, "d/disk.img") == content(stage + 1), "stage {stage}");
        transaction.check(*id).expect("is whole");
    }
    assert_eq!(store.verify(false, &no_items).expect("reads").damages, []);
}

#[test]
fn root_attributes_and_digests_are_those_of_a_whole_file() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let digests = [Layers::Overlay, Layers::Copy].map(|layers| {
        let store = open(&directory.path().join(format!("{layers:?}")), layers);
        let (sketch, ids) = long_chain(4);
        let transaction = sketch.begin(&store);
        let file = |root: &Path| root.join("d/disk.img");
        let set_times = |root: &Path| {
            for path in [file(root), root.join("d"), root.to_owned()] {
                let time = std::time::UNIX_EPOCH + Duration::from_secs(9);
                fs::File::open(path).and_then(|file| file.set_modified(time)).expect("sets");
            }
        };
        build(&transaction, None, ids[0], |root| {
            fs::create_dir(root.join("d")).expect("makes");
            fs::write(file(root), content(1)).expect("writes");
            fs::set_permissions(file(root), fs::Permissions::from_mode(0o4751)).expect("sets");
            fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o2750)).expect("sets");
            std::os::unix::fs::chown(root.join("d"), Some(3), Some(4)).expect("sets");
            set_times(root);
        });
        let changed = build(&transaction, Some(ids[0]), ids[1], |root| {
            change_byte(&file(root), 200_000);
            rustix::fs::setxattr(file(root), "user.a", b"1", rustix::fs::XattrFlags::empty()).expect("sets");
            set_times(root);
        });
        assert_eq!(changed.deltas.len(), usize::from(layers == Layers::Overlay));
        build(&transaction, Some(ids[1]), ids[2], |root| {
            let (file, around) =
                (file(root).metadata().expect("is there"), root.join("d").metadata().expect("is there"));
            assert_eq!((file.mode() & 0o7777, file.mtime(), file.len(), file.nlink()), (0o4751, 9, SIZE as u64, 1));
            assert_eq!((around.mode() & 0o7777, around.uid(), around.gid(), around.mtime()), (0o2750, 3, 4, 9));
            fs::rename(root.join("d/disk.img"), root.join("d/renamed")).expect("renames");
            fs::set_permissions(root.join("d/renamed"), fs::Permissions::from_mode(0o600)).expect("sets");
        });
        build(&transaction, Some(ids[2]), ids[3], |root| change_byte(&root.join("d/renamed"), 400_000));
        assert!(file_of(&transaction, ids[2], "d/renamed") == content(2), "{layers:?}");
        assert!(file_of(&transaction, ids[3], "d/renamed") == content(3), "{layers:?}");
        [0, 1, 2, 3].map(|stage| transaction.digest(ids[stage]).expect("digests"))
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn root_what_changes_much_or_is_made_anew_is_kept_whole() {
    if !osbc_fixtures::has_root() {
        return;
    }
    type Change = fn(&Path);
    let changes: [(&str, Change, usize, usize); 4] = [
        ("most of it", |file| fs::write(file, vec![9; SIZE]).expect("writes"), 0, SIZE),
        (
            "cut off",
            |file| {
                fs::File::options().write(true).open(file).and_then(|file| file.set_len(SIZE as u64 / 2)).expect("cuts")
            },
            1,
            SIZE / 2,
        ),
        (
            "longer",
            |file| {
                fs::File::options()
                    .write(true)
                    .open(file)
                    .and_then(|file| file.write_all_at(b"end", SIZE as u64 + 5))
                    .expect("writes")
            },
            1,
            SIZE + 8,
        ),
        (
            "a hole",
            |file| {
                let file = fs::File::options().write(true).open(file).expect("opens");
                let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, 1 << 20, 1 << 20).expect("punches");
            },
            1,
            SIZE,
        ),
    ];
    for (name, change, deltas, size) in changes {
        let directory = directory();
        let store = open(&directory.path().join("store"), Layers::Overlay);
        let (sketch, ids) = long_chain(2);
        let expected = {
            let transaction = sketch.begin(&store);
            build(&transaction, None, ids[0], |root| fs::write(root.join("disk.img"), content(1)).expect("writes"));
            let mut expected = Vec::new();
            let object = build(&transaction, Some(ids[0]), ids[1], |root| {
                change(&root.join("disk.img"));
                expected = fs::read(root.join("disk.img")).expect("reads");
            });
            assert_eq!(object.deltas.len(), deltas, "{name}");
            assert!(file_of(&transaction, ids[1], "disk.img") == expected, "{name}");
            expected
        };
        assert_eq!(expected.len(), size, "{name}");
        assert!(file_of(&sketch.begin(&store), ids[1], "disk.img") == expected, "{name}");
    }
}

#[test]
fn root_what_fails_in_between_leaves_all_files_whole() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(2);
    let transaction = sketch.begin(&store);
    let names = ["d/disk.img", "second.img"];
    build(&transaction, None, ids[0], |root| {
        fs::create_dir(root.join("d")).expect("makes");
        for name in names {
            fs::write(root.join(name), content(1)).expect("writes");
        }
    });
    let work = transaction.work(Some(ids[0])).expect("begins");
    let time = std::time::UNIX_EPOCH + Duration::from_secs(9);
    with_tree(&work.stack().expect("a tree"), |root| {
        for name in names {
            change_byte(&root.join(name), 200_000);
        }
        fs::File::open(root.join("d")).and_then(|file| file.set_modified(time)).expect("sets");
    });
    let layer = work.upper().dir.clone();
    let own = crate::ObjectRef { id: ids[1], instance: work.instance.clone() };
    let files = large_files(&layer).expect("reads");
    assert_eq!(files.len(), 2);
    // Of the second file not even a hard link can be made there.
    let in_the_way = transaction.directory().join(next_path(&transaction));
    fs::create_dir_all(in_the_way.join(&files[1].path)).expect("makes");
    work.make_deltas(&own, &files).expect_err("something is in the way");
    assert!(transaction.restored().is_empty());
    for name in names {
        assert!(fs::read(layer.join(name)).expect("reads") == content(2), "{name}");
        assert_eq!(layer.join(name).metadata().expect("is there").nlink(), 1, "{name}");
    }
    assert_eq!(layer.join("d").metadata().and_then(|metadata| metadata.modified()).expect("has a time"), time);
    // Tried again, it is done once.
    assert_eq!(work.make_deltas(&own, &files).expect("makes").len(), 2);
    assert_eq!(work.make_deltas(&own, &files).expect("knows").len(), 2);
    work.commit(info(ids[1])).expect("commits");
    for name in names {
        assert!(file_of(&transaction, ids[1], name) == content(2), "{name}");
    }
}

/// The name of the directory that the transaction makes next.
fn next_path(transaction: &Transaction) -> String {
    let last = transaction.new_path();
    let number: u64 =
        last.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a number");
    (number + 1).to_string()
}

#[test]
fn root_a_damaged_delta_is_found() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(2);
    chain(&sketch.begin(&store), &ids);
    let file = content_of(&store, ids[1]).join("d/disk.img");
    change_byte(&file, 200_001);
    let damages = store.verify(false, &no_items).expect("reads").damages;
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].path, object_path(&store, ids[1]));
}

#[test]
fn root_whole_files_go_with_the_last_result_that_needs_them() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(4);
    let transaction = sketch.begin(&store);
    chain(&transaction, &ids);
    assert_eq!(transaction.restored().len(), 3);
    transaction.release(ids[1]).expect("releases");
    transaction.release(ids[2]).expect("releases");
    assert_eq!(transaction.restored().len(), 1);
    assert!(file_of(&transaction, ids[3], "d/disk.img") == content(4));
    transaction.release(ids[3]).expect("releases");
    assert_eq!(transaction.restored().len(), 0);
}

fn content_of(store: &Store, id: StageId) -> PathBuf {
    super::content(&object_path(store, id))
}
