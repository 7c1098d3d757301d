//! Measures the store.
//!
//! Keeping a large tree after each of ten small stages, and in twenty variants, is compared with `cp -a` and, if
//! `OSBUILD=` names a checkout, with osbuild's checkpoints. Another part changes what all files of the tree are labelled
//! and owned by, and single blocks of a disk image, compared with copies. A third one finds 10,000 cached stages among
//! 100,000 results. Each table comes from one run. Needs root; `OSBC_BENCH_MB` sets the size of the tree (default 1024),
//! `OSBC_BENCH_IMAGE_MB` that of the image (default 4096), `OSBC_BENCH_DIR` where everything is made (default: a
//! directory in `target/`).

#![expect(clippy::print_stdout, reason = "it prints its tables")]

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use osbc_benches::{catalog, graph, lowered, text};
use osbc_fixtures::{has_root, synthetic};
use osbc_ir::{StageId, Value};
use osbc_store::fs::overlay;
use osbc_store::{CommitInfo, Layers, Limit, StepRecord, Store, StoreSettings, Transaction};
use serde_json::json;

const STAGES: usize = 10;
const VARIANTS: usize = 20;
/// How many times the slow peers are asked, and osbuild's stages run.
const FEW: usize = 3;
const OBJECTS: usize = 100_000;

fn main() {
    if !has_root() {
        return;
    }
    let directory = std::env::var_os("OSBC_BENCH_DIR").map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    let place = tempfile::tempdir_in(directory).expect("a directory");
    // An argument names the one table to make.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if "checkpoints".contains(&wanted) {
        checkpoints(place.path());
    }
    if "changes".contains(&wanted) {
        changes(place.path());
    }
    if "many".contains(&wanted) {
        many(place.path());
    }
}

/// Times changes of attributes of all files of a tree, and of single blocks of an image, and measures what they take.
fn changes(place: &Path) {
    let tree = place.join("labelled");
    make_tree(&tree, megabytes("OSBC_BENCH_MB", 1024));
    let store = Store::open(&place.join("changes"), StoreSettings { layers: Layers::Auto, limit: Limit::Unlimited });
    let store = store.expect("opens");
    let transaction = Transaction::begin(store.lease_nothing().expect("a lease")).expect("begins");
    let stage = |base: Option<usize>, number: usize, change: &dyn Fn(&Path)| {
        let (start, before) = (Instant::now(), takes(&store));
        let work = transaction.work(base.map(id)).expect("begins");
        with_tree(&work, change);
        work.commit(info(number)).expect("is committed");
        (start.elapsed(), takes(&store) - before)
    };
    stage(None, 0, &|root| run(Command::new("cp").arg("-a").arg(tree.join(".")).arg(root)));
    transaction.settle().expect("settles");
    let copied = (time(FEW, |number| copy_of(&tree, place, number)), takes_of(&tree));
    println!("\nattributes of all files of the tree, against cp -a: time, bytes");
    let relabel = |root: &Path| {
        let mut command = Command::new("find");
        command.arg(root.join(".")).args([
            "-exec",
            "setfattr",
            "-h",
            "-n",
            "security.selinux",
            "-v",
            "a:b:c:s0",
            "{}",
            "+",
        ]);
        run(&mut command);
    };
    compare("labels (setfattr)", stage(Some(0), 1, &relabel), copied);
    let own = |root: &Path| run(Command::new("chown").args(["-R", "5:6"]).arg(root.join(".")));
    compare("chown -R", stage(Some(0), 2, &own), copied);

    let image = place.join("image");
    std::fs::create_dir(&image).expect("makes");
    let size = megabytes("OSBC_BENCH_IMAGE_MB", 4096);
    let mut random = std::fs::File::open("/dev/urandom").expect("opens");
    let mut to = std::fs::File::create(image.join("disk.img")).expect("makes");
    std::io::copy(&mut std::io::Read::take(&mut random, (size as u64) << 20), &mut to).expect("writes");
    stage(None, 3, &|root| run(Command::new("cp").arg("-a").arg(image.join(".")).arg(root)));
    transaction.settle().expect("settles");
    let copied = (time(1, |number| copy_of(&image, place, number)), takes_of(&image));
    let start = Instant::now();
    let mut bytes = 0;
    for number in 4..4 + STAGES {
        bytes += stage(Some(number - 1), number, &|root| {
            let disk = std::fs::File::options().write(true).open(root.join("disk.img")).expect("opens");
            std::os::unix::fs::FileExt::write_all_at(&disk, &[number as u8; 4096], (number as u64) << 20)
                .expect("writes");
        })
        .1;
        if let Some(before) = number.checked_sub(2).filter(|before| *before >= 3) {
            transaction.release(id(before)).expect("releases");
        }
    }
    println!("\nan image of {size} MB through {STAGES} stages that change a block, against one cp -a: time, bytes");
    compare("all stages", (start.elapsed(), bytes), copied);
}

