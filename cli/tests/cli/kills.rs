//! Builds that are killed at random moments, many times over: what remains is a sound store and nothing else.
//!
//! `OSBC_KILL_RUNS=200 cargo test -p osbc --test cli kills` runs the full number.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use osbc_fixtures::{has_root, manifest};

use crate::harness::{Place, leftovers, osbc};

/// How many builds are killed when nothing else is said.
const FEW: usize = 8;
/// How many builds share a store at the same time.
const PROCESSES: usize = 8;
/// A limit that the twenty variants do not fit into.
const TIGHT: &str = "150kB";

fn runs() -> usize {
    std::env::var("OSBC_KILL_RUNS").map_or(FEW, |text| text.parse().expect("OSBC_KILL_RUNS is a number"))
}

/// A random number below `end`.
fn random(end: u64) -> u64 {
    RandomState::new().hash_one(0) % end
}

/// Starts a build of the twenty variants in a process group of its own, by which all of its processes are found.
fn start(place: &Place, output: &str, more: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("osbc"))
        .arg("build")
        .arg(manifest("variants.json"))
        .arg("--store")
        .arg(place.store())
        .arg("-o")
        .arg(place.path(output))
        .args(["-j", "8"])
        .args(more)
        .env("OSBC_TEST_MARK", place.path(""))
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("osbc starts")
}

/// Ends a build at once, with all its processes or without them.
fn end(mut build: Child) {
    let id = Pid::from_raw(i32::try_from(build.id()).expect("an id of a process"));
    // It may be over already.
    if random(2) == 0 { killpg(id, Signal::SIGKILL) } else { kill(id, Signal::SIGKILL) }.ok();
    build.wait().expect("it ends");
}

/// The processes that were started by builds in a place, or see a mount in it.
fn processes(place: &Place) -> Vec<String> {
    let mark = format!("OSBC_TEST_MARK={}", place.path("").display());
    let path = place.path("").display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let is_ours = |directory: &Path| {
        let marked = std::fs::read(directory.join("environ"));
        let mounts = std::fs::read_to_string(directory.join("mountinfo"));
        marked.is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark.as_bytes()))
            || mounts.is_ok_and(|text| text.contains(&path))
    };
    entries
        .map(|entry| entry.path())
        .filter(|directory| directory.join("status").exists() && is_ours(directory))
        .map(|directory| std::fs::read_to_string(directory.join("comm")).unwrap_or_default())
        .collect()
}

/// Waits until what the killed builds started is gone; the kernel ends it a moment later.
fn assert_nothing_left(place: &Place) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = processes(place);
        if found.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "still there: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

/// Everything in a directory: modes, and contents or targets.
fn listing(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(&next).expect("is there").flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("is there"));
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).expect("a file")
            };
            let name = path.strip_prefix(directory).expect("is below").display().to_string();
            found.insert(name, (metadata.permissions().mode(), content));
        }
    }
    found
}

/// What a build gives that nobody disturbs, and how long it takes.
fn undisturbed() -> (BTreeMap<String, (u32, Vec<u8>)>, Duration) {
    let place = Place::new();
    let start_of_it = Instant::now();
    assert!(start(&place, "out", &[]).wait().expect("it ends").success());
    (listing(&place.output()), start_of_it.elapsed())
}

/// Evicts everything, so that the next builds have work to do.
fn empty(place: &Place) {
    // Every build so far may have been killed before it made the store.
    if !place.store().join("format").exists() {
        return;
    }
    osbc().args(["store", "gc", "--store-size", "0", "--store"]).arg(place.store()).assert().success();
}

fn assert_sound(place: &Place, expected: &BTreeMap<String, (u32, Vec<u8>)>) {
    assert_nothing_left(place);
    assert!(start(place, "out", &[]).wait().expect("it ends").success());
    assert_eq!(listing(&place.output()), *expected);
    assert_nothing_left(place);
    let work = std::fs::read_dir(place.store().join("work")).expect("the store has its directories");
    assert_eq!(work.count(), 0, "what dead builds left is swept");
    osbc().args(["store", "verify", "--store"]).arg(place.store()).assert().success();
}

#[test]
fn root_builds_killed_at_random_moments_leave_a_sound_store_and_nothing_else() {
    if !has_root() {
        return;
    }
    let (expected, whole) = undisturbed();
    let place = Place::new();
    for run in 0..runs() {
        if run % 3 == 2 {
            empty(&place);
        }
        let build = start(&place, "killed", &[]);
        std::thread::sleep(whole.mul_f64(random(1000) as f64 / 1000.0));
        end(build);
        assert_nothing_left(&place);
    }
    assert_sound(&place, &expected);
}

#[test]
fn root_builds_of_one_store_that_evict_all_the_time_are_killed_and_leave_it_sound() {
    if !has_root() {
        return;
    }
    let (expected, whole) = undisturbed();
    let place = Place::new();
    for _ in 0..runs().div_ceil(PROCESSES) {
        let limit = ["--store-size", TIGHT];
        let builds: Vec<Child> = (0..PROCESSES).map(|number| start(&place, &format!("out-{number}"), &limit)).collect();
        for (number, mut build) in builds.into_iter().enumerate() {
            if number % 4 == 3 {
                // One that is left alone gets what it should, whatever becomes of the others.
                assert!(build.wait().expect("it ends").success());
                assert_eq!(listing(&place.path(&format!("out-{number}"))), expected);
            } else {
                std::thread::sleep(whole.mul_f64(random(1000) as f64 / 1000.0));
                end(build);
            }
        }
        assert_nothing_left(&place);
    }
    assert_sound(&place, &expected);
}
