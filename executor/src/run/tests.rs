//! What a run does, by what ran and what the monitor saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use osbc_ir::{CachedSet, Cause, Resource, StageResult};
use osbc_sandbox::request::{ReferenceFrom, StageFailure, StageReply};
use osbc_store::testing::{FinalizedSketch, Sketch, directory};
use osbc_store::{Layers, Limit, Store, StoreSettings};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::build::Settings;
use crate::fake::{FakeMachine, FakeRunner, Ran, RecordedEvent, RecordingMonitor, failure, success};
use crate::testing::{about, catalog, in_tree, label_of, settings};

mod cutoff;
mod prepared;

/// A store, and what came of running sketches on it.
struct Bench {
    store: Store,
    directory: TempDir,
    settings: Settings,
    machine: Arc<FakeMachine>,
    interrupt: Interrupt,
}

struct Done {
    outcome: Outcome,
    events: Vec<RecordedEvent>,
}

impl Bench {
    fn new(jobs: usize) -> Self {
        let directory = directory();
        let store = Store::open(&directory.path().join("store"), Layers::Copy).expect("opens");
        let interrupt = Interrupt::new().expect("an eventfd");
        Self { store, directory, settings: settings(jobs), machine: Arc::new(FakeMachine::plenty()), interrupt }
    }

    fn run(&self, sketch: &FinalizedSketch, runner: &FakeRunner) -> Done {
        let transaction = sketch.begin(&self.store);
        let plan = sketch.plan(transaction.present());
        let mut monitor = RecordingMonitor::default();
        let parts = Parts {
            runner,
            catalog: &catalog(),
            monitor: &mut monitor,
            machine: &*self.machine,
            interrupt: &self.interrupt,
            settings: &self.settings,
            about: &about(),
        };
        let outcome = run(&plan, &transaction, parts).expect("the disk takes it");
        Done { outcome, events: monitor.events }
    }

    fn present(&self, sketch: &FinalizedSketch) -> CachedSet {
        self.store.present(&sketch.graph, sketch.ids())
    }
}

fn labels(ran: &[Ran]) -> Vec<&str> {
    ran.iter().map(|ran| label_of(&ran.request)).collect()
}

fn result<'a>(done: &'a Done, sketch: &FinalizedSketch, label: &str) -> &'a StageResult {
    match &done.outcome.nodes[&sketch.node(label)] {
        NodeOutcome::Ran(result) => result,
        other => panic!("{label}: {other:?}"),
    }
}

fn failing(label: &'static str) -> FakeRunner {
    FakeRunner::new(move |request, _| if label_of(request) == label { failure("it broke") } else { success() })
}

