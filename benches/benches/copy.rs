//! Copying a tree beside `cp -a`: on one core, and on two.

use std::fs;
use std::path::Path;
use std::process::Command;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use osbc_module_api::Tree;
use osbc_module_api::tree::Copy;

/// Files of a tree like a system's: many small ones in directories of a few, some large ones.
fn fill(tree: &Path) {
    for outer in 0..20 {
        for inner in 0..10 {
            let directory = tree.join(format!("{outer}/{inner}"));
            fs::create_dir_all(&directory).expect("the directory is writable");
            for number in 0..20 {
                fs::write(directory.join(format!("file-{number}")), vec![b'x'; 100 + number * 400]).expect("writable");
            }
        }
        fs::write(tree.join(format!("{outer}/large")), vec![b'y'; 4 << 20]).expect("writable");
    }
}

fn copies(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy a tree of 4,020 files, 95 MB");
    group.sample_size(10);
    let place = tempfile::tempdir_in(osbc_fixtures::scratch()).expect("a temporary directory");
    let source = place.path().join("source");
    fill(&source);
    let mut measure = |name: &str, copy: &dyn Fn(&Path)| {
        group.bench_function(name, |b| {
            b.iter_batched(
                || tempfile::tempdir_in(place.path()).expect("a temporary directory"),
                |target| {
                    copy(target.path());
                    target
                },
                BatchSize::PerIteration,
            );
        });
    };
    measure("cp -a", &|target| {
        let status = Command::new("cp").arg("-a").arg(source.join(".")).arg(target).status().expect("cp starts");
        assert!(status.success());
    });
    for (name, threads) in [("osbc, one core", 1), ("osbc, two cores", 2)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        measure(name, &|target| {
            let (from, to) = (Tree::open(&source).expect("it is there"), Tree::open(target).expect("it is there"));
            pool.install(|| Copy::default().run(&from, ".", &to, "/")).expect("it is copied");
        });
    }
    group.finish();
}

criterion_group!(benches, copies);
criterion_main!(benches);
