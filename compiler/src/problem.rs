//! What is wrong with a manifest: one [`Problem`] each, and the [`Report`] of all of them with their places in the
//! text.
//!
//! How a report looks on a terminal is in [`render`].

use std::fmt;
use std::ops::Range;

use serde_json::{Map, json};

use osbc_ir::{Value, redact};

use crate::place::Place;
use crate::spans::locate;
use crate::text::SourceText;

pub mod collected;
pub mod render;

pub use collected::Problems;

/// The kinds of problems, for programs and for looking them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The text is no JSON.
    Syntax,
    /// `version` names a format that osbc does not know.
    UnsupportedVersion,
    /// A schema is not met: the manifest's or a module's.
    Schema,
    /// No library has the module.
    UnknownModule,
    /// A library has the module and cannot describe it.
    BrokenModule,
    /// The stage gives no options and its module needs some.
    MissingOptions,
    /// A pipeline has no name.
    UnnamedPipeline,
    /// Two pipelines have one name.
    DuplicatePipeline,
    /// `build` is neither empty nor `name:` and a name.
    InvalidBuild,
    /// A name that no pipeline has.
    UnknownPipeline,
    /// A pipeline that comes later, or the one that refers.
    ForwardReference,
    /// An input refers to a pipeline without stages.
    EmptyPipeline,
    /// No runner fits the wanted one.
    UnknownRunner,
    /// `source-epoch` is out of range.
    SourceEpoch,
    /// The key of an item that cannot be the name of a file.
    ItemKey,
    /// A checksum that no source has.
    UnknownItem,
    /// A device that the stage does not have.
    UnknownDevice,
    /// Devices that are each other's parents.
    DeviceCycle,
    /// Two mounts of a stage have one name.
    DuplicateMount,
    /// A mount lies over an earlier one.
    HiddenMount,
    /// A source that version 1 does not have.
    UnknownSource,
}

impl Code {
    /// As programs see it: `osbc::unknown_module`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "osbc::syntax",
            Code::UnsupportedVersion => "osbc::unsupported_version",
            Code::Schema => "osbc::schema",
            Code::UnknownModule => "osbc::unknown_module",
            Code::BrokenModule => "osbc::broken_module",
            Code::MissingOptions => "osbc::missing_options",
            Code::UnnamedPipeline => "osbc::unnamed_pipeline",
            Code::DuplicatePipeline => "osbc::duplicate_pipeline",
            Code::InvalidBuild => "osbc::invalid_build",
            Code::UnknownPipeline => "osbc::unknown_pipeline",
            Code::ForwardReference => "osbc::forward_reference",
            Code::EmptyPipeline => "osbc::empty_pipeline",
            Code::UnknownRunner => "osbc::unknown_runner",
            Code::SourceEpoch => "osbc::source_epoch",
            Code::ItemKey => "osbc::item_key",
            Code::UnknownItem => "osbc::unknown_item",
            Code::UnknownDevice => "osbc::unknown_device",
            Code::DeviceCycle => "osbc::device_cycle",
            Code::DuplicateMount => "osbc::duplicate_mount",
            Code::HiddenMount => "osbc::hidden_mount",
            Code::UnknownSource => "osbc::unknown_source",
        }
    }
}

/// When osbuild notices such a problem, which decides how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reading JSON: osbuild shows a traceback and exits with 1.
    Parse,
    /// Validating: osbuild reports it and exits with 2.
    Validate,
    /// Loading what was valid: osbuild shows a traceback and exits with 1.
    Load,
}

/// What to underline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The value at a place.
    Value(Place),
    /// The key that leads to the value at a place.
    Key(Place),
    /// Bytes of the text.
    Bytes(Range<usize>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of which kind it is.
    pub code: Code,
    /// When osbuild would notice it.
    pub phase: Phase,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, as osbuild names the place: mounts by name instead of position, for example.
    pub path: Place,
    /// What to underline.
    pub anchor: Anchor,
    /// What to write below the underlined text; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with the value at a place, without label and help.
    pub(crate) fn new(code: Code, phase: Phase, place: Place, message: impl Into<String>) -> Self {
        let message = message.into();
        let (path, anchor) = (place.clone(), Anchor::Value(place));
        Self { code, phase, message, path, anchor, label: String::new(), help: None }
    }

    /// Underlines something else than the value at the path.
    pub(crate) fn at(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    /// Writes below the underlined text.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to do about it.
    pub(crate) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }
}

/// A problem with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The problem.
    pub problem: Problem,
    /// The bytes to underline.
    pub span: Range<usize>,
    /// The line that they begin on, counted from one.
    pub line: usize,
    /// The column that they begin at, counted in characters from one.
    pub column: usize,
}

/// All problems of a manifest, at least one, sorted by path as osbuild sorts and each only once.
#[derive(Debug, Clone)]
pub struct Report {
    text: SourceText,
    problems: Vec<Located>,
    incomplete: bool,
}