#[test]
fn stages_run_on_each_other_s_trees_and_the_second_build_runs_none() {
    let bench = Bench::new(2);
    let sketch = Sketch::new()
        .item("sha256:1", json!({"data": "fetched"}))
        .pipeline("build", None)
        .stage("compiler", &["#sha256:1"])
        .pipeline("os", Some("build"))
        .stage("first", &[])
        .stage("second", &[])
        .pipeline("empty", None)
        .pipeline("disk", Some("build"))
        .epoch(7)
        .stage("image", &["os", "empty"])
        .finalize();
    let runner = FakeRunner::new(|request, io| {
        let label = label_of(request).to_owned();
        in_tree(request, |root| {
            if label == "second" {
                assert_eq!(std::fs::read_to_string(root.join("first")).expect("is there"), "first");
            }
            std::fs::write(root.join(&label), &label).expect("writes");
        });
        (io.output)(&format!("hello from {label}\n"));
        StageReply { metadata: json!({ "made": label }), ..success() }
    });
    let done = bench.run(&sketch, &runner);
    assert!(done.outcome.success(), "{:?}", done.outcome);
    let ran = runner.ran();
    assert_eq!(labels(&ran), ["compiler", "first", "second", "image"]);

    let compiler = &ran[0].request;
    let ReferenceFrom::Item(item) = &compiler.inputs[0].references[0].from else { panic!("an item") };
    assert_eq!(std::fs::read_to_string(item).expect("is there"), "fetched");
    assert_eq!((compiler.build_root.is_none(), compiler.runner.as_str()), (true, "test.runner"));
    assert_eq!(compiler.capabilities, ["CAP_TEST"]);

    let image = &ran[3].request;
    assert_eq!(image.source_epoch, Some(7));
    let object = |label: &str| {
        let directory = std::fs::canonicalize(bench.directory.path()).expect("is there");
        directory.join("store/objects").join(sketch.id(label).to_string())
    };
    let [compiler] = image.build_root.as_ref().expect("a build pipeline").lower.as_slice() else { panic!("one tree") };
    assert!(compiler.starts_with(object("compiler")));
    let ReferenceFrom::Tree(os) = &image.inputs[0].references[0].from else { panic!("a tree") };
    let ([directory], None) = (os.lower.as_slice(), &os.upper) else { panic!("one tree, to be read") };
    assert!(directory.starts_with(object("second")));
    let ReferenceFrom::Tree(empty) = &image.inputs[1].references[0].from else { panic!("a tree") };
    assert!(empty.lower.is_empty() && empty.upper.is_none());
    let compat = sketch.graph.stage_node(sketch.node("second")).expect("a stage").compat.to_string();
    assert_eq!(image.inputs[0].references[0].id, compat);
    assert!(!image.scratch.exists());

    let second = result(&done, &sketch, "second");
    assert_eq!((second.output.as_str(), &second.metadata), ("hello from second\n", &json!({"made": "second"})));
    let log = second.log.as_ref().expect("a log");
    assert_eq!(std::fs::read_to_string(log).expect("reads"), "hello from second\n");
    assert!(log.ends_with("003-os-test.stage.log"), "{}", log.display());
    assert_eq!(done.outcome.nodes[&sketch.node("#sha256:1")], NodeOutcome::Fetched { bytes: 7 });

    assert_eq!(done.events.first(), Some(&RecordedEvent::Started));
    assert_eq!(done.events.last(), Some(&RecordedEvent::Ended));
    let at = |wanted: &dyn Fn(&RecordedEvent) -> bool| done.events.iter().position(wanted).expect("happened");
    let node = sketch.node("second");
    let started = at(&|event| matches!(event, RecordedEvent::StageStarted(at, _) if *at == node));
    let output = at(&|event| *event == RecordedEvent::StageOutput(node, "hello from second\n".to_owned()));
    let finished = at(&|event| matches!(event, RecordedEvent::Finished(at, _) if *at == node));
    assert!(started < output && output < finished);

    let again = FakeRunner::succeeding();
    let done = bench.run(&sketch, &again);
    assert!(again.ran().is_empty() && done.outcome.success());
    assert!(
        matches!(done.events[..], [RecordedEvent::Started, RecordedEvent::Cached(_), .., RecordedEvent::Ended]),
        "{:?}",
        done.events
    );
    let NodeOutcome::Cached { metadata } = &done.outcome.nodes[&sketch.node("second")] else { panic!("cached") };
    assert_eq!(metadata, &json!({"made": "second"}));

    let history = bench.store.history().expect("reads");
    assert!(history.duration(sketch.id("second"), "", || 0).is_some());
    assert!(history.duration(osbc_ir::StageId::from_bytes([0; 32]), "test.stage", || 0).is_some());
}

#[test]
fn independent_pipelines_run_side_by_side_and_share_their_beginning() {
    let bench = Bench::new(3);
    let mut sketch = Sketch::new().pipeline("base", None).stage("base", &[]);
    for name in ["a", "b", "c"] {
        sketch = sketch.pipeline(name, Some("base")).stage(name, &[]);
    }
    let sketch = sketch.finalize();
    let waiting = Arc::new(AtomicUsize::new(0));
    let runner = FakeRunner::new(move |request, _| {
        if label_of(request) != "base" {
            waiting.fetch_add(1, Ordering::SeqCst);
            while waiting.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
        }
        success()
    });
    assert!(bench.run(&sketch, &runner).outcome.success());
    let ran = runner.ran();
    assert_eq!(label_of(&ran[0].request), "base");
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        assert!(ran[one].overlaps(&ran[other]));
        assert!(!ran[0].overlaps(&ran[other]));
    }
}

#[test]
fn a_stage_waits_for_its_own_fetches_only() {
    let bench = Bench::new(1);
    let interrupt = bench.interrupt.clone();
    let sketch = Sketch::new()
        .item("sha256:1", json!({"stall": true}))
        .pipeline("slow", None)
        .stage("needs it", &["#sha256:1"])
        .pipeline("quick", None)
        .stage("needs nothing", &[])
        .finalize();
    // The item never comes; that the other stage runs at all is the point.
    let parts = bench.directory.path().join("store/downloads");
    let runner = FakeRunner::new(move |_, _| {
        while std::fs::read_dir(&parts).expect("reads").next().is_none() {
            std::thread::yield_now();
        }
        interrupt.raise();
        success()
    });
    let done = bench.run(&sketch, &runner);
    assert_eq!(labels(&runner.ran()), ["needs nothing"]);
    assert!(done.outcome.interrupted);
    assert!(
        matches!(&done.outcome.nodes[&sketch.node("#sha256:1")], NodeOutcome::FetchFailed { error, cause: Cause::Interrupted } if error == "interrupted")
    );
    assert_eq!(done.outcome.nodes[&sketch.node("needs it")], NodeOutcome::NotStarted);
    assert!(done.events.contains(&RecordedEvent::Interrupted));
}

