//! What is kept of builds, and what is written of them while they go on.

use std::collections::HashMap;
use std::io::BufReader;

use osbc_executor::event::line::{Happened, read};
use osbc_fixtures::has_root;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, osbc};

/// A build of two pipelines, of which `bad` fails in its second stage.
fn failing(place: &Place) -> std::path::PathBuf {
    let mkdir = |path: &str| json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}});
    let error = json!({"type": "org.osbuild.error", "options": {"returncode": 42}});
    place.manifest(&json!({"version": "2", "pipelines": [
        {"name": "good", "stages": [mkdir("/good"), mkdir("/better")]},
        {"name": "bad", "stages": [mkdir("/bad"), error]},
    ]}))
}

fn log(place: &Place, arguments: &[&str]) -> assert_cmd::assert::Assert {
    osbc().arg("log").args(arguments).arg("--store").arg(place.store()).assert()
}

fn json(assert: &assert_cmd::assert::Assert) -> Value {
    serde_json::from_slice(&assert.get_output().stdout).expect("it is JSON")
}

#[test]
fn root_a_build_can_be_looked_at_afterwards() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    log(&place, &[]).code(2).stderr(contains("no build is recorded"));
    let manifest = failing(&place);
    place.build(&manifest).args(["-j", "1", "--keep-going"]).assert().code(1);
    place.build(&manifest).args(["-e", "good"]).assert().success();

    let all = json(&log(&place, &["--list", "--json"]).success());
    let result = |index: usize| all[index]["result"].as_str().expect("a result").to_owned();
    assert_eq!((all.as_array().map(Vec::len), result(0), result(1)), (Some(2), "done".into(), "failed".into()));
    let path = manifest.canonicalize().expect("is there");
    assert_eq!(all[1]["header"]["manifest"]["path"], path.to_str().expect("UTF-8"));
    assert_eq!(all[1]["header"]["exports"], json!(["good", "bad"]));
    let failed = all[1]["header"]["build"].as_str().expect("a name").to_owned();
    let (_, unique) = failed.split_once('-').expect("a dash");

    log(&place, &[]).success().stdout(contains("done in").and(contains("cached")));
    let shown = contains("failed in").and(contains("bad: org.osbuild.error")).and(contains("log: "));
    log(&place, &[unique]).success().stdout(shown);
    let build = json(&log(&place, &[&failed, "--json"]).success());
    assert_eq!(build["nodes"][0]["state"], "failed", "what failed comes first: {build:#}");
    let id = build["nodes"][0]["about"]["id"].as_str().expect("an id");
    let by_id = log(&place, &[unique, &id[..8]]).success().get_output().stdout.clone();
    let by_name = log(&place, &[unique, "bad/error"]).success().get_output().stdout.clone();
    assert_eq!(by_id, by_name);
    let file = build["nodes"][0]["log"].as_str().expect("a log");
    let kept = std::fs::read(place.store().join("logs").join(&failed).join(file)).expect("is there");
    assert_eq!(by_id, kept);

    // In the last build it was cached, so its log is that of the build before.
    log(&place, &["good/mkdir"]).success().stderr(contains(failed.as_str()));
    log(&place, &["nonsense"]).code(2).stderr(contains("no recorded build and no stage"));
    log(&place, &["nonsense", "mkdir"]).code(2).stderr(contains("--list"));
}

#[test]
fn root_events_and_traces_have_all_that_happened() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let (events, trace) = (place.path("events.jsonl"), place.path("trace.json"));
    let mut build = place.build(&failing(&place));
    build.arg("--events").arg(&events).arg("--trace").arg(&trace).args(["-j", "1", "--keep-going"]).assert().code(1);

    let lines = read(BufReader::new(std::fs::File::open(&events).expect("is there"))).expect("reads");
    let Happened::Started { workers: 1, .. } = lines[0].event else { panic!("{:?}", lines[0]) };
    let count = |wanted: fn(&Happened) -> bool| lines.iter().filter(|line| wanted(&line.event)).count();
    assert_eq!(count(|event| matches!(event, Happened::Node(_))), 4);
    assert_eq!(count(|event| matches!(event, Happened::StageStarted { worker: 0, .. })), 4);
    assert_eq!(count(|event| matches!(event, Happened::StageFinished { success: true, .. })), 3);
    assert_eq!(count(|event| matches!(event, Happened::StageFinished { success: false, error: Some(_), .. })), 1);
    assert!(count(|event| matches!(event, Happened::Waited { .. })) >= 1, "one worker, two pipelines");
    let Happened::Ended { success: false, interrupted: false, duration } = lines[lines.len() - 1].event else {
        panic!("{:?}", lines.last())
    };
    assert!(lines.iter().all(|line| line.at <= duration));

    let text = std::fs::read_to_string(&trace).expect("is there");
    let trace: Vec<Value> = serde_json::from_str(&text).expect("a JSON array");
    let mut phases: HashMap<&str, usize> = HashMap::new();
    for event in &trace {
        *phases.entry(event["ph"].as_str().expect("a phase")).or_default() += 1;
    }
    assert_eq!((phases["B"], phases["E"], phases["b"] == phases["e"]), (4, 4, true));
    // Viewers take the calls of a row by their order: one after the other here, and time never goes back.
    let mut rows: HashMap<(u64, u64), (Vec<&str>, u64)> = HashMap::new();
    for event in trace.iter().filter(|event| ["B", "E"].contains(&event["ph"].as_str().expect("a phase"))) {
        let number = |key: &str| event[key].as_u64().expect("a number");
        let (phases, last) = rows.entry((number("pid"), number("tid"))).or_default();
        assert!(number("ts") >= *last, "{event}");
        *last = number("ts");
        phases.push(event["ph"].as_str().expect("a phase"));
    }
    assert!(rows.values().all(|(phases, _)| phases.chunks(2).all(|pair| pair == ["B", "E"])), "{rows:?}");

    place.build(&failing(&place)).args(["--events", "/nowhere/events"]).assert().code(3).stderr(contains("/nowhere"));
}
