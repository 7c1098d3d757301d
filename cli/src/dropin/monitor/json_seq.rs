//! osbuild's `JSONSeqMonitor`: a JSON document for each thing that happens (RFC 7464), every one short enough for
//! readers that take no longer lines than 64 kB.
//!
//! Pipelines that run side by side each keep their context and their count.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use osbc_ir::{Map, StageResult, Value};
use osbc_pytext::json;
use serde_json::json;

use super::context::{Context, Contexts, MAIN, MONITOR, OTHER};
use super::{Display, MonitoredBuild, Out};
use crate::dropin::result::{error, output};
use crate::dropin::serial_schedule::StageRun;
use crate::dropin::sources::SourceReport;

/// How many of the last characters of a stage's output its result has.
const OUTPUT: usize = 31_000;
/// How long a line may be, its frame not counted.
const LINE: usize = 64_000;
/// How much of a line a text may take.
const TEXT: usize = 48_000;

/// Writes the sequence.
pub(super) struct JsonSeq {
    out: Out,
    contexts: Contexts,
    /// How many sources and pipelines are through.
    done: usize,
    /// The pipelines that have begun and are not through.
    open: HashMap<usize, Open>,
    started: HashMap<(usize, usize), Instant>,
    /// What the last message was about.
    last: Context,
}

/// A pipeline that has begun.
struct Open {
    /// The context of its messages: the stage that began last, or the context of the last message before it began.
    context: Context,
    stages_done: usize,
}

/// What a message says besides its text.
#[derive(Default)]
struct More {
    result: Option<Value>,
    options: Option<Value>,
    duration: Option<f64>,
    metadata: Option<Value>,
}

impl JsonSeq {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out,
            contexts: Contexts::default(),
            done: 0,
            open: HashMap::new(),
            started: HashMap::new(),
            last: Context::default(),
        }
    }

    /// Writes a message about a pipeline (an index into the schedule); `None` if it is about something else.
    fn write(
        &mut self,
        monitored: &MonitoredBuild,
        run: Option<usize>,
        context: Context,
        origin: &str,
        message: &str,
        more: More,
    ) {
        let mut entry = Map::new();
        entry.insert("message".to_owned(), json!(message));
        entry.insert("result".to_owned(), more.result.unwrap_or_default());
        entry.insert("context".to_owned(), self.contexts.refer(&context, origin));
        entry.insert("progress".to_owned(), self.progress(monitored, run));
        entry.insert("options".to_owned(), more.options.unwrap_or_default());
        entry.insert("timestamp".to_owned(), json!(now()));
        entry.insert("duration".to_owned(), json!(more.duration));
        entry.insert("metadata".to_owned(), more.metadata.unwrap_or_default());
        self.last = context;
        let mut entry = Value::Object(entry);
        leave_out_empty(&mut entry);
        let mut line = json::to_string(&entry);
        // The whole of it is in the result document at the end.
        for part in ["metadata", "options", "result"] {
            if line.len() <= LINE {
                break;
            }
            if let Some(entries) = entry.as_object_mut() {
                entries.shift_remove(part);
            }
            line = json::to_string(&entry);
        }
        self.out.write(&format!("\u{1e}{line}\n"));
    }

    fn progress(&self, monitored: &MonitoredBuild, run: Option<usize>) -> Value {
        let mut progress = json!({"name": "pipelines/sources", "total": monitored.steps(), "done": self.done});
        if let Some(run) = run
            && let Some(open) = self.open.get(&run)
            // Consumers divide by the count of stages.
            && let pipeline = monitored.pipeline(run)
            && !pipeline.stages.is_empty()
        {
            let name = format!("pipeline: {}", pipeline.name);
            progress["progress"] = json!({"name": name, "total": pipeline.stages.len(), "done": open.stages_done});
        }
        progress
    }

    fn of_pipeline(monitored: &MonitoredBuild, run: usize) -> Context {
        let name = monitored.pipeline(run).name.clone();
        Context { pipeline: Some((name, monitored.schedule.runs[run].id)), stage: None }
    }

    fn of_stage(monitored: &MonitoredBuild, run: usize, stage: &StageRun) -> Context {
        let module = monitored.module(run, stage).to_owned();
        Context { stage: Some((module, stage.id)), ..Self::of_pipeline(monitored, run) }
    }

    fn of_source(monitored: &MonitoredBuild, source: usize) -> Context {
        let name = format!("source {}", monitored.written.manifest.sources[source].module.name);
        Context { pipeline: Some((name, Some(monitored.source_id(source)))), stage: None }
    }
}

impl Display for JsonSeq {
    fn say(&mut self, monitored: &MonitoredBuild, text: &str) {
        let context = self.last.clone();
        self.write(monitored, None, context, MAIN, text, More::default());
    }

    fn begin_source(&mut self, monitored: &MonitoredBuild, source: usize) {
        let context = Self::of_source(monitored, source);
        let message = format!("Starting pipeline source {}", monitored.written.manifest.sources[source].module.name);
        self.write(monitored, None, context, MONITOR, &message, More::default());
    }

    fn source_output(&mut self, monitored: &MonitoredBuild, source: usize, text: &str) {
        for piece in pieces(text) {
            self.write(monitored, None, Self::of_source(monitored, source), OTHER, piece, More::default());
        }
    }

    fn finish_source(&mut self, monitored: &MonitoredBuild, source: usize, report: &SourceReport) {
        let context = Self::of_source(monitored, source);
        let name = &monitored.written.manifest.sources[source].module.name;
        let mut result = report.result();
        if json::to_string(&result).len() > OUTPUT {
            result["results"] = json!([]);
        }
        let more = More { result: Some(result), ..More::default() };
        self.write(monitored, None, context.clone(), MONITOR, &format!("Finished module source {name}"), more);
        self.done += 1;
        self.write(monitored, None, context, MONITOR, &format!("Finished pipeline {name}"), More::default());
    }