#[test]
fn a_failure_is_reported_and_nothing_of_it_is_kept() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a", "b", "c"]).finalize();
    let runner = FakeRunner::new(|request, io| {
        (io.output)("about to\n");
        in_tree(request, |root| std::fs::write(root.join("x"), "x").expect("writes"));
        if label_of(request) == "b" { failure("it broke") } else { success() }
    });
    let done = bench.run(&sketch, &runner);
    assert!(!done.outcome.success() && !done.outcome.interrupted);
    let failed = result(&done, &sketch, "b");
    assert_eq!((failed.success, failed.error.as_deref()), (false, Some("it broke")));
    assert_eq!(failed.output, "about to\n");
    assert_eq!(done.outcome.nodes[&sketch.node("c")], NodeOutcome::NotStarted);
    assert_eq!(bench.present(&sketch), [osbc_ir::NodeId::Stage(sketch.id("a"))].into_iter().collect::<CachedSet>());
    assert_eq!(std::fs::read_dir(bench.directory.path().join("store/work")).expect("reads").count(), 0);

    let runner = FakeRunner::succeeding();
    assert!(bench.run(&sketch, &runner).outcome.success());
    assert_eq!(labels(&runner.ran()), ["b", "c"]);
}

#[test]
fn keep_going_goes_on_with_what_does_not_depend_on_it_and_reports_every_failure() {
    let sketch = || {
        Sketch::new()
            .item("sha256:bad", json!({"url": "http://example.invalid/x"}))
            .pipeline("a", None)
            .stage("a1", &[])
            .stage("a2", &[])
            .pipeline("b", None)
            .stage("b1", &["#sha256:bad"])
            .pipeline("c", None)
            .stage("c1", &[])
            .stage("c2", &[])
            .finalize()
    };
    let (sketch, mut bench) = (sketch(), Bench::new(1));
    bench.settings.keep_going = true;
    let runner = failing("a1");
    let done = bench.run(&sketch, &runner);
    let mut ran = runner.ran();
    ran.sort_by_key(|ran| label_of(&ran.request).to_owned());
    assert_eq!(labels(&ran), ["a1", "c1", "c2"]);
    assert_eq!(result(&done, &sketch, "a1").error.as_deref(), Some("it broke"));
    assert_eq!(
        done.outcome.nodes[&sketch.node("#sha256:bad")],
        NodeOutcome::FetchFailed { error: "the server said 404".to_owned(), cause: Cause::Module }
    );
    assert_eq!(done.outcome.nodes[&sketch.node("a2")], NodeOutcome::NotStarted);
    assert_eq!(done.outcome.nodes[&sketch.node("b1")], NodeOutcome::NotStarted);
}

#[test]
fn without_it_what_runs_is_finished_and_nothing_begins() {
    let bench = Bench::new(2);
    let sketch = Sketch::new()
        .pipeline("a", None)
        .stage("fails", &[])
        .pipeline("b", None)
        .stage("runs on", &[])
        .stage("never begins", &[])
        .finalize();
    let failed = Arc::new(AtomicUsize::new(0));
    let runner = FakeRunner::new(move |request, _| {
        match label_of(request) {
            "fails" => {
                // Not before the other one runs.
                while failed.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                failure("it broke")
            }
            _ => {
                failed.store(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(100));
                success()
            }
        }
    });
    let done = bench.run(&sketch, &runner);
    assert_eq!(labels(&runner.ran()), ["fails", "runs on"]);
    assert!(result(&done, &sketch, "runs on").success);
    assert!(bench.present(&sketch).contains(&osbc_ir::NodeId::Stage(sketch.id("runs on"))), "and its result is kept");
}

#[test]
fn the_steps_of_a_segment_change_one_tree_and_only_the_last_is_sealed() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a"]).same_segment("b").same_segment("c").finalize();
    let runner = FakeRunner::new(|request, _| {
        in_tree(request, |root| {
            use std::io::Write as _;
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(root.join("log")).expect("opens");
            file.write_all(label_of(request).as_bytes()).expect("writes");
        });
        StageReply { metadata: json!(label_of(request)), ..success() }
    });
    assert!(bench.run(&sketch, &runner).outcome.success());
    let lease = sketch.lease(&bench.store);
    assert!(lease.object(sketch.id("a")).is_none() && lease.object(sketch.id("b")).is_none());
    let object = lease.object(sketch.id("c")).expect("is committed");
    let metadata: Vec<_> = object.steps.iter().map(|step| step.metadata.clone()).collect();
    assert_eq!(metadata, [json!("a"), json!("b"), json!("c")]);
    let tree = lease.tree(sketch.id("c")).expect("reads").expect("is there");
    assert_eq!(std::fs::read_to_string(tree.lower[0].join("log")).expect("reads"), "abc");
}

