//! What a page says, and that nothing that a manifest or a stage says becomes a part of it.

use osbc_executor::event::line::{Happened, NodeLine};
use osbc_ir::{Action, Manifest};

use super::*;

/// What must never be in a page as it is.
const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{1b}[31m";

/// A graph of one pipeline whose stages each continue the one before.
fn graph(pipeline: &str, stages: usize) -> Graph {
    let stage = serde_json::json!({
        "module": {"kind": "stage", "name": "org.osbuild.mkdir", "revision": {"built_in": 1}},
        "options": {}, "inputs": [], "devices": [], "mounts": [],
    });
    let manifest = serde_json::json!({
        "version": "2", "metadata": {}, "sources": [],
        "pipelines": [{
            "name": pipeline, "build": null, "empty_build": false, "source_epoch": null,
            "runner": {"name": "org.osbuild.linux", "exec": "org.osbuild.linux"},
            "stages": vec![stage; stages],
        }],
    });
    serde_json::from_value::<Manifest>(manifest).expect("a manifest").finalize()
}

fn lines(graph: &Graph) -> Vec<EventLine> {
    let nodes = graph.dag.node_indices().map(|node| Happened::Node(NodeLine::new(graph, node, Action::Run)));
    let finished = |node, success: bool, log: &str| Happened::StageFinished {
        node,
        success,
        interrupted: false,
        error: (!success).then(|| HOSTILE.to_owned()),
        duration: 1,
        written: Some(4096),
        log: Some(log.to_owned()),
    };
    let happened = [
        (2_000, Happened::Waited { node: 0, since: 500, reason: Wait::Worker }),
        (2_000, Happened::StageStarted { node: 0, worker: 0 }),
        (7_000, finished(0, true, "001.log")),
        (9_000, Happened::StageStarted { node: 1, worker: 1 }),
        (12_000, finished(1, false, "002.log")),
    ];
    let nodes = nodes.map(|event| EventLine { at: 0, event });
    nodes.chain(happened.into_iter().map(|(at, event)| EventLine { at, event })).collect()
}

fn header(path: &str) -> Header {
    let header = serde_json::json!({
        "version": 1, "build": "19700101T000000Z-abcdef", "manifest": {"path": path, "pipelines": null},
        "exports": [HOSTILE], "arguments": ["osbc", HOSTILE], "osbc": "1", "started": 0, "graph": "", "idle": false,
        "end": null,
    });
    serde_json::from_value(header).expect("a header")
}

#[test]
fn names_errors_and_logs_are_text_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("001.log"), HOSTILE).expect("writes");
    let graph = graph(HOSTILE, 3);
    let page = Page::new(&header(&format!("/m/{HOSTILE}")), "failed", &lines(&graph), &graph, directory.path());
    let html = page.html().expect("renders");
    assert_eq!(html.matches("<script>").count(), 1, "only the page's own");
    assert!(!html.contains("alert(1)</script>") && !html.contains('\u{1b}'));
    for wanted in ["src=", "@import", "<link", "url(h"] {
        assert!(!html.contains(wanted), "the page fetches nothing: {wanted}");
    }
}

#[test]
fn the_critical_path_goes_back_from_what_ended_last() {
    let graph = graph("tree", 3);
    let past = BuildTimeline::new(&lines(&graph));
    let step = |node, took, waited| path::Step { node, took, waited };
    assert_eq!(path::critical(&past, &graph), [step(0, 5_000, 0), step(1, 3_000, 2_000)]);
    let page = Page::new(&header("/m.json"), "failed", &lines(&graph), &graph, Path::new("/nowhere"));
    assert_eq!((page.path_total.as_str(), page.lanes.len()), ("10 ms", 2));
    assert_eq!(page.lanes[1].bars[0].class, "bar-failed");
    let states: Vec<_> = page.tables[0].rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Done, State::Failed, State::NotStarted]);
}

#[test]
fn the_axis_has_a_few_round_marks() {
    for whole in [1, 7, 99, 12_345, 1_000_000, 3_600_000_000] {
        let ticks = ticks(whole);
        assert!((1..=9).contains(&ticks.len()), "{whole}: {}", ticks.len());
    }
    let labels: Vec<String> = ticks(1_200_000).into_iter().map(|tick| tick.label).collect();
    assert_eq!(labels, ["0", "200 ms", "400 ms", "600 ms", "800 ms", "1.00 s", "1.20 s"]);
}

#[test]
fn logs_lose_what_only_a_terminal_understands() {
    assert_eq!(legible("a\u{1b}[1;31mred\u{1b}[0m\r\n\tb\u{7}"), "ared\n\tb");
    assert_eq!(legible("\u{1b}"), "");
}