fn megabytes(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// Copies a directory, syncs the copy to the disk, and removes it.
fn copy_of(from: &Path, place: &Path, number: usize) {
    let to = place.join(format!("copy-{number}"));
    run(Command::new("cp").arg("-a").arg(from).arg(&to));
    run(Command::new("sync").arg("-f").arg(place));
    std::fs::remove_dir_all(&to).expect("removes");
}

fn compare(name: &str, (time, bytes): (Duration, u64), (copy, all): (Duration, u64)) {
    let seconds = time.as_secs_f64();
    println!("  {name:20} {seconds:9.3} s  x{:.3}  x{:.4}", seconds / copy.as_secs_f64(), ratio(bytes, all));
}

/// Times ten checkpoints of a tree and its peers, and measures what twenty variants take.
fn checkpoints(place: &Path) {
    let megabytes = megabytes("OSBC_BENCH_MB", 1024);
    let tree = place.join("tree");
    make_tree(&tree, megabytes);
    let settings = StoreSettings { layers: Layers::Auto, limit: Limit::Unlimited };
    let store = Store::open(&place.join("store"), settings).expect("opens");
    let transaction = Transaction::begin(store.lease_nothing().expect("a lease")).expect("begins");
    let first = transaction.work(None).expect("begins");
    with_tree(&first, |root| run(Command::new("cp").arg("-a").arg(tree.join(".")).arg(root)));
    first.commit(info(0)).expect("is committed");
    transaction.settle().expect("settles");
    let before = takes(&store);

    let start = Instant::now();
    for stage in 1..=STAGES {
        keep(&transaction, stage - 1, stage);
    }
    let committed = start.elapsed();
    transaction.settle().expect("settles");
    let durable = start.elapsed();

    let copy = time(FEW, |number| {
        run(Command::new("cp").arg("-a").arg(&tree).arg(place.join(format!("copy-{number}"))));
        run(Command::new("sync").arg("-f").arg(place));
    });
    for number in 0..FEW {
        std::fs::remove_dir_all(place.join(format!("copy-{number}"))).expect("removes");
    }
    println!("\n{STAGES} checkpoints of a tree of {megabytes} MB after small stages");
    row("osbc, committed", committed, committed);
    row("osbc, synced to the disk", durable, committed);
    row("cp -a (and sync)", copy * STAGES as u32, committed);
    if let Some(each) = osbuild_checkpoint(place, &tree) {
        row("osbuild", each * STAGES as u32, committed);
    }

    for variant in 0..VARIANTS {
        keep(&transaction, 0, 100 + variant);
    }
    transaction.settle().expect("settles");
    let after = takes(&store) - before;
    println!(
        "\n{VARIANTS} variants and {STAGES} checkpoints of it take {:.4} of the tree itself",
        ratio(after, before)
    );
}

fn row(name: &str, duration: Duration, of: Duration) {
    println!("  {name:20} {:9.3} s  x{:.1}", duration.as_secs_f64(), duration.as_secs_f64() / of.as_secs_f64());
}

fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

/// Files of 100 kB, a hundred in a directory.
fn make_tree(tree: &Path, megabytes: usize) {
    let mut bytes = vec![0u8; 100_000];
    for number in 0..megabytes * 10 {
        let directory = tree.join(format!("usr/{}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&directory).expect("makes");
        }
        let mark = (number as u64).to_le_bytes();
        bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&mark));
        std::fs::write(directory.join(number.to_string()), &bytes).expect("writes");
    }
}

fn with_tree(work: &osbc_store::Work<'_>, change: impl FnOnce(&Path)) {
    let root = overlay::open(&work.stack().expect("a tree")).expect("opens");
    change(&PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd())));
}

/// Keeps the result of a stage that writes one small file.
fn keep(transaction: &Transaction, base: usize, stage: usize) {
    let work = transaction.work(Some(id(base))).expect("begins");
    with_tree(&work, |root| std::fs::write(root.join(format!("usr/{stage}.conf")), "small").expect("writes"));
    work.commit(info(stage)).expect("is committed");
}

fn id(number: usize) -> StageId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    StageId::from_bytes(bytes)
}

fn info(number: usize) -> CommitInfo {
    info_of(id(number))
}

