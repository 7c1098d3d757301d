//! What is kept of builds that really ran, though on a runner that does what a test says.

use std::os::unix::fs::MetadataExt as _;

use osbc_sandbox::interrupt::Interrupt;
use osbc_store::Layers;
use osbc_store::testing::{FinalizedSketch, Sketch, directory};
use serde_json::json;

use super::*;
use crate::build::Parts;
use crate::event::line::Happened;
use crate::fake::{FakeMachine, FakeRunner, RecordingMonitor, failure, success};
use crate::run::run;
use crate::testing::{about, catalog, label_of, settings};

/// Builds a sketch with a runner whose stage `bad` fails.
fn build(store: &Store, sketch: &FinalizedSketch) -> Outcome {
    let runner = FakeRunner::new(|request, io| {
        (io.output)("words");
        if label_of(request) == "bad" { failure("it broke") } else { success() }
    });
    let transaction = sketch.begin(store);
    let parts = Parts {
        runner: &runner,
        catalog: &catalog(),
        monitor: &mut RecordingMonitor::default(),
        machine: &FakeMachine::plenty(),
        interrupt: &Interrupt::new().expect("an eventfd"),
        settings: &settings(1),
        about: &about(),
    };
    run(&sketch.plan(transaction.present()), &transaction, parts).expect("the disk takes it")
}

fn sketch(labels: &[&str]) -> FinalizedSketch {
    let first = Sketch::new().item("sha256:1", json!({"data": "fetched"})).pipeline("main", None);
    labels.iter().fold(first, |sketch, label| sketch.stage(label, &["#sha256:1"])).finalize()
}

#[test]
fn every_build_leaves_its_events_its_graph_and_how_it_ended() {
    let directory = directory();
    let store = Store::open(&directory.path().join("store"), Layers::Copy).expect("opens");
    assert!(BuildRecord::all(&store).expect("reads").is_empty());
    let failing = sketch(&["good", "bad", "never"]);
    build(&store, &failing);
    let fixed = sketch(&["good", "better"]);
    build(&store, &fixed);
    build(&store, &fixed);

    let records = BuildRecord::all(&store).expect("reads");
    let [idle, second, first] = &records[..] else { panic!("three builds: {records:?}") };
    let end = |record: &BuildRecord| record.header.end.clone().expect("it ended");
    assert!((idle.header.idle, second.header.idle) == (true, false) && end(idle).success);
    assert_eq!((end(first).ran, end(first).failed, end(first).fetched), (1, 1, 1));
    assert_eq!((end(second).ran, end(second).cached, end(second).success), (1, 2, true));
    assert_eq!((first.header.exports.as_slice(), first.is_running()), (["main".to_owned()].as_slice(), false));
    let last = BuildRecord::last_of(&store, &about().manifest).expect("reads").expect("there are three");
    assert_eq!(last.header, idle.header);
    let other = ManifestName { path: "-".to_owned(), pipelines: None };
    assert!(BuildRecord::last_of(&store, &other).expect("reads").is_none());

    let graph = first.graph().expect("reads");
    assert_eq!((&graph.manifest, &graph.by_id), (&failing.graph.manifest, &failing.graph.by_id));
    let inode = |record: &BuildRecord| std::fs::metadata(record.directory.join(GRAPH)).expect("is there").ino();
    assert_eq!(inode(idle), inode(second));
    assert_ne!(inode(first), inode(second));

    let events = first.events().expect("reads");
    assert!(events.is_sorted_by_key(|line| line.at), "one worker and one fetch have an order: {events:#?}");
    let node = failing.node("bad").index();
    let reported = events.iter().find_map(|line| match &line.event {
        Happened::StageFinished { node: at, success, error, log, .. } if *at == node => {
            Some((*success, error.clone().expect("a reason"), log.clone().expect("a log")))
        }
        _ => None,
    });
    let (success, error, log) = reported.expect("it finished");
    assert_eq!((success, error.as_str()), (false, "it broke"));
    assert_eq!(std::fs::read_to_string(first.directory.join(log)).expect("reads"), "words");
    assert!(matches!(&events.last().expect("some").event, Happened::Ended { success: false, .. }));
    assert!(!events.iter().any(|line| matches!(line.event, Happened::StageOutput { .. })));
    let cached = second.events().expect("reads");
    assert_eq!(cached.iter().filter(|line| matches!(line.event, Happened::Cached { .. })).count(), 2);
}

