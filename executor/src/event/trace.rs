//! Events in Chrome's trace format, which Perfetto and `chrome://tracing` open: a row for each worker, for each that
//! fetches, for the cache, and for what waits.
//!
//! It is an array that is valid without its end, so that the trace of a build that died opens too.

use std::collections::HashMap;
use std::io;

use osbc_ir::{Action, Value};
use serde_json::json;

use super::line::{EventLine, Happened, NodeLine};
use super::writer::Form;

/// The groups of rows, as processes of the trace.
const STAGES: u32 = 1;
const FETCHES: u32 = 2;
const WAITS: u32 = 3;
const CACHE: u32 = 4;

/// The trace of one build.
#[derive(Debug, Default)]
pub struct Trace {
    nodes: HashMap<usize, NodeLine>,
    /// The rows of what runs.
    rows: HashMap<usize, (u32, usize)>,
    /// The rows of [`FETCHES`] that have a name.
    fetchers: usize,
    begun: bool,
}

impl Trace {
    fn put_event(&mut self, event: &Value, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(if self.begun { b",\n" } else { b"[\n" });
        self.begun = true;
        Ok(serde_json::to_writer(out, event)?)
    }

    fn name(&self, node: usize) -> String {
        let Some(node) = self.nodes.get(&node) else { return format!("node {node}") };
        let module = node.module.strip_prefix("org.osbuild.").unwrap_or(&node.module);
        match (&node.pipeline, &node.checksum) {
            (Some(pipeline), _) => format!("{pipeline}: {module}"),
            (None, Some(checksum)) => format!("{module}: {checksum}"),
            (None, None) => module.to_owned(),
        }
    }

    fn facts(&self, node: usize) -> Value {
        self.nodes.get(&node).map_or(Value::Null, |node| {
            let mut facts = json!({"module": node.module, "id": node.id});
            for (key, value) in [("pipeline", &node.pipeline), ("checksum", &node.checksum)] {
                if let Some(value) = value {
                    facts[key] = json!(value);
                }
            }
            facts
        })
    }

    fn begin(&mut self, at: u64, node: usize, group: u32, worker: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let row = worker + 1;
        self.rows.insert(node, (group, row));
        let category = if group == STAGES { "stage" } else { "fetch" };
        let event = json!({
            "name": self.name(node), "cat": category, "ph": "B", "ts": at, "pid": group, "tid": row,
            "args": self.facts(node),
        });
        self.put_event(&event, out)?;
        self.count(at, group, out)
    }

    fn end(&mut self, at: u64, node: usize, result: &Value, out: &mut Vec<u8>) -> io::Result<()> {
        let Some((group, row)) = self.rows.remove(&node) else { return Ok(()) };
        let event = json!({"ph": "E", "ts": at, "pid": group, "tid": row, "args": result});
        self.put_event(&event, out)?;
        self.count(at, group, out)
    }

    /// How many rows of a group are in use.
    fn count(&mut self, at: u64, group: u32, out: &mut Vec<u8>) -> io::Result<()> {
        let running = self.rows.values().filter(|(of, _)| *of == group).count();
        self.put_event(
            &json!({"name": "running", "ph": "C", "ts": at, "pid": group, "args": {"running": running}}),
            out,
        )
    }

    fn name_row(&mut self, group: u32, row: usize, name: &str, out: &mut Vec<u8>) -> io::Result<()> {
        self.put_event(
            &json!({"name": "thread_name", "ph": "M", "pid": group, "tid": row, "args": {"name": name}}),
            out,
        )
    }

    fn start(&mut self, workers: usize, out: &mut Vec<u8>) -> io::Result<()> {
        for (group, name) in [(STAGES, "stages"), (FETCHES, "fetches"), (WAITS, "waiting"), (CACHE, "cache")] {
            self.put_event(&json!({"name": "process_name", "ph": "M", "pid": group, "args": {"name": name}}), out)?;
            let order = json!({"name": "process_sort_index", "ph": "M", "pid": group, "args": {"sort_index": group}});
            self.put_event(&order, out)?;
        }
        for worker in 0..workers {
            self.name_row(STAGES, worker + 1, &format!("worker {worker}"), out)?;
        }
        self.name_row(CACHE, 1, "hits", out)
    }
}

