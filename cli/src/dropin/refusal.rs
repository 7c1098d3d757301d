//! How a run in drop-in mode ends before there is a result. osbuild knows three ways: 1 for what could not be done, 2
//! for what is no manifest, 130 for what was ended.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use miette::GraphicalReportHandler;
use osbc_compiler::passes::ExportError;
use osbc_compiler::{Phase, ReadError, Report};
use osbc_ir::{printable, redact};
use serde_json::Value;

use super::arguments::Arguments;
use super::result::refusal;
use crate::exit::{self, Failure};
use crate::output::{StdoutError, print, show};

/// How many problems of a manifest a person is shown; a program gets all.
const SHOWN: usize = 50;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The manifest has problems.
    Manifest(Box<Report>),
    /// What is asked for cannot be done.
    Request(String),
    /// The same, where osbuild closes with a word on it.
    Failed(String),
    /// The user ended the build.
    Aborted,
}

impl Refusal {
    /// Something is in the way.
    pub(super) fn environment(reason: impl Display) -> Self {
        Refusal::Request(reason.to_string())
    }

    /// Exports that name nothing.
    pub(super) fn exports(error: &ExportError) -> Self {
        let known: Vec<String> = error.known.iter().map(|name| format!("'{name}'")).collect();
        let known = known.join(", ");
        let lines = error.unknown.iter().map(|unknown| {
            let similar = unknown.similar.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            format!("Export {} not found in [{known}]{similar}", unknown.name)
        });
        Refusal::Failed(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Tells it and gives the exit code. Standard output has one JSON document with `--json`, else the text.
    pub(super) fn tell(self, arguments: &Arguments) -> ExitCode {
        let is_data = arguments.json || (arguments.inspect && matches!(self, Refusal::Manifest(_)));
        let (text, document) = (self.text(arguments), self.document());
        // When standard output is gone, so is who would have read it.
        if is_data {
            show(&text);
            print(format!("{document}\n").as_bytes()).ok();
        } else {
            write!(anstream::stdout().lock(), "{text}").ok();
        }
        self.code()
    }

    fn text(&self, arguments: &Arguments) -> String {
        match self {
            Refusal::Manifest(report) => {
                let name = match arguments.manifest().to_str() {
                    Some("-") => "<stdin>".to_owned(),
                    _ => arguments.manifest().display().to_string(),
                };
                let problems = report.render(&GraphicalReportHandler::new(), SHOWN);
                format!("{name} has errors:\n\n{problems}")
            }
            Refusal::Request(reason) => format!("{}\n", shown(reason)),
            Refusal::Failed(reason) => format!("{}\nFailed\n", shown(reason)),
            Refusal::Aborted => "\nAborted\n".to_owned(),
        }
    }

    fn document(&self) -> Value {
        match self {
            Refusal::Manifest(report) => report.to_json(),
            Refusal::Request(reason) | Refusal::Failed(reason) => refusal(&redact::text(reason)),
            Refusal::Aborted => refusal("the build was ended"),
        }
    }

    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Refusal::Manifest(report) => match report.phase() {
                Phase::Validate => exit::BAD_REQUEST,
                // osbuild stumbles over these.
                Phase::Parse | Phase::Load => exit::BUILD_FAILED,
            },
            Refusal::Request(_) | Refusal::Failed(_) => exit::BUILD_FAILED,
            Refusal::Aborted => exit::INTERRUPTED,
        })
    }
}

/// A reason as people see it.
fn shown(reason: &str) -> String {
    printable::text(&redact::text(reason)).into_owned()
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Manifest(report) | Failure::ManifestAsJson(report) => Refusal::Manifest(report),
            other => Refusal::environment(other),
        }
    }
}

impl From<StdoutError> for Refusal {
    fn from(error: StdoutError) -> Self {
        Refusal::environment(error)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Refusal::environment(error)
    }
}

impl From<osbc_executor::RunError> for Refusal {
    fn from(error: osbc_executor::RunError) -> Self {
        Refusal::environment(error)
    }
}

impl From<osbc_executor::store::StoreError> for Refusal {
    fn from(error: osbc_executor::store::StoreError) -> Self {
        Refusal::environment(error)
    }
}

impl From<osbc_executor::export::ExportError> for Refusal {
    fn from(error: osbc_executor::export::ExportError) -> Self {
        Refusal::environment(error)
    }
}
