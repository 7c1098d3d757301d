//! Commands that build nothing.

use osbc_fixtures::manifest;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, starts_with};

use crate::harness::{Place, osbc};

#[test]
fn the_plan_says_what_and_why() {
    let place = Place::new();
    let plan = place.plan(&manifest("variants.json"));
    let shared = &plan["pipelines"][5]["stages"][0];
    assert_eq!(shared["action"], "shared", "{plan:#}");
    assert_eq!(plan["totals"]["shared"], 20 * 3);
    osbc()
        .args(["plan", "--store"])
        .arg(place.store())
        .arg(manifest("variants.json"))
        .assert()
        .success()
        .stdout(contains("variant-20").and(contains("shared")));
    assert!(!place.store().exists(), "a plan touches nothing");
}

#[test]
fn an_unknown_export_is_named_with_what_there_is() {
    let place = Place::new();
    osbc()
        .args(["plan", "-e", "variant-1", "--store"])
        .arg(place.store())
        .arg(manifest("variants.json"))
        .assert()
        .code(2)
        .stderr(contains("variant-1").and(contains("variant-01")));
}

#[test]
fn a_manifest_may_come_from_standard_input() {
    let text = std::fs::read(manifest("v1.json")).expect("the fixture is there");
    osbc().args(["inspect", "-"]).write_stdin(text).assert().success().stdout(contains("\"id\""));
}

#[test]
fn graphs_come_in_every_format_and_level() {
    let place = Place::new();
    for level in ["pipeline", "stage"] {
        for (format, beginning) in [("dot", "digraph"), ("mermaid", "flowchart"), ("json", "{"), ("svg", "<")] {
            osbc()
                .args(["graph", "--format", format, "--level", level, "--store"])
                .arg(place.store())
                .arg(manifest("quickstart.json"))
                .assert()
                .success()
                .stdout(starts_with(beginning));
        }
    }
}

#[test]
fn modules_are_listed_and_explained() {
    osbc().arg("modules").assert().success().stdout(contains("org.osbuild.mkfs.ext4"));
    osbc().args(["modules", "hostname"]).assert().success().stdout(contains("```json").and(contains("\"hostname\"")));
    osbc().args(["modules", "nonsense"]).assert().code(2).stderr(contains("nonsense"));
}

#[test]
fn completions_and_manual_are_generated() {
    osbc().args(["completions", "bash"]).assert().success().stdout(contains("osbc"));
    osbc().arg("man").assert().success().stdout(contains(".TH osbc"));
}

#[test]
fn wrong_arguments_exit_with_2() {
    osbc().arg("biuld").assert().code(2).stderr(contains("build"));
    osbc().args(["build", "x", "--jobs", "0"]).assert().code(2);
}