#[test]
fn an_interrupted_segment_keeps_what_its_steps_have_done() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a"]).same_segment("b").same_segment("c").finalize();
    let interrupt = bench.interrupt.clone();
    let runner = FakeRunner::new(move |request, _| {
        if label_of(request) == "b" {
            interrupt.raise();
        }
        success()
    });
    let done = bench.run(&sketch, &runner);
    assert!(done.outcome.interrupted);
    assert_eq!(labels(&runner.ran()), ["a", "b"]);
    assert_eq!(done.outcome.nodes[&sketch.node("c")], NodeOutcome::NotStarted);
    assert_eq!(bench.present(&sketch), [osbc_ir::NodeId::Stage(sketch.id("b"))].into_iter().collect::<CachedSet>());
}

#[test]
fn an_interrupted_stage_says_so() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a", "b"]).finalize();
    let interrupt = bench.interrupt.clone();
    let runner = FakeRunner::new(move |_, io| {
        interrupt.raise();
        assert!(io.interrupt.is_raised());
        StageReply::failed(StageFailure::Interrupted)
    });
    let done = bench.run(&sketch, &runner);
    assert_eq!(result(&done, &sketch, "a").error.as_deref(), Some("interrupted"));
    assert_eq!(bench.present(&sketch), CachedSet::default());
}

#[test]
fn very_much_output_is_shortened_but_its_log_is_whole() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a"]).finalize();
    let runner = FakeRunner::new(|_, io| {
        for line in 0..200_000 {
            (io.output)(&format!("this is line {line} of a stage that talks a lot\n"));
        }
        success()
    });
    let done = bench.run(&sketch, &runner);
    let result = result(&done, &sketch, "a");
    assert!(result.output.len() < 5 << 20 && result.output.contains("bytes left out"));
    let log = std::fs::read_to_string(result.log.as_ref().expect("a log")).expect("reads");
    assert_eq!(log.lines().count(), 200_000);
}

#[test]
fn a_stage_that_fails_of_an_exhausted_machine_is_recognized() {
    let died = || StageReply { failure: Some(StageFailure::Died("killed".into())), ..success() };
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a"]).finalize();
    let done = bench.run(&sketch, &FakeRunner::new(move |_, _| died()));
    assert_eq!(result(&done, &sketch, "a").cause, Some(Cause::Module));

    let bench = Bench::new(1);
    let machine = Arc::clone(&bench.machine);
    let runner = FakeRunner::new(move |_, _| {
        machine.kills.fetch_add(1, Ordering::SeqCst);
        died()
    });
    let done = bench.run(&sketch, &runner);
    let result = result(&done, &sketch, "a");
    assert_eq!(result.cause, Some(Cause::Exhausted(Resource::Memory)));
    assert!(
        result.error.as_deref().is_some_and(|error| error.contains("the kernel ran out of memory meanwhile")),
        "{result:?}"
    );
}

#[test]
fn only_a_stage_that_lacked_room_is_given_some_and_run_again() {
    let full = "cp: error writing 'x': No space left on device; no space left";
    let lacked = || StageFailure::Exhausted(Resource::Disk, full.to_owned());
    for (reply, runs) in [(failure(full), 1), (StageReply::failed(lacked()), 2)] {
        let mut bench = Bench::new(1);
        let kept = Sketch::chain(&["kept"]).finalize();
        let runner = FakeRunner::new(|request, _| {
            in_tree(request, |root| std::fs::write(root.join("file"), [1; 5000]).expect("writes"));
            success()
        });
        assert!(bench.run(&kept, &runner).outcome.success());
        // It may now take less than it does, so something can be evicted.
        let settings = StoreSettings { layers: Layers::Copy, limit: Limit::Bytes(1) };
        bench.store = Store::open(bench.store.path(), settings).expect("opens");

        let sketch = Sketch::chain(&["a"]).finalize();
        let runner = FakeRunner::new(move |_, io| {
            (io.output)(&format!("{full}\n"));
            reply.clone()
        });
        assert!(!bench.run(&sketch, &runner).outcome.success());
        assert_eq!(runner.ran().len(), runs);
        assert_eq!(bench.present(&kept) == CachedSet::default(), runs == 2, "whether the other result was evicted");
    }
}

#[test]
fn what_a_stage_took_is_known_the_next_time() {
    let bench = Bench::new(1);
    let sketch = Sketch::chain(&["a"]).finalize();
    bench.run(&sketch, &FakeRunner::new(|_, _| StageReply { memory: Some(12_345), ..success() }));
    let history = bench.store.history().expect("reads");
    assert_eq!(history.memory(sketch.id("a"), ""), 12_345);
}