impl Report {
    /// Finds the problems' places in the text.
    pub(crate) fn new(text: &SourceText, problems: Problems) -> Self {
        let Problems { kept: mut problems, incomplete } = problems;
        for Problem { message, label, help, .. } in &mut problems {
            for text in [message, label].into_iter().chain(help) {
                *text = redact::text(text).into_owned();
            }
        }
        problems.sort_by_cached_key(|problem| (problem.path.to_string(), problem.message.clone()));
        problems.dedup_by(|a, b| a.message == b.message && a.path == b.path);
        let root = Place::root();
        let places: Vec<&Place> = problems
            .iter()
            .map(|problem| match &problem.anchor {
                Anchor::Value(place) | Anchor::Key(place) => place,
                Anchor::Bytes(_) => &root,
            })
            .collect();
        // Without JSON there are no places to look for.
        let syntax = problems.iter().any(|problem| problem.phase == Phase::Parse);
        let spans = if syntax { Vec::new() } else { locate(text.as_str(), &places) };
        let mut spans = spans.into_iter();
        let mut located: Vec<Located> = problems
            .into_iter()
            .map(|problem| {
                let found = spans.next().unwrap_or_default();
                let span = match &problem.anchor {
                    Anchor::Value(_) => found.value,
                    Anchor::Key(_) => found.key.unwrap_or(found.value),
                    Anchor::Bytes(range) => range.clone(),
                };
                Located { problem, span, line: 1, column: 1 }
            })
            .collect();
        let mut order: Vec<usize> = (0..located.len()).collect();
        order.sort_by_key(|index| located[*index].span.start);
        let positions = text.positions(order.iter().map(|index| located[*index].span.start));
        for (index, (line, column)) in order.into_iter().zip(positions) {
            (located[index].line, located[index].column) = (line, column);
        }
        Self { text: text.clone(), problems: located, incomplete }
    }

    /// The problems.
    pub fn problems(&self) -> &[Located] {
        &self.problems
    }

    /// Whether there may be problems that are not listed, which is so of manifests that are wrong all over.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The manifest that has them.
    pub fn text(&self) -> &SourceText {
        &self.text
    }

    /// When osbuild, which stops after a phase with problems, would have noticed.
    pub fn phase(&self) -> Phase {
        self.problems.iter().map(|located| located.problem.phase).min().unwrap_or(Phase::Validate)
    }

    /// As data: osbuild's shape, with code, line, column, label and help added to each error.
    pub fn to_json(&self) -> Value {
        let errors: Vec<Value> = self.problems.iter().map(Located::to_json).collect();
        json!({
            "type": "https://osbuild.org/validation-error",
            "title": "JSON Schema validation failed",
            "success": false,
            "errors": errors,
        })
    }
}

impl Located {
    fn to_json(&self) -> Value {
        let problem = &self.problem;
        let mut error = Map::new();
        error.insert("message".into(), json!(problem.message));
        error.insert("path".into(), json!(problem.path));
        error.insert("code".into(), json!(problem.code.as_str()));
        error.insert("line".into(), json!(self.line));
        error.insert("column".into(), json!(self.column));
        if !problem.label.is_empty() {
            error.insert("label".into(), json!(problem.label));
        }
        if let Some(help) = &problem.help {
            error.insert("help".into(), json!(help));
        }
        Value::Object(error)
    }
}

/// One line a problem: `FILE:LINE:COLUMN: message`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, located) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let Located { problem, line, column, .. } = located;
            write!(f, "{separator}{}:{line}:{column}: {}", self.text.name(), problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, problems: Vec<Problem>) -> Report {
        let text = SourceText::from_bytes("m.json", text.into()).expect("text");
        let mut all = Problems::new();
        all.extend(problems);
        Report::new(&text, all)
    }

    fn problem(place: Place, message: &str) -> Problem {
        Problem::new(Code::Schema, Phase::Validate, place, message)
    }

    #[test]
    fn problems_are_sorted_as_osbuild_sorts_and_said_once() {
        let list = Place::root().with("a");
        let report = report(
            "{\"a\": [0,\n1]}",
            vec![
                problem(list.with(1), "odd"),
                problem(list.clone(), "list"),
                problem(list.with(1), "odd"),
                problem(list.with(0), "even").at(Anchor::Key(list)),
            ],
        );
        assert_eq!(report.to_string(), "m.json:1:7: list\nm.json:1:2: even\nm.json:2:1: odd");
    }

    #[test]
    fn as_data_a_report_is_osbuilds_with_more_keys() {
        let place = Place::root().with("a");
        let report = report(r#"{"a": 1}"#, vec![problem(place, "no").help("yes".to_owned())]);
        let expected = json!({
            "type": "https://osbuild.org/validation-error",
            "title": "JSON Schema validation failed",
            "success": false,
            "errors": [
                {"message": "no", "path": ["a"], "code": "osbc::schema", "line": 1, "column": 7, "help": "yes"}
            ],
        });
        assert_eq!(report.to_json(), expected);
    }
}
