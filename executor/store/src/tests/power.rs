//! The power fails: whatever the disk held at that moment is a store that opens, and serves nothing that is not whole.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// How many moments of one build are looked at.
const CUTS: usize = 6;

/// The store as another boot of the system finds it.
fn after_reboot(path: &Path) -> Store {
    let store = open(path, Layers::Overlay);
    let shared = Shared {
        layout: store.shared.layout.clone(),
        settings: store.shared.settings,
        disk: Arc::new(RealDisk),
        keeps: true,
        boot: Some("another boot".to_owned()),
        abilities: OnceLock::new(),
        evict_above: AtomicU64::new(0),
    };
    Store { shared: Arc::new(shared) }
}

/// How many results of the store are marked as durable.
fn marks(mount: &Path) -> usize {
    let Ok(objects) = fs::read_dir(mount.join("store/objects")) else { return 0 };
    objects.flatten().filter(|object| object.path().join("durable").exists()).count()
}

fn wait_for_a_mark(mount: &Path) {
    while marks(mount) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The disk is a file on a file system that can copy it at one moment.
#[test]
fn root_a_power_cut_at_any_moment_leaves_a_store_that_opens() {
    if !osbc_fixtures::has_root() || !["mkfs.btrfs", "mkfs.ext4"].into_iter().all(osbc_fixtures::has_tool) {
        return;
    }
    let directory = directory();
    let outer = Mounted::with("mkfs.btrfs", directory.path(), 512);
    let (sketch, ids) = long_chain(1000);
    let ended = AtomicBool::new(false);
    let inner = Mounted::new(&outer.0, 128);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = open(&inner.0.join("store"), Layers::Overlay);
            let transaction = sketch.begin(&store);
            for (index, id) in ids.iter().enumerate() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let base = index.checked_sub(1).map(|before| ids[before]);
                build(&transaction, base, *id, |root| {
                    fs::write(root.join(format!("f{}", index % 9)), index.to_string().repeat(5000)).expect("writes");
                });
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for cut in 0..CUTS {
            std::thread::sleep(Duration::from_millis(300));
            if cut == CUTS / 2 {
                // A mark reaches the disk with the next sync, whoever asks for it.
                wait_for_a_mark(&inner.0);
                rustix::fs::syncfs(fs::File::open(&inner.0).expect("opens")).expect("syncs");
            }
            let from = fs::File::open(outer.0.join("image")).expect("opens");
            let to = fs::File::create(outer.0.join(format!("cut-{cut}"))).expect("makes");
            rustix::fs::ioctl_ficlone(&to, &from).expect("btrfs has reflinks");
        }
        ended.store(true, Ordering::Relaxed);
    });
    let mut kept = Vec::new();
    for cut in 0..CUTS {
        let mount = outer.0.join(format!("mount-{cut}"));
        fs::create_dir(&mount).expect("makes");
        run(Command::new("mount").args(["-o", "loop"]).arg(outer.0.join(format!("cut-{cut}"))).arg(&mount));
        let mounted = Mounted(mount);
        let store = after_reboot(&mounted.0.join("store"));
        let transaction = sketch.begin(&store);
        let present: Vec<StageId> = ids.iter().copied().filter(|id| transaction.object(*id).is_some()).collect();
        for id in &present {
            transaction.check(*id).expect("what it has is whole");
        }
        drop(transaction);
        for damage in store.verify(true, &|_| Ok(())).expect("verifies").damages {
            let expected = ["went down before", "description", "lies on", "tree is missing"];
            assert!(expected.iter().any(|reason| damage.reason.contains(reason)), "{damage:?}");
        }
        assert_eq!(store.verify(false, &|_| Ok(())).expect("verifies").damages, []);
        let transaction = sketch.begin(&store);
        let next = ids.iter().position(|id| transaction.object(*id).is_none()).unwrap_or(0);
        let base = next.checked_sub(1).map(|before| ids[before]);
        build(&transaction, base, ids[next], |root| fs::write(root.join("after"), "the reboot").expect("writes"));
        assert_eq!(read(&transaction, ids[next], "after"), "the reboot");
        transaction.settle().expect("settles");
        kept.push(present.len());
    }
    assert!(kept.windows(2).all(|pair| pair[0] <= pair[1]), "what had reached the disk stays: {kept:?}");
    assert!(kept[CUTS - 1] > 0, "some had: {kept:?}");
}
