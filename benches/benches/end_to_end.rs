//! The command as a process: building, building again with nothing to do, inspecting; beside osbuild where `OSBUILD=`
//! names a checkout.
//!
//! Building needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use criterion::{Criterion, criterion_group, criterion_main};
use osbc_fixtures::{has_root, manifest, synthetic};
use serde_json::json;

/// How many file-editing stages the chain has whose overhead is measured.
const CHAIN: usize = 200;

/// How many stages the chain of osbuild's own, Python modules, has.
const PYTHON_CHAIN: usize = 20;

/// The interpreter that osbuild and its modules name.
const PYTHON: &str = "/usr/bin/python3";

/// The release binary, built by `cargo build --release`.
fn osbc() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/osbc");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(|dir| PathBuf::from(dir).join("release/osbc"));
    let path = target.unwrap_or(path);
    assert!(path.exists(), "{} is not there: run `cargo build --release` first", path.display());
    path
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the command starts");
    assert!(status.success(), "{command:?}: {status}");
}

fn build(manifest: &Path, store: &Path) -> Command {
    let mut command = Command::new(osbc());
    command.arg("build").arg(manifest).arg("--store").arg(store);
    command
}

/// The checkout of osbuild that `OSBUILD=` names.
fn checkout() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("OSBUILD")?))
}

/// `python3 -m osbuild` in the checkout.
fn osbuild() -> Option<Command> {
    let checkout = checkout()?;
    let mut command = Command::new(PYTHON);
    command.args(["-m", "osbuild", "--libdir", "."]).current_dir(checkout);
    Some(command)
}

/// A manifest of many stages, and where there is a checkout the largest of its samples, which is mostly packages.
fn inspect(c: &mut Criterion) {
    let mut group = c.benchmark_group("inspect");
    group.sample_size(10);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("manifest.json");
    std::fs::write(&path, synthetic(230, 10)).expect("the directory is writable");
    let sample = checkout().map(|checkout| checkout.join("samples/fedora-ostree-bootiso-xz.json"));
    for (name, path) in [("2,300 stages, 360 kB", Some(path)), ("a sample of 480 kB", sample)] {
        let Some(path) = path else { continue };
        group.bench_function(format!("{name}, osbc"), |b| {
            b.iter(|| run(Command::new(osbc()).args(["inspect", "--ids", "osbuild"]).arg(&path)));
        });
        if osbuild().is_some() {
            group.bench_function(format!("{name}, osbuild"), |b| {
                b.iter(|| run(osbuild().expect("just asked").arg("--inspect").arg(&path)));
            });
        }
    }
    group.finish();
}

fn builds(c: &mut Criterion) {
    if !has_root() {
        return;
    }
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let quickstart = manifest("quickstart.json");
    let warm = dir.path().join("warm");
    run(&mut build(&quickstart, &warm));
    group.bench_function("the quickstart, nothing to do", |b| b.iter(|| run(&mut build(&quickstart, &warm))));
    group.bench_function("the quickstart, empty store", |b| {
        b.iter_batched(
            || tempfile::tempdir_in(dir.path()).expect("a temporary directory"),
            |store| {
                run(&mut build(&quickstart, store.path()));
                store
            },
            criterion::BatchSize::PerIteration,
        );
    });

    let chain = chain(dir.path(), CHAIN);
    group.bench_function(format!("{CHAIN} file-editing stages, osbc"), |b| {
        b.iter_batched(
            || tempfile::tempdir_in(dir.path()).expect("a temporary directory"),
            |store| {
                run(&mut build(&chain, store.path()));
                store
            },
            criterion::BatchSize::PerIteration,
        );
    });
    if osbuild().is_some() {
        group.bench_function(format!("{CHAIN} file-editing stages, osbuild"), |b| {
            b.iter_batched(
                || tempfile::tempdir_in(dir.path()).expect("a temporary directory"),
                |store| {
                    run(&mut osbuild_build(&chain, store.path()));
                    store
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A chain of stages that each make a directory, as a manifest in `dir`.
fn chain(dir: &Path, length: usize) -> PathBuf {
    let stages: Vec<_> = (0..length)
        .map(|number| json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": format!("/d{number}")}]}}))
        .collect();
    let path = dir.join(format!("chain-{length}.json"));
    let document = json!({"version": "2", "pipelines": [{"name": "tree", "stages": stages}]});
    std::fs::write(&path, document.to_string()).expect("the directory is writable");
    path
}

/// A build by osbuild with a store below `dir`.
fn osbuild_build(manifest: &Path, dir: &Path) -> Command {
    let mut command = osbuild().expect("only asked for where there is a checkout");
    command.args(["--export", "tree", "--store"]).arg(dir.join("store"));
    command.arg("--output-directory").arg(dir.join("out")).arg(manifest);
    command
}

/// A chain of osbuild's own modules: what the interpreter takes for as many starts of the module, imports included;
/// osbc; and osbuild.
fn python_stages(c: &mut Criterion) {
    let Some(checkout) = checkout().filter(|_| has_root()) else { return };
    let mut group = c.benchmark_group(format!("{PYTHON_CHAIN} Python stages"));
    group.sample_size(10);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let chain = chain(dir.path(), PYTHON_CHAIN);
    let fresh = || tempfile::tempdir_in(dir.path()).expect("a temporary directory");
    let stage = checkout.join("stages/org.osbuild.mkdir");
    group.bench_function("the interpreter alone", |b| {
        b.iter(|| {
            for _ in 0..PYTHON_CHAIN {
                let mut command = Command::new(PYTHON);
                command.args(["-c", "import runpy, sys; runpy.run_path(sys.argv[1], run_name='imported')"]);
                run(command.arg(&stage).env("PYTHONPATH", &checkout));
            }
        });
    });
    let per = criterion::BatchSize::PerIteration;
    group.bench_function("osbc", |b| {
        let osbc = |store: tempfile::TempDir| {
            run(build(&chain, store.path()).args(["--modules", "libdir", "--libdir"]).arg(&checkout));
            store
        };
        b.iter_batched(fresh, osbc, per);
    });
    group.bench_function("osbuild", |b| {
        let osbuild = |store: tempfile::TempDir| {
            run(&mut osbuild_build(&chain, store.path()));
            store
        };
        b.iter_batched(fresh, osbuild, per);
    });
    group.finish();
}

criterion_group!(benches, inspect, builds, python_stages);
criterion_main!(benches);