fn info_of(id: StageId) -> CommitInfo {
    let step =
        StepRecord { id, module: "org.osbuild.mkdir".to_owned(), metadata: Value::Null, duration: Duration::ZERO };
    CommitInfo { source_epoch: None, steps: vec![step] }
}

/// What the objects of a store take.
fn takes(store: &Store) -> u64 {
    takes_of(&store.path().join("objects"))
}

fn takes_of(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("reads").flatten() {
            let metadata = entry.metadata().expect("is there");
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    bytes
}

/// What one more checkpoint of the tree costs osbuild: builds with and without checkpoints of the small stages, apart.
fn osbuild_checkpoint(place: &Path, tree: &Path) -> Option<Duration> {
    let checkout = PathBuf::from(std::env::var_os("OSBUILD")?);
    let archive = place.join("tree.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(tree).arg("."));
    let sum = Command::new("sha256sum").arg(&archive).output().expect("starts").stdout;
    let item = format!("sha256:{}", String::from_utf8_lossy(&sum[..64]));
    let mut stages = vec![json!({
        "type": "org.osbuild.untar",
        "inputs": {"file": {
            "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [item]
        }}
    })];
    stages.extend(
        (0..FEW).map(
            |stage| json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": format!("/etc{stage}")}]}}),
        ),
    );
    let manifest = place.join("osbuild.json");
    let sources = json!({"org.osbuild.curl": {"items": {&item: "http://not-fetched.invalid/"}}});
    let document = json!({"version": "2", "sources": sources, "pipelines": [{"name": "tree", "stages": stages}]});
    std::fs::write(&manifest, document.to_string()).expect("writes");
    let build = |name: &str, pattern: &str| {
        let store = place.join(name);
        let items = store.join("sources/org.osbuild.files");
        std::fs::create_dir_all(&items).expect("makes");
        std::fs::hard_link(&archive, items.join(&item)).expect("links");
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-m", "osbuild", "--libdir"]).arg(&checkout).env("PYTHONPATH", &checkout).current_dir(place);
        command.args(["--cache-max-size", "unlimited", "--checkpoint", pattern, "--store"]).arg(&store);
        command.args(["--export", "tree", "--output-directory"]).arg(store.join("out"));
        let start = Instant::now();
        run(command.arg(&manifest));
        let took = start.elapsed();
        std::fs::remove_dir_all(&store).expect("removes");
        took
    };
    let (without, with) = (build("osbuild-last", "tree"), build("osbuild-all", "*"));
    Some(with.saturating_sub(without) / FEW as u32)
}

/// Times `plan` and a build with nothing to do, of 10,000 stages, among many more results.
fn many(place: &Path) {
    let manifest = place.join("many.json");
    std::fs::write(&manifest, synthetic(1000, 10)).expect("writes");
    let path = place.join("many");
    let settings = StoreSettings { layers: Layers::Auto, limit: Limit::Unlimited };
    let store = Store::open(&path, settings).expect("opens");
    let graph = graph(lowered(&text(&synthetic(1000, 10)), &catalog()));
    let transaction = Transaction::begin(store.lease_nothing().expect("a lease")).expect("begins");
    let mut stages = 0;
    for node in graph.dag.node_indices() {
        let Some(stage) = graph.stage_node(node) else { continue };
        let base = graph.base(node).and_then(|base| graph.stage_node(base)).map(|base| base.id);
        transaction.work(base).and_then(|work| work.commit(info_of(stage.id))).expect("is committed");
        stages += 1;
    }
    for number in stages..OBJECTS {
        transaction.work(None).and_then(|work| work.commit(info(number))).expect("is committed");
    }
    transaction.settle().expect("settles");
    drop(transaction);
    println!("\n{stages} cached stages among {OBJECTS} results");
    let osbc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/osbc");
    for command in ["plan", "build"] {
        let mut times: Vec<Duration> = (0..7)
            .map(|_| time(1, |_| run(Command::new(&osbc).arg(command).arg(&manifest).arg("--store").arg(&path))))
            .collect();
        times.sort();
        println!("  {command:20} {:6.0} ms  (from {:.0} to {:.0})", ms(times[3]), ms(times[0]), ms(times[6]));
    }
    let counted = time(1, |_| drop(store.inventory().expect("counts")));
    println!("  counting all of them {:6.0} ms", ms(counted));
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The mean of a few times.
fn time(count: usize, mut act: impl FnMut(usize)) -> Duration {
    let start = Instant::now();
    (0..count).for_each(&mut act);
    start.elapsed() / count as u32
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the command starts");
    assert!(status.success(), "{command:?}: {status}");
}
