//! What runners prepare, by what ran.

use std::fs;
use std::path::PathBuf;

use osbc_ir::Kind;
use osbc_module_api::snapshot::Snapshot;
use osbc_sandbox::request::StageRequest;

use super::*;

/// `os` and `image` are built in `build`, by a built-in runner; `compiler` is built in the host's tree, by none.
fn sketch(remark: &str) -> FinalizedSketch {
    Sketch::new()
        .pipeline("build", None)
        .runner("test.preparing")
        .stage("compiler", &[])
        .pipeline("os", Some("build"))
        .stage(&format!("first {remark}"), &[])
        .same_segment(&format!("second {remark}"))
        .pipeline("image", Some("build"))
        .stage(&format!("image {remark}"), &["os"])
        .finalize()
}

/// Runners make nothing, and say so in their output.
fn runner() -> FakeRunner {
    FakeRunner::new(|request, io| {
        if request.module.kind != Kind::Runner {
            if let Some(prepared) = &request.prepared {
                assert_eq!(Snapshot::read(prepared).expect("a snapshot"), Snapshot::default());
            }
            return success();
        }
        (io.output)("one\ntwo\n");
        StageReply { metadata: serde_json::to_value(Snapshot::default()).expect("JSON"), ..success() }
    })
}

/// The requests of a build to runners, and to stages.
fn requests(bench: &Bench, sketch: &FinalizedSketch) -> (Vec<StageRequest>, Vec<StageRequest>) {
    let runner = runner();
    let done = bench.run(sketch, &runner);
    assert!(done.outcome.success(), "{:?}", done.outcome);
    runner.ran().into_iter().map(|ran| ran.request).partition(|request| request.module.kind == Kind::Runner)
}

fn kept(bench: &Bench) -> Vec<PathBuf> {
    let directory = bench.store.path().join("prepared");
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_build_tree_is_prepared_once_for_all_builds() {
    let bench = Bench::new(2);
    let (runners, stages) = requests(&bench, &sketch("one"));
    assert_eq!(runners.len(), 1);
    assert_eq!(
        (runners[0].module.name.as_str(), &runners[0].options),
        ("test.preparing", &json!({"runner": "test.preparing"}))
    );
    let build_root = runners[0].build_root.as_ref().expect("the build tree");
    let prepared = |stages: &[StageRequest]| stages.iter().filter(|stage| stage.prepared.is_some()).count();
    for stage in stages.iter().filter(|stage| stage.prepared.is_some()) {
        assert_eq!(stage.build_root.as_ref(), Some(build_root));
    }
    assert_eq!((stages.len(), prepared(&stages)), (4, 3));

    let (runners, stages) = requests(&bench, &sketch("two"));
    assert_eq!((runners.len(), stages.len(), prepared(&stages)), (0, 3, 3));
    assert_eq!(kept(&bench).len(), 1);

    // A power cut may have left a part of it.
    fs::write(&kept(&bench)[0], r#"{"entr"#).expect("writes");
    let (runners, stages) = requests(&bench, &sketch("three"));
    assert_eq!((runners.len(), stages.len(), prepared(&stages)), (1, 3, 3));
    assert!(Snapshot::read(&kept(&bench)[0]).is_ok());
}

#[test]
fn a_runner_that_fails_fails_the_stages_that_need_it() {
    let bench = Bench::new(1);
    let runner = FakeRunner::new(|request, io| {
        if request.module.kind != Kind::Runner {
            return success();
        }
        (io.output)("zero\none\ntwo\nldconfig: no\n");
        failure("`ldconfig` failed")
    });
    let sketch = sketch("");
    let done = bench.run(&sketch, &runner);
    let reason = "cannot prepare the build root as test.preparing does: `ldconfig` failed\none\ntwo\nldconfig: no";
    assert_eq!(result(&done, &sketch, "first ").error.as_deref(), Some(reason));
}