#[test]
fn a_dead_build_is_distinguished_from_a_running_one() {
    let directory = directory();
    let store = Store::open(&directory.path().join("store"), Layers::Copy).expect("opens");
    let sketch = sketch(&["good"]);
    let plan = sketch.plan(&Default::default());
    let recording = Recording::begin(&store, &plan, &about());
    let record = |store: &Store| BuildRecord::all(store).expect("reads").pop().expect("it has begun");
    assert!(record(&store).is_running());
    drop(recording);
    assert!(!record(&store).is_running() && record(&store).header.end.is_none());
}

#[test]
fn a_manifest_is_recognised_by_its_file_or_by_its_pipelines() {
    let directory = directory();
    let file = directory.path().join("m.json");
    std::fs::write(&file, "{}").expect("writes");
    std::os::unix::fs::symlink(&file, directory.path().join("link")).expect("links");
    let (one, other) = (sketch(&["a"]).graph, Sketch::new().pipeline("other", None).finalize().graph);
    let name = |path: &Path, graph: &Graph| ManifestName::new(path, graph);
    assert_eq!(name(&file, &one), name(&directory.path().join("link"), &other));
    let piped = Path::new("-");
    assert_eq!(name(piped, &one), name(Path::new("/dev/null"), &sketch(&["b"]).graph));
    assert_ne!(name(piped, &one), name(piped, &other));
}

#[test]
fn timestamps_are_dates() {
    for (seconds, text) in [
        (0, "19700101T000000Z"),
        (951_782_400, "20000229T000000Z"),
        (1_709_251_199, "20240229T235959Z"),
        (4_102_444_800, "21000101T000000Z"),
    ] {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
    }
}

#[test]
fn the_oldest_builds_that_nobody_works_on_are_forgotten() {
    let all = tempfile::tempdir().expect("a temporary directory");
    let directory = |index: usize| all.path().join(format!("19700101T0000{index:02}Z-abcdef"));
    for index in 0..25 {
        std::fs::create_dir(directory(index)).expect("makes");
    }
    let running = lock::own_existing(&directory(2)).expect("asks").expect("is free");
    forget_old(all.path());
    let left = |index: &usize| directory(*index).exists();
    assert_eq!((0..25).filter(left).collect::<Vec<_>>(), [2].into_iter().chain(5..25).collect::<Vec<_>>());
    drop(running);
    forget_old(all.path());
    assert_eq!((0..25).filter(left).collect::<Vec<_>>(), (5..25).collect::<Vec<_>>());
}

#[test]
fn a_record_is_its_owner_s_alone_and_a_damaged_one_is_not_gone_on_with() {
    let directory = directory();
    let store = Store::open(&directory.path().join("store"), Layers::Copy).expect("opens");
    let sketch = sketch(&["good"]);
    for _ in 0..2 {
        build(&store, &sketch);
    }
    let records = BuildRecord::all(&store).expect("reads");
    let files = records.iter().flat_map(|record| std::fs::read_dir(&record.directory).expect("reads"));
    for file in files.map(|file| file.expect("reads")) {
        assert_eq!(file.metadata().expect("is there").mode() & 0o777, 0o600, "{}", file.path().display());
    }
    let graph = records[0].directory.join(GRAPH);
    let whole = std::fs::read(&graph).expect("reads");
    for damage in [&whole[..whole.len() / 2], b"", &vec![0; whole.len()]] {
        // All have the one file.
        std::fs::write(&graph, damage).expect("writes");
        build(&store, &sketch);
        let newest = &BuildRecord::all(&store).expect("reads")[0];
        assert_eq!(newest.graph().expect("is whole").by_id, sketch.graph.by_id);
    }
    let newest = BuildRecord::all(&store).expect("reads").remove(0);
    std::fs::remove_file(newest.directory.join(GRAPH)).expect("removes");
    rustix::fs::mkfifoat(rustix::fs::CWD, newest.directory.join(GRAPH), rustix::fs::Mode::RUSR).expect("makes");
    let error = newest.graph().expect_err("is no file").to_string();
    assert!(error.contains("named pipe"), "{error}");
    build(&store, &sketch);
}
