//! What osbuild's store promises, as osbuild reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::testing::directory;

fn id(number: u8) -> CompatId {
    CompatId::from_bytes([number; 32])
}

/// An object with a file of so many kibibytes.
fn put(cache: &Cache, number: u8, kibibytes: usize) {
    let filled = cache.store(id(number), |data| {
        fs::create_dir(data.join("tree")).expect("makes");
        fs::write(data.join("tree/file"), vec![number; kibibytes << 10]).expect("writes");
        Ok(())
    });
    filled.expect("stores");
}

fn object(cache: &Cache, number: u8) -> PathBuf {
    cache.root.join("objects").join(id(number).to_string())
}

/// Notes that an object was used so many seconds after 1970.
fn used_at(cache: &Cache, number: u8, second: i64) {
    let lock = fs::File::open(object(cache, number).join(OBJECT_LOCK)).expect("opens");
    let last_access = Timespec { tv_sec: second, tv_nsec: 0 };
    let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    rustix::fs::futimens(lock, &Timestamps { last_access, last_modification }).expect("sets");
}

fn size(cache: &Cache) -> u64 {
    fs::read_to_string(cache.root.join(CACHE_SIZE)).expect("reads").parse().expect("a number")
}

fn objects(cache: &Cache) -> Vec<u8> {
    (0..=9).filter(|number| cache.has(id(*number))).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("reads");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("reads").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_new_store_looks_like_osbuilds() {
    let directory = directory();
    let path = directory.path().join("a/store");
    Cache::open(&path, None).expect("opens");
    assert_eq!(names(&path), ["CACHEDIR.TAG", "cache.info", "cache.lock", "cache.size", "objects", "stage", "tmp"]);
    assert!(fs::read_to_string(path.join("CACHEDIR.TAG")).expect("reads").starts_with("Signature: 8a477f597d28d172"));
    assert_eq!(fs::read_to_string(path.join(CACHE_INFO)).expect("reads"), r#"{"version": 1}"#);
    assert_eq!(fs::metadata(path.join(CACHE_LOCK)).expect("is there").permissions().mode() & 0o777, 0o644);
    assert!(names(&path.join("objects")).is_empty());
}

#[test]
fn an_object_is_found_again_and_counted() {
    let directory = directory();
    let cache = Cache::open(directory.path(), None).expect("opens");
    put(&cache, 1, 100);
    assert_eq!(objects(&cache), [1]);
    let info: Value =
        serde_json::from_slice(&fs::read(object(&cache, 1).join(OBJECT_INFO)).expect("reads")).expect("JSON");
    assert_eq!(info["size"], size(&cache));
    assert_eq!(info["creation-boot-id"].as_str().map(str::len), Some(32));
    assert!(size(&cache) >= 100 << 10);
    let before = size(&cache);
    put(&cache, 1, 10);
    assert_eq!(size(&cache), before, "the first one stays");
    let found = cache.load(id(1)).expect("loads").expect("is there");
    assert_eq!(fs::metadata(found.data().join("tree/file")).expect("is there").len(), 100 << 10);
    assert_eq!(names(&directory.path().join("objects")), [id(1).to_string()], "nothing unfinished stays");
}

#[test]
fn the_limit_is_noted_and_all_else_left_as_it_is() {
    let directory = directory();
    fs::write(directory.path().join(CACHE_INFO), r#"{"version": 1, "colour": "green", "maximum-size": "unlimited"}"#)
        .expect("writes");
    let cache = Cache::open(directory.path(), Some(Limit::Bytes(1 << 20))).expect("opens");
    let info: Value =
        serde_json::from_slice(&fs::read(directory.path().join(CACHE_INFO)).expect("reads")).expect("JSON");
    assert_eq!(info, serde_json::json!({"version": 1, "colour": "green", "maximum-size": 1 << 20}));
    put(&cache, 1, 2 << 10);
    assert!(objects(&cache).is_empty(), "it can never fit");
    assert_eq!(size(&cache), 0);
}

#[test]
fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
    let directory = directory();
    let cache = Cache::open(directory.path(), Some(Limit::Bytes(1 << 20))).expect("opens");
    for number in 1..=3 {
        put(&cache, number, 300);
        used_at(&cache, number, 1000 - i64::from(number));
    }
    let used = cache.load(id(3)).expect("loads").expect("is there");
    used_at(&cache, 3, 10);
    put(&cache, 4, 300);
    assert_eq!(objects(&cache), [3, 4], "the oldest two make room for twice as much; the third is in use");
    drop(used);
    assert!(size(&cache) <= 1 << 20 && size(&cache) >= 600 << 10, "{}", size(&cache));
    used_at(&cache, 3, 10);
    put(&cache, 5, 500);
    assert_eq!(objects(&cache), [5]);
}

#[test]
fn without_room_nothing_is_stored() {
    let directory = directory();
    let cache = Cache::open(directory.path(), Some(Limit::Bytes(1 << 20))).expect("opens");
    put(&cache, 1, 600);
    let used = cache.load(id(1)).expect("loads").expect("is there");
    put(&cache, 2, 600);
    assert_eq!(objects(&cache), [1]);
    assert_eq!(names(&directory.path().join("objects")).len(), 1);
    drop(used);
}

#[test]
fn an_object_that_others_hold_or_left_unfinished_counts_as_absent() {
    let directory = directory();
    let cache = Cache::open(directory.path(), None).expect("opens");
    put(&cache, 1, 1);
    let lock = object(&cache, 1).join(OBJECT_LOCK);
    let held = file::open(&lock, Lock::Exclusive, file::Wait::No, OFlags::empty()).expect("opens").taken();
    assert!(objects(&cache).is_empty());
    drop(held);
    assert_eq!(objects(&cache), [1]);
    fs::remove_file(object(&cache, 1).join(OBJECT_INFO)).expect("was there");
    assert!(objects(&cache).is_empty());
}

#[test]
fn a_failed_object_leaves_nothing() {
    let directory = directory();
    let cache = Cache::open(directory.path(), None).expect("opens");
    let failed = cache.store(id(1), |data| {
        fs::write(data.join("half"), "of it").expect("writes");
        Err(StoreError::Interrupted)
    });
    assert!(matches!(failed, Err(StoreError::Interrupted)));
    assert!(names(&directory.path().join("objects")).is_empty());
    assert_eq!(size(&cache), 0);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let directory = directory();
    let cache = Cache::open(directory.path(), None).expect("opens");
    put(&cache, 1, 1);
    drop(cache);
    fs::write(directory.path().join(CACHE_INFO), r#"{"version": 2}"#).expect("writes");
    let cache = Cache::open(directory.path(), Some(Limit::Unlimited)).expect("opens");
    assert!(objects(&cache).is_empty());
    put(&cache, 2, 1);
    assert_eq!(names(&directory.path().join("objects")), [id(1).to_string()]);
    assert_eq!(fs::read_to_string(directory.path().join(CACHE_INFO)).expect("reads"), r#"{"version": 2}"#);
}

#[test]
fn a_damaged_store_says_which_file_it_is() {
    let directory = directory();
    let cache = Cache::open(directory.path(), None).expect("opens");
    fs::write(directory.path().join(CACHE_SIZE), "much").expect("writes");
    let error = cache.store(id(1), |_| Ok(())).expect_err("cannot count");
    assert!(error.to_string().contains("cache.size"), "{error}");
    assert!(names(&directory.path().join("objects")).is_empty());
    fs::write(directory.path().join(CACHE_INFO), "{").expect("writes");
    let error = Cache::open(directory.path(), None).expect_err("cannot read");
    assert!(error.to_string().contains("cache.info"), "{error}");
}