    fn begin(&mut self, monitored: &MonitoredBuild, run: usize) {
        // osbuild's context keeps the last stage of the pipeline before. Beside others there is none before it.
        let stage = self.last.stage.clone().filter(|_| self.open.is_empty());
        let context = Context { stage, ..Self::of_pipeline(monitored, run) };
        self.open.insert(run, Open { context: context.clone(), stages_done: 0 });
        let message = format!("Starting pipeline {}", monitored.pipeline(run).name);
        self.write(monitored, Some(run), context, MONITOR, &message, More::default());
    }

    fn stage(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun) {
        self.started.insert((run, stage.position), Instant::now());
        let context = Self::of_stage(monitored, run, stage);
        if let Some(open) = self.open.get_mut(&run) {
            open.context = context.clone();
        }
        let message = format!("Starting module {}", monitored.module(run, stage));
        self.write(monitored, Some(run), context, MONITOR, &message, More::default());
    }

    fn output(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun, text: &str) {
        let origin = format!("stages/{}", monitored.module(run, stage));
        for piece in pieces(text) {
            self.write(monitored, Some(run), Self::of_stage(monitored, run, stage), &origin, piece, More::default());
        }
    }

    fn result(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun, result: &StageResult) {
        let module = monitored.module(run, stage).to_owned();
        let context = Self::of_stage(monitored, run, stage);
        // The end of the output.
        self.write(monitored, Some(run), context.clone(), &format!("stages/{module}"), "", More::default());
        if let Some(open) = self.open.get_mut(&run) {
            open.stages_done += 1;
        }
        let started = self.started.remove(&(run, stage.position));
        let more = More {
            result: Some(json!({
                "name": module,
                "id": stage.id,
                "success": result.success,
                "output": last_of(&output(result)),
                "error": error(result),
            })),
            options: monitored.options(run, stage),
            duration: started.map(|started| started.elapsed().as_secs_f64()),
            metadata: Some(result.metadata.clone()),
        };
        self.write(monitored, Some(run), context, MONITOR, &format!("Finished module {module}"), more);
    }

    fn finish(&mut self, monitored: &MonitoredBuild, run: usize) {
        self.done += 1;
        let open = self.open.remove(&run);
        let context = open.map_or_else(|| Self::of_pipeline(monitored, run), |open| open.context);
        let message = format!("Finished pipeline {}", monitored.pipeline(run).name);
        self.write(monitored, None, context, MONITOR, &message, More::default());
    }
}

/// Takes out what is nothing or an empty text, however deep, but not out of lists.
fn leave_out_empty(value: &mut Value) {
    if let Some(entries) = value.as_object_mut() {
        entries.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
        entries.values_mut().for_each(leave_out_empty);
    }
}

/// The last characters of an output, as many as fit.
fn last_of(output: &str) -> String {
    let mut start = output.char_indices().rev().nth(OUTPUT - 1).map_or(0, |(start, _)| start);
    let mut room = TEXT;
    for (at, character) in output[start..].char_indices().rev() {
        match room.checked_sub(cost(character)) {
            Some(left) => room = left,
            None => {
                start += at + character.len_utf8();
                break;
            }
        }
    }
    if start == 0 {
        return output.to_owned();
    }
    let hidden = output[..start].chars().count();
    format!("[...{hidden} bytes hidden...]\n{}", &output[start..])
}

/// A text in pieces that each fit a line.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut room = TEXT;
        let end = rest.char_indices().find_map(|(at, character)| match room.checked_sub(cost(character)) {
            Some(left) => {
                room = left;
                None
            }
            None => Some(at),
        });
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// How many bytes a character takes in a JSON text of nothing but ASCII, at most.
fn cost(character: char) -> usize {
    match character {
        '\n' | '\r' | '\t' | '"' | '\\' => 2,
        ' '..='~' => 1,
        character if u32::from(character) > 0xffff => 12,
        _ => 6,
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out_but_not_in_lists() {
        let mut value = json!({"a": "", "b": null, "c": {"d": "", "e": {}}, "f": [{"g": ""}], "h": false, "i": 0});
        leave_out_empty(&mut value);
        assert_eq!(value, json!({"c": {"e": {}}, "f": [{"g": ""}], "h": false, "i": 0}));
    }

    #[test]
    fn texts_come_in_pieces_that_fit_whatever_is_in_them() {
        for (character, count) in [('a', 200_000), ('\u{1}', 30_000), ('é', 30_000), ('😀', 20_000), ('"', 60_000)] {
            let text = character.to_string().repeat(count);
            let all: Vec<&str> = pieces(&text).collect();
            assert!(all.len() > 1, "{character:?}");
            assert!(all.iter().all(|piece| json::to_string(&piece).len() <= TEXT + 2), "{character:?}");
            assert_eq!(all.concat(), text);
        }
        assert_eq!(pieces("").count(), 0);
    }

    #[test]
    fn a_long_output_is_cut_to_its_end() {
        assert_eq!(last_of("short"), "short");
        let exact = "é".repeat(100) + &"x".repeat(OUTPUT - 100);
        assert_eq!(last_of(&exact), exact);
        let long = "x".repeat(OUTPUT) + "end";
        let last = last_of(&long);
        assert!(last.starts_with("[...3 bytes hidden...]\nxxx") && last.ends_with("xend"), "{}", &last[..40]);
        let wide = "\u{1}".repeat(OUTPUT) + "end";
        let last = last_of(&wide);
        assert!(json::to_string(&last).len() < TEXT + 100 && last.ends_with("end"));
    }
}
