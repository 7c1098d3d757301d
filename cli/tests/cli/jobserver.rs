//! Under `make -j`: stages run with make's tokens.

use jobserver::Client;
use osbc_fixtures::has_root;
use serde_json::json;

use crate::harness::{Place, osbc};

/// The most stages that ran at the same time, by the record of the only build.
fn most_at_once(place: &Place) -> usize {
    let logs = std::fs::read_dir(place.store().join("logs")).expect("a build was recorded");
    let build = logs.flatten().next().expect("a build was recorded").path();
    let events = std::fs::read_to_string(build.join("events.jsonl")).expect("it has events");
    let (mut running, mut most) = (0_usize, 0);
    for line in events.lines() {
        if line.contains("stage_started") {
            running += 1;
        } else if line.contains("stage_finished") {
            running -= 1;
        }
        most = most.max(running);
    }
    assert!(most > 0, "the test looks at the right things: {events}");
    most
}

#[test]
fn root_stages_run_with_the_tokens_of_make() {
    if !has_root() {
        return;
    }
    let pipelines: Vec<_> = (0..6)
        .map(|number| {
            let stage = json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": format!("/d{number}")}]}});
            json!({"name": format!("p{number}"), "stages": [stage]})
        })
        .collect();
    let manifest = json!({"version": "2", "pipelines": pipelines});
    // Without any, osbc has its own.
    for tokens in [0, 1] {
        let place = Place::new();
        let make = Client::new(tokens).expect("a pipe");
        let mut command = std::process::Command::new(osbc().get_program());
        command.arg("build").arg(place.manifest(&manifest)).arg("--store").arg(place.store()).args(["-j", "4"]);
        make.configure(&mut command);
        assert!(command.output().expect("it starts").status.success());
        assert!(most_at_once(&place) <= tokens + 1);
        assert_eq!(make.available().expect("a pipe"), tokens, "every token came back");
    }
}
