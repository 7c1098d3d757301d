//! How a run in drop-in mode ends before there is a result. osbuild has three exit codes for it: 1 for what could not
//! be done, 2 for an invalid manifest, 130 for an interrupted build.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use miette::GraphicalReportHandler;
use osbc_compiler::passes::ExportError;
use osbc_compiler::{Phase, ReadError, Report};
use osbc_ir::{printable, redact};
use serde_json::Value;

use super::arguments::Arguments;
use super::result::error_document;
use crate::exit::{self, Failure};
use crate::output::{StdoutError, print, show};

/// How many problems of a manifest a person is shown; a program gets all.
const SHOWN: usize = 50;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum DropInError {
    /// The manifest has problems.
    Manifest(Box<Report>),
    /// What is asked for cannot be done.
    Request(String),
    /// The same, where osbuild prints `Failed` below the reason.
    Failed(String),
    /// The user ended the build.
    Aborted,
}

impl DropInError {
    /// Something is in the way.
    pub(super) fn environment(reason: impl Display) -> Self {
        DropInError::Request(reason.to_string())
    }

    /// Exports that name nothing.
    pub(super) fn exports(error: &ExportError) -> Self {
        let known: Vec<String> = error.known.iter().map(|name| format!("'{name}'")).collect();
        let known = known.join(", ");
        let lines = error.unknown.iter().map(|unknown| {
            let similar = unknown.similar.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            format!("Export {} not found in [{known}]{similar}", unknown.name)
        });
        DropInError::Failed(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Prints the error and returns the exit code. Standard output gets one JSON document with `--json`, else the text.
    pub(super) fn print(self, arguments: &Arguments) -> ExitCode {
        let is_data = arguments.json || (arguments.inspect && matches!(self, DropInError::Manifest(_)));
        let (text, document) = (self.text(arguments), self.document());
        // If standard output is gone, nobody is left to read it.
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
            DropInError::Manifest(report) => {
                let name = match arguments.manifest().to_str() {
                    Some("-") => "<stdin>".to_owned(),
                    _ => arguments.manifest().display().to_string(),
                };
                let problems = report.render(&GraphicalReportHandler::new(), SHOWN);
                format!("{name} has errors:\n\n{problems}")
            }
            DropInError::Request(reason) => format!("{}\n", shown(reason)),
            DropInError::Failed(reason) => format!("{}\nFailed\n", shown(reason)),
            DropInError::Aborted => "\nAborted\n".to_owned(),
        }
    }

    fn document(&self) -> Value {
        match self {
            DropInError::Manifest(report) => report.to_json(),
            DropInError::Request(reason) | DropInError::Failed(reason) => error_document(&redact::text(reason)),
            DropInError::Aborted => error_document("the build was ended"),
        }
    }

    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            DropInError::Manifest(report) => match report.phase() {
                Phase::Validate => exit::BAD_REQUEST,
                // osbuild crashes on these.
                Phase::Parse | Phase::Load => exit::BUILD_FAILED,
            },
            DropInError::Request(_) | DropInError::Failed(_) => exit::BUILD_FAILED,
            DropInError::Aborted => exit::INTERRUPTED,
        })
    }
}

/// A reason as people see it.
fn shown(reason: &str) -> String {
    printable::text(&redact::text(reason)).into_owned()
}

impl From<Failure> for DropInError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Manifest(report) | Failure::ManifestAsJson(report) => DropInError::Manifest(report),
            other => DropInError::environment(other),
        }
    }
}

impl From<StdoutError> for DropInError {
    fn from(error: StdoutError) -> Self {
        DropInError::environment(error)
    }
}

impl From<ReadError> for DropInError {
    fn from(error: ReadError) -> Self {
        DropInError::environment(error)
    }
}

impl From<osbc_executor::RunError> for DropInError {
    fn from(error: osbc_executor::RunError) -> Self {
        DropInError::environment(error)
    }
}

impl From<osbc_store::StoreError> for DropInError {
    fn from(error: osbc_store::StoreError) -> Self {
        DropInError::environment(error)
    }
}

impl From<osbc_store::export::ExportError> for DropInError {
    fn from(error: osbc_store::export::ExportError) -> Self {
        DropInError::environment(error)
    }
}
