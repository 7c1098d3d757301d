//! Each way of keeping trees, forced, and the best one chosen.

use super::*;

const MB: u64 = 1 << 20;

/// What a store's file system has used.
fn used(path: &Path) -> u64 {
    let folder = fs::File::open(path).expect("opens");
    rustix::fs::syncfs(&folder).expect("syncs");
    let stat = rustix::fs::fstatvfs(&folder).expect("asks");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Ten small stages on a file of eight megabytes; gives what they took besides it.
fn ten_stages(store: &Store) -> u64 {
    let (sketch, ids) = long_chain(11);
    let lease = sketch.lease(store);
    let bytes: Vec<u8> = (0..8 * MB).map(|index| (index * 7 % 251) as u8).collect();
    build(&lease, None, ids[0], |root| fs::write(root.join("large"), &bytes).expect("writes"));
    let before = used(store.path());
    for pair in ids.windows(2) {
        build(&lease, Some(pair[0]), pair[1], |root| {
            fs::write(root.join(pair[1].short()), "small").expect("writes");
        });
    }
    let after = used(store.path());
    with_tree(&lease.tree(ids[10]).expect("is there"), |root| {
        assert_eq!(entries(root), 11);
        assert_eq!(fs::read(root.join("large")).expect("reads"), bytes);
    });
    drop(lease);
    assert_eq!(*sketch.lease(store).present(), sketch.ids().collect::<Have>());
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
        let folder = folder();
        let mounted = Mounted::with("mkfs.btrfs", folder.path(), 256);
        let store = open(&mounted.0.join("store"), layers);
        assert_eq!(store.keeping().expect("asks").0, way, "{layers:?}");
        let took = ten_stages(&store);
        assert!((at_least..=at_most).contains(&took), "{layers:?}: {took}");
    }
}

#[test]
fn root_a_way_that_the_file_system_lacks_is_refused() {
    if !osbc_fixtures::has_root() || !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    let folder = folder();
    let mounted = Mounted::new(folder.path(), 16);
    let (sketch, ids) = long_chain(2);
    let store = open(&mounted.0, Layers::Reflink);
    let lease = sketch.lease(&store);
    build(&lease, None, ids[0], |_| {});
    let error = lease.work(Some(ids[0])).expect_err("ext4 has none");
    assert!(matches!(error, StoreError::NoReflinks { .. }), "{error}");
    let (way, why) = open(&mounted.0, Layers::Auto).keeping().expect("asks");
    assert_eq!((way, why.as_str()), (Way::Overlay, "its file system can hold overlayfs layers"));
    let (way, why) = open(&mounted.0, Layers::Copy).keeping().expect("asks");
    assert_eq!((way, why.as_str()), (Way::Copy, "it was asked for"));
}
