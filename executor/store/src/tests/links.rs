//! Hard links across layers.

use super::*;

#[test]
fn root_a_hard_link_stays_one_across_layers() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(3);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| {
        fs::create_dir(root.join("d")).expect("makes");
        fs::write(root.join("one"), "old").expect("writes");
        fs::hard_link(root.join("one"), root.join("two")).expect("links");
        fs::hard_link(root.join("one"), root.join("d/three")).expect("links");
        fs::write(root.join("apart"), "a").expect("writes");
        fs::hard_link(root.join("apart"), root.join("apart2")).expect("links");
        fs::File::open(root.join("d")).expect("opens").set_modified(std::time::UNIX_EPOCH).expect("sets");
    });
    let object = build(&transaction, Some(ids[0]), ids[1], |root| {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(root.join("two")).expect("opens");
        file.write_all(b" and new").expect("writes");
    });
    let look = |id: StageId| {
        with_tree(&transaction.tree(id).expect("reads").expect("is there"), |root| {
            for name in ["one", "two", "d/three"] {
                assert_eq!(fs::read_to_string(root.join(name)).expect("reads"), "old and new", "{name}");
            }
            let inode = |name: &str| root.join(name).metadata().expect("is there").ino();
            assert_eq!(inode("one"), inode("two"));
            assert_eq!(inode("one"), inode("d/three"));
            assert_eq!(root.join("d").metadata().expect("is there").mtime(), 0, "its directory was not changed");
        });
    };
    look(ids[1]);
    assert_eq!(object.lowers.len(), 1);
    let layer = content(&directory.path().join("objects").join(ids[1].to_string()));
    assert!(!layer.join("apart").exists(), "files that nobody touched stay below");
    build(&transaction, Some(ids[1]), ids[2], |root| fs::write(root.join("more"), "x").expect("writes"));
    look(ids[2]);
}

#[test]
fn root_what_is_left_of_a_hard_linked_file_has_as_many_names_as_there_are() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(2);
    let store = open(directory.path(), Layers::Overlay);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |root| {
        fs::write(root.join("one"), "old").expect("writes");
        for name in ["two", "three"] {
            fs::hard_link(root.join("one"), root.join(name)).expect("links");
        }
    });
    build(&transaction, Some(ids[0]), ids[1], |root| {
        fs::write(root.join("two"), "new").expect("writes");
        fs::remove_file(root.join("two")).expect("removes");
    });
    with_tree(&transaction.tree(ids[1]).expect("reads").expect("is there"), |root| {
        let [one, three] = ["one", "three"].map(|name| root.join(name).metadata().expect("is there"));
        assert_eq!((one.nlink(), one.ino()), (2, three.ino()));
        assert_eq!(fs::read_to_string(root.join("three")).expect("reads"), "new");
    });
}
