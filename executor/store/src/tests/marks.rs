//! Trees that hold what overlayfs marks its own layers with.

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

fn device_zero(path: &Path) {
    let nothing = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, nothing).expect("makes");
}

fn mark(path: &Path) {
    rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("sets");
}

fn is_marked(path: &Path) -> bool {
    rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut [0; 8]) == Ok(1)
}

#[test]
fn root_what_continues_a_tree_with_marks_is_a_plain_directory() {
    if !osbc_fixtures::has_root() {
        return;
    }
    type Make = fn(&Path);
    type IsThere = fn(&Path) -> bool;
    let kinds: [(&str, Make, IsThere); 2] = [
        (
            "device",
            |root| device_zero(&root.join("d/x")),
            |root| root.join("d/x").symlink_metadata().is_ok_and(|metadata| metadata.rdev() == 0),
        ),
        ("attribute", |root| mark(&root.join("d")), |root| is_marked(&root.join("d"))),
    ];
    for (name, make, is_there) in kinds {
        let directory = directory();
        let store = open(&directory.path().join("store"), Layers::Overlay);
        let (sketch, ids) = long_chain(3);
        let transaction = sketch.begin(&store);
        let first = build(&transaction, None, ids[0], |root| {
            fs::create_dir(root.join("d")).expect("makes");
            make(root);
        });
        assert_eq!((first.marks, first.lowers.len()), (Some(true), 0), "{name}");
        for (base, id) in [(ids[0], ids[1]), (ids[1], ids[2])] {
            let object = build(&transaction, Some(base), id, |root| {
                assert!(is_there(root), "{name}");
                fs::write(root.join(id.short()), "").expect("writes");
            });
            assert_eq!((object.marks, object.lowers.len()), (Some(true), 0), "{name}");
        }
        with_tree(&transaction.tree(ids[2]).expect("reads").expect("is there"), |root| {
            assert!(is_there(root), "{name}")
        });
    }
}

#[test]
fn root_a_plain_tree_can_be_asked_for_and_then_holds_everything() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(3);
    let transaction = sketch.begin(&store);
    let first = build(&transaction, None, ids[0], |root| fs::write(root.join("file"), "content").expect("writes"));
    assert_eq!(first.marks, Some(false));
    let work = transaction.plain_work(Some(ids[0])).expect("begins");
    assert!(work.is_plain());
    with_tree(&work.stack().expect("a tree"), |root| device_zero(&root.join("gone")));
    let object = work.commit(info(ids[1])).expect("commits");
    assert_eq!((object.marks, object.base), (Some(true), Some(ids[0])));
    assert!(transaction.work(Some(ids[1])).expect("begins").is_plain());
    assert_eq!(read(&transaction, ids[1], "file"), "content");
}

#[test]
fn root_a_flattened_tree_is_checked_too() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(work::MAX_LAYERS + 3);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| fs::create_dir(root.join("d")).expect("makes"));
    for (index, pair) in ids.windows(2).enumerate() {
        build(&transaction, Some(pair[0]), pair[1], |root| {
            // The kernel keeps it under another name in the layer.
            for path in [root.to_owned(), root.join("d")] {
                if index == 0 {
                    mark(&path);
                }
                assert!(is_marked(&path), "{index}: {}", path.display());
            }
        });
    }
}

#[test]
fn root_an_object_of_an_earlier_osbc_is_looked_at_when_it_is_continued() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let store = open(&directory.path().join("store"), Layers::Overlay);
    let (sketch, ids) = long_chain(2);
    build(&sketch.begin(&store), None, ids[0], |root| device_zero(&root.join("gone")));
    change_meta(&object_path(&store, ids[0]), |meta| meta.marks = None);
    assert!(sketch.begin(&store).work(Some(ids[0])).expect("begins").is_plain());
}
