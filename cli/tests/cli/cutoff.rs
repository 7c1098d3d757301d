//! Early cutoff in a real build: what depends on a tree that came out equal is not built again.

use osbc_fixtures::{has_root, has_tool};
use predicates::str::contains;
use serde_json::json;

use crate::harness::Place;

#[test]
fn root_a_change_that_changes_nothing_ends_where_it_began() {
    if !has_root() || !has_tool("tar") {
        return;
    }
    let place = Place::new();
    let manifest = |mkdir: serde_json::Value| {
        place.manifest(&json!({"version": "2", "pipelines": [
            {"name": "tree", "stages": [
                {"type": "org.osbuild.mkdir", "options": {"paths": mkdir}},
                {"type": "org.osbuild.hostname", "options": {"hostname": "same"}},
            ]},
            {"name": "archive", "stages": [{
                "type": "org.osbuild.tar",
                "inputs": {"tree": {
                    "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:tree"]
                }},
                "options": {"filename": "root.tar"}
            }]},
        ]}))
    };
    let before = manifest(json!([{"path": "/etc"}, {"path": "/srv"}]));
    place.build(&before).assert().success();
    let archive = place.output().join("archive/root.tar");
    let first = std::fs::read(&archive).expect("is exported");

    let after = manifest(json!([{"path": "/srv"}, {"path": "/etc", "mode": 0o777}]));
    let summary = "2 stages not run: cached, since their trees have equal content";
    place
        .build(&after)
        .assert()
        .success()
        .stdout(contains(summary))
        .stderr(contains("archive: org.osbuild.tar (cached: equal content)"));
    assert_eq!(std::fs::read(&archive).expect("is exported"), first);
    let output = place.build(&after).arg("--json").assert().success().get_output().stdout.clone();
    let result: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!((&result["pipelines"][1]["cached"], &result["pipelines"][1]["ran"]), (&json!(1), &json!(0)));

    // The tree under a third name, alone: what a build would take for equal at once, a plan foresees.
    let third = manifest(json!([{"path": "/etc", "mode": 0o777}, {"path": "/srv", "mode": 0o777}]));
    place.build(&third).args(["-e", "tree"]).assert().success();
    let plan = place.plan(&third);
    assert_eq!(plan["totals"]["run"], 0, "{plan:#}");
    assert_eq!(plan["pipelines"][1]["stages"][0]["reason"]["kind"], "equal_content");

    let other = manifest(json!([{"path": "/etc"}, {"path": "/opt"}]));
    place.build(&other).assert().success();
    assert_ne!(std::fs::read(&archive).expect("is exported"), first);
}