impl Form for Trace {
    fn put(&mut self, line: &EventLine, out: &mut Vec<u8>) -> io::Result<()> {
        let at = line.at;
        match &line.event {
            Happened::Started { workers, .. } => self.start(*workers, out),
            Happened::Node(node) => {
                self.nodes.insert(node.node, node.clone());
                Ok(())
            }
            Happened::Cached { node } | Happened::Equal { node, .. } => {
                let event = json!({
                    "name": self.name(*node), "cat": "cache", "ph": "i", "s": "t", "ts": at, "pid": CACHE, "tid": 1,
                    "args": self.facts(*node),
                });
                self.put_event(&event, out)
            }
            Happened::Waited { node, since, reason } => {
                let action = self.nodes.get(node).map_or(Action::Run, |node| node.action);
                let category = if action == Action::Fetch { "fetch waits" } else { "stage waits" };
                // They overlap, so they are no calls in a row but pairs with a number of their own.
                for (phase, ts) in [("b", *since), ("e", at)] {
                    let event = json!({
                        "name": self.name(*node), "cat": category, "ph": phase, "id": node, "ts": ts, "pid": WAITS,
                        "tid": 1, "args": {"for": reason},
                    });
                    self.put_event(&event, out)?;
                }
                Ok(())
            }
            Happened::FetchStarted { node, worker } => {
                while self.fetchers <= *worker {
                    self.fetchers += 1;
                    self.name_row(FETCHES, self.fetchers, &format!("fetcher {}", self.fetchers - 1), out)?;
                }
                self.begin(at, *node, FETCHES, *worker, out)
            }
            Happened::StageStarted { node, worker } => self.begin(at, *node, STAGES, *worker, out),
            Happened::StageFinished { node, success, error, written, .. } => {
                let mut result = json!({"success": success});
                if let Some(error) = error {
                    result["error"] = json!(error);
                }
                if let Some(written) = written {
                    result["written"] = json!(written);
                }
                self.end(at, *node, &result, out)
            }
            Happened::Fetched { node, bytes } => self.end(at, *node, &json!({"success": true, "bytes": bytes}), out),
            Happened::FetchFailed { node, error, .. } => {
                self.end(at, *node, &json!({"success": false, "error": error}), out)
            }
            Happened::Interrupted => {
                let event = json!({"name": "interrupted", "ph": "i", "s": "g", "ts": at, "pid": STAGES, "tid": 1});
                self.put_event(&event, out)
            }
            Happened::Ended { .. } => {
                out.extend_from_slice(b"\n]\n");
                Ok(())
            }
            Happened::FetchProgress { .. } | Happened::StageOutput { .. } | Happened::FetchOutput { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wait;
    use super::*;

    fn node(node: usize, action: Action) -> Happened {
        let is_item = action == Action::Fetch;
        Happened::Node(NodeLine {
            node,
            id: format!("id-{node}"),
            osbuild_id: None,
            pipeline: (!is_item).then(|| "tree \"1\"".to_owned()),
            module: "org.osbuild.mkdir".to_owned(),
            checksum: is_item.then(|| "sha256:1".to_owned()),
            action,
        })
    }

    fn finished(node: usize, success: bool) -> Happened {
        let error = (!success).then(|| "it broke".to_owned());
        Happened::StageFinished {
            node,
            success,
            interrupted: false,
            error,
            duration: 5,
            written: Some(4096),
            log: None,
        }
    }

    /// A build with everything in it, up to the line that its writer came to.
    fn trace(lines: usize) -> String {
        let happened = [
            (0, Happened::Started { version: 1, osbc: "1".to_owned(), wall: 7, workers: 2 }),
            (0, node(0, Action::Fetch)),
            (0, node(1, Action::Run)),
            (0, node(2, Action::Run)),
            (0, node(3, Action::Cached)),
            (0, Happened::Cached { node: 3 }),
            (10, Happened::FetchStarted { node: 0, worker: 1 }),
            (11, Happened::StageStarted { node: 1, worker: 0 }),
            (12, Happened::StageOutput { node: 1, text: "words".to_owned() }),
            (14, Happened::FetchProgress { node: 0, done: 1, total: None }),
            (20, Happened::Fetched { node: 0, bytes: 3 }),
            (30, finished(1, true)),
            (30, Happened::Waited { node: 2, since: 21, reason: Wait::Worker }),
            (31, Happened::StageStarted { node: 2, worker: 0 }),
            (35, Happened::Interrupted),
            (40, finished(2, false)),
            (41, Happened::Ended { success: false, interrupted: true, duration: 41 }),
        ];
        let mut trace = Trace::default();
        let mut out = Vec::new();
        for (at, event) in happened.into_iter().take(lines) {
            trace.put(&EventLine { at, event }, &mut out).expect("has a JSON form");
        }
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn a_trace_has_the_shape_that_viewers_expect() {
        let events: Vec<Value> = serde_json::from_str(&trace(usize::MAX)).expect("a JSON array");
        let mut open: HashMap<(u64, u64), Vec<u64>> = HashMap::new();
        let mut waits = HashMap::new();
        for event in &events {
            let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key} of {event}"));
            let row = |event: &Value| (event["pid"].as_u64().expect("a pid"), event["tid"].as_u64().expect("a tid"));
            match event["ph"].as_str().expect("a phase") {
                "M" => assert!(event["args"]["name"].is_string() || event["args"]["sort_index"].is_u64()),
                "B" => open.entry(row(event)).or_default().push(number("ts")),
                "E" => {
                    let begun = open.get_mut(&row(event)).and_then(Vec::pop).expect("it began");
                    assert!(begun <= number("ts"));
                }
                "b" => assert!(waits.insert((event["cat"].to_string(), number("id")), number("ts")).is_none()),
                "e" => {
                    let since = waits.remove(&(event["cat"].to_string(), number("id"))).expect("it began");
                    assert!(since <= number("ts"));
                }
                "i" => assert!(["t", "g"].contains(&event["s"].as_str().expect("a scope"))),
                "C" => assert!(event["args"]["running"].is_u64()),
                other => panic!("no such phase: {other}"),
            }
        }
        assert!(open.values().all(Vec::is_empty) && waits.is_empty());
        let names = |pid: u32, phase: &str| {
            let of = |event: &&Value| event["pid"] == pid && event["ph"] == phase;
            events.iter().filter(of).map(|event| event["name"].as_str().expect("a name")).collect::<Vec<_>>()
        };
        assert_eq!(names(STAGES, "B"), ["tree \"1\": mkdir"; 2]);
        assert_eq!(names(FETCHES, "B"), ["mkdir: sha256:1"]);
        assert_eq!((names(CACHE, "i").len(), names(WAITS, "b").len()), (1, 1));
        let rows: Vec<_> = events
            .iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| event["args"]["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(rows, ["worker 0", "worker 1", "hits", "fetcher 0", "fetcher 1"]);
    }

    #[test]
    fn the_trace_of_a_build_that_died_only_lacks_its_end() {
        let text = trace(13);
        assert!(serde_json::from_str::<Vec<Value>>(&(text + "\n]")).is_ok());
    }
}
