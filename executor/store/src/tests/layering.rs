//! Each way of keeping trees, forced, and the best one chosen.

use super::*;

const MB: u64 = 1 << 20;

/// What a store's file system has used.
fn used(path: &Path) -> u64 {
    let directory = fs::File::open(path).expect("opens");
    rustix::fs::syncfs(&directory).expect("syncs");
    let stat = rustix::fs::fstatvfs(&directory).expect("asks");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Ten small stages on a file of eight megabytes; returns what they took besides it.
fn ten_stages(store: &Store) -> u64 {
    let (sketch, ids) = long_chain(11);
    let transaction = sketch.begin(store);
    let bytes: Vec<u8> = (0..8 * MB).map(|index| (index * 7 % 251) as u8).collect();
    build(&transaction, None, ids[0], |root| fs::write(root.join("large"), &bytes).expect("writes"));
    let before = used(store.path());
    for pair in ids.windows(2) {
        build(&transaction, Some(pair[0]), pair[1], |root| {
            fs::write(root.join(pair[1].short()), "small").expect("writes");
        });
    }
    let after = used(store.path());
    with_tree(&transaction.tree(ids[10]).expect("reads").expect("is there"), |root| {
        assert_eq!(entries(root), 11);
        assert_eq!(fs::read(root.join("large")).expect("reads"), bytes);
    });
    drop(transaction);
    assert_eq!(*sketch.begin(store).present(), sketch.ids().collect::<CachedSet>());
    after - before
}

#[test]
fn root_each_way_can_be_forced_and_costs_what_it_should() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.btrfs") {
        return;
    }
    for (layers, way, at_least, at_most) in [
        (Layers::Auto, Way::Overlay, 0, 4 * MB),
        (Layers::Overlay, Way::Overlay, 0, 4 * MB),
        (Layers::Reflink, Way::Reflink, 0, 4 * MB),
        (Layers::Copy, Way::Copy, 80 * MB, 90 * MB),
    ] {
        let directory = directory();
        let mounted = Mounted::with("mkfs.btrfs", directory.path(), 256);
        let store = open(&mounted.0.join("store"), layers);
        assert_eq!(store.keeping().expect("asks").0, way, "{layers:?}");
        let took = ten_stages(&store);
        assert!((at_least..=at_most).contains(&took), "{layers:?}: {took}");
    }
}

#[test]
fn root_shared_bytes_are_counted_once() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.btrfs") {
        return;
    }
    let directory = directory();
    let mounted = Mounted::with("mkfs.btrfs", directory.path(), 256);
    let settings = StoreSettings { layers: Layers::Reflink, limit: Limit::Unlimited };
    let store = Store::open(&mounted.0.join("store"), settings).expect("opens");
    ten_stages(&store);
    let counted = || store.inventory().expect("counts").bytes();
    let all = counted();
    assert!((8 * MB..9 * MB).contains(&all), "{all}");
    assert_eq!(store.usage(), Some(all));

    // The large file is freed with the last copy of the tree, so that one stays longest.
    let (_, ids) = long_chain(11);
    let limited = StoreSettings { limit: Limit::Bytes(all - MB / 8), ..settings };
    let evicted = Store::open(store.path(), limited).and_then(|store| store.gc()).expect("evicts");
    assert!(evicted.objects > 0 && evicted.bytes < MB, "{evicted:?}");
    assert!(object_path(&store, ids[0]).exists());

    // Without the first tree the next one's bytes are its own, and counted there.
    store.remove(&[ids[0]]).expect("removes");
    let left = counted();
    let bytes = if object_path(&store, ids[1]).exists() { 8 * MB..9 * MB } else { 0..MB };
    assert!(bytes.contains(&left), "{left}");
}

/// In which order directories list their files.
fn listed(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for directory in ["", "d", "d/e"] {
        let entries = fs::read_dir(root.join(directory)).expect("reads").map(|entry| entry.expect("reads"));
        all.extend(entries.map(|entry| format!("{directory}/{}", entry.file_name().to_string_lossy())));
    }
    all
}

#[test]
fn root_a_scattered_tree_is_the_same_in_another_order() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let tree = |layers: Layers| {
        let directory = directory();
        let (sketch, ids) = long_chain(3);
        let store = open(directory.path(), layers);
        let transaction = sketch.begin(&store);
        build(&transaction, None, ids[0], |root| {
            fs::create_dir_all(root.join("d/e")).expect("makes");
            for index in 0..6 {
                fs::write(root.join(format!("d/e/{index}")), index.to_string()).expect("writes");
                symlink("/x", root.join(format!("d/link-{index}"))).expect("links");
            }
            fs::hard_link(root.join("d/e/0"), root.join("d/linked")).expect("links");
        });
        let mut orders = Vec::new();
        for index in [1, 2] {
            build(&transaction, Some(ids[index - 1]), ids[index], |root| {
                orders.push(listed(root));
                fs::write(root.join(format!("d/new-{index}")), "new").expect("writes");
                fs::remove_file(root.join(format!("d/e/{index}"))).expect("removes");
                fs::write(root.join("d/linked"), format!("{index}")).expect("writes");
            });
        }
        with_tree(&transaction.tree_for_stages(ids[2]).expect("is made").expect("is there"), |root| {
            orders.push(listed(root));
            assert_eq!(fs::read_to_string(root.join("d/e/0")).expect("reads"), "2");
            assert_eq!(fs::read_to_string(root.join("d/e/5")).expect("reads"), "5");
            assert_eq!(fs::read_link(root.join("d/link-3")).expect("reads"), Path::new("/x"));
        });
        orders
    };
    let (plain, shuffled) = (tree(Layers::Copy), tree(Layers::Shuffled));
    for (mut one, mut other) in plain.into_iter().zip(shuffled) {
        assert_ne!(one, other);
        one.sort();
        other.sort();
        assert_eq!(one, other);
    }
}

#[test]
fn root_a_copy_of_layers_of_an_earlier_build_has_a_digest() {
    if !osbc_fixtures::has_root() {
        return;
    }
    let directory = directory();
    let (sketch, ids) = long_chain(4);
    let store = open(directory.path(), Layers::Shuffled);
    for (index, id) in ids.iter().enumerate() {
        let transaction = sketch.begin(&store);
        build(&transaction, index.checked_sub(1).map(|before| ids[before]), *id, |root| {
            fs::create_dir_all(root.join("d/e")).expect("makes");
            fs::write(root.join(format!("d/{index}")), "x").expect("writes");
        });
        transaction.digest(*id).expect("is made of those of the layers below");
    }
}

#[test]
fn root_a_way_that_the_file_system_lacks_is_refused() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let directory = directory();
    let mounted = Mounted::new(directory.path(), 16);
    let (sketch, ids) = long_chain(2);
    let store = open(&mounted.0, Layers::Reflink);
    let transaction = sketch.begin(&store);
    build(&transaction, None, ids[0], |_| {});
    let error = transaction.work(Some(ids[0])).expect_err("ext4 has none");
    assert!(matches!(error, StoreError::NoReflinks { .. }), "{error}");
    let (way, why) = open(&mounted.0, Layers::Auto).keeping().expect("asks");
    assert_eq!((way, why.as_str()), (Way::Overlay, "its file system can hold overlayfs layers"));
    let (way, why) = open(&mounted.0, Layers::Copy).keeping().expect("asks");
    assert_eq!((way, why.as_str()), (Way::Copy, "it was asked for"));
}
