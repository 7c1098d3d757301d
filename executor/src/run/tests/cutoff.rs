//! Early cutoff, by what ran.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

/// A label is `name` or `name?remark`: the stage writes its name to a file of that name, whatever the remark.
fn writes(request: &osbc_sandbox::request::StageRequest) {
    let name = label_of(request).split('?').next().expect("a name").to_owned();
    in_tree(request, |root| std::fs::write(root.join(&name), &name).expect("writes"));
}

fn writing() -> FakeRunner {
    FakeRunner::new(|request, _| {
        writes(request);
        StageReply { metadata: json!({ "ran": label_of(request) }), ..success() }
    })
}

/// `os` is built in `build`, `image` in `build` from the tree of `os`.
fn three(compiler: &str, os: &str) -> FinalizedSketch {
    Sketch::new()
        .pipeline("build", None)
        .stage(compiler, &[])
        .pipeline("os", Some("build"))
        .stage(os, &[])
        .stage("second", &[])
        .pipeline("image", Some("build"))
        .stage("image", &["os"])
        .same_segment("in place")
        .finalize()
}

fn bench(layers: Layers) -> Bench {
    let bench = Bench::new(1);
    let store = Store::open(bench.store.path(), layers).expect("opens");
    Bench { store, ..bench }
}

/// Both ways of keeping results, as far as this machine has them.
fn kinds() -> Vec<Layers> {
    if osbc_fixtures::has_root() { vec![Layers::Copy, Layers::Overlay] } else { vec![Layers::Copy] }
}

fn ran(bench: &Bench, sketch: &FinalizedSketch) -> (Vec<String>, Done) {
    let runner = writing();
    let done = bench.run(sketch, &runner);
    assert!(done.outcome.success(), "{:?}", done.outcome);
    (labels(&runner.ran()).into_iter().map(str::to_owned).collect(), done)
}

#[test]
fn what_depends_on_equal_content_does_not_run() {
    for layers in kinds() {
        let bench = bench(layers);
        let before = three("compiler", "first");
        assert_eq!(ran(&bench, &before).0, ["compiler", "first", "second", "image", "in place"]);

        let sketch = three("compiler?other", "first");
        let (labels, done) = ran(&bench, &sketch);
        assert_eq!(labels, ["compiler?other"], "{layers:?}");
        for label in ["first", "second", "image", "in place"] {
            let expected = NodeOutcome::Equal { metadata: json!({ "ran": label }), to: before.id(label) };
            assert_eq!(done.outcome.nodes[&sketch.node(label)], expected);
        }
        let lease = sketch.lease(&bench.store);
        let tree =
            osbc_store::fs::overlay::open(&lease.tree(sketch.id("in place")).expect("reads").expect("is in the store"))
                .expect("opens");
        let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree));
        assert_eq!(std::fs::read_to_string(Path::new(&root).join("image")).expect("reads"), "image");
        drop((tree, lease));

        let (labels, done) = ran(&bench, &sketch);
        assert_eq!(labels, ["image"], "of that segment only the last result is kept");
        assert!(matches!(done.outcome.nodes[&sketch.node("in place")], NodeOutcome::Cached { .. }));
    }
}

#[test]
fn a_stage_can_go_on_from_a_result_that_stands_for_another() {
    for layers in kinds() {
        let bench = bench(layers);
        ran(&bench, &three("compiler", "first"));
        ran(&bench, &three("compiler?other", "first"));
        let longer = Sketch::new()
            .pipeline("build", None)
            .stage("compiler?other", &[])
            .pipeline("os", Some("build"))
            .stage("first", &[])
            .stage("second", &[])
            .stage("third", &[])
            .finalize();
        assert_eq!(ran(&bench, &longer).0, ["third"]);
    }
}

#[test]
fn what_depends_on_other_content_runs_up_to_where_it_is_equal_again() {
    let bench = bench(Layers::Copy);
    let sketch = |compiler: &str, first: &str| {
        Sketch::new()
            .pipeline("build", None)
            .stage(compiler, &[])
            .pipeline("os", Some("build"))
            .stage(first, &[])
            .pipeline("image", None)
            .stage("image", &["os"])
            .finalize()
    };
    ran(&bench, &sketch("compiler", "first"));
    // Another compiler gives another build tree, in which the same is built: the image does not see it.
    assert_eq!(ran(&bench, &sketch("clang", "first")).0, ["clang", "first"]);
    assert_eq!(ran(&bench, &sketch("clang", "other")).0, ["other", "image"]);
}

#[test]
fn a_time_that_a_stage_sets_is_content() {
    let bench = bench(Layers::Copy);
    let runner = || {
        FakeRunner::new(|request, _| {
            writes(request);
            if let Some((name, seconds)) = label_of(request).split_once("?set ") {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.parse().expect("seconds"));
                in_tree(request, |root| {
                    let file = std::fs::File::open(root.join(name)).expect("opens");
                    file.set_times(std::fs::FileTimes::new().set_modified(time)).expect("sets");
                });
            }
            success()
        })
    };
    for (first, expected) in [("a?set 1", vec!["a?set 1", "b"]), ("a?set 2", vec!["a?set 2", "b"])] {
        let runner = runner();
        assert!(bench.run(&Sketch::chain(&[first, "b"]).finalize(), &runner).outcome.success());
        assert_eq!(labels(&runner.ran()), expected);
    }
}

#[test]
fn an_earlier_result_that_is_gone_is_built() {
    let bench = bench(Layers::Copy);
    let before = Sketch::chain(&["a", "b"]).finalize();
    ran(&bench, &before);
    std::fs::remove_dir_all(bench.store.path().join("objects").join(before.id("b").to_string())).expect("removes");
    let sketch = Sketch::chain(&["a?other", "b"]).finalize();
    assert_eq!(ran(&bench, &sketch).0, ["a?other", "b"]);

    // And what stands for a result that goes is gone with it.
    let third = Sketch::chain(&["a?third", "b"]).finalize();
    assert_eq!(ran(&bench, &third).0, ["a?third"]);
    std::fs::remove_dir_all(bench.store.path().join("objects").join(sketch.id("b").to_string())).expect("removes");
    assert_eq!(ran(&bench, &third).0, ["b"]);
}
