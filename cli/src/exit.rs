//! How a command fails. Who is responsible for a failure decides the exit code, and nothing else does.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use miette::GraphicalReportHandler;
use osbc_compiler::{ReadError, Report};
use osbc_executor::RunError;
use osbc_ir::{Cause, NodeOutcome, Outcome};
use osbc_module_api::LibraryError;
use osbc_module_api::threads::NoThread;
use osbc_store::StoreError;
use osbc_store::export::ExportError;

use crate::advice;
use crate::output::{StdoutError, print, say, show};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The manifest has problems. Exit code 2.
    #[error("the manifest is invalid")]
    Manifest(#[from] Box<Report>),
    /// The manifest has problems, to be printed as JSON. Exit code 2.
    #[error("the manifest is invalid")]
    ManifestAsJson(Box<Report>),
    /// The manifest is no text. Exit code 2.
    #[error(transparent)]
    Text(#[from] ReadError),
    /// The arguments name something that is not there. Exit code 2.
    #[error("{0}")]
    Arguments(String),
    /// The machine lacks something. Exit code 3.
    #[error("{0}")]
    Environment(String),
    /// The store cannot be used. Exit code 3.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan cannot be run. Exit code 3.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no thread to work with. Exit code 3.
    #[error(transparent)]
    NoThread(#[from] NoThread),
    /// A result cannot be written where it is wanted. Exit code 3.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The output cannot be written. Exit code 3.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// Where to.
        path: PathBuf,
        /// The OS error.
        source: std::io::Error,
    },
    /// Standard output cannot be written. Exit code 3.
    #[error(transparent)]
    Stdout(#[from] StdoutError),
    /// The user ended the command. Exit code 130.
    #[error("interrupted")]
    Interrupted,
    /// A module's description cannot be read. Exit code 3.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

// All of them are in docs/exit-codes.md.

/// Two manifests differ, as with diff(1).
pub(crate) const DIFFERENT: u8 = 1;
/// The build failed.
pub(crate) const BUILD_FAILED: u8 = 1;
/// Bad manifest or arguments.
pub(crate) const BAD_REQUEST: u8 = 2;
/// The machine lacks something.
pub(crate) const ENVIRONMENT: u8 = 3;
/// A guest was not done in time, as with timeout(1).
pub(crate) const TIMED_OUT: u8 = 124;
/// Ended by the user.
pub(crate) const INTERRUPTED: u8 = 130;

/// What the outcome of a build means: the machine is to blame if every stage that failed exhausted it.
pub(crate) fn of_build(outcome: &Outcome) -> u8 {
    let mut causes = outcome.nodes.values().filter_map(|node| match node {
        NodeOutcome::Ran(result) => result.cause,
        NodeOutcome::FetchFailed { cause, .. } => Some(*cause),
        NodeOutcome::Cached { .. }
        | NodeOutcome::Equal { .. }
        | NodeOutcome::Fetched { .. }
        | NodeOutcome::NotStarted => None,
    });
    match (outcome.interrupted, outcome.success()) {
        (true, _) => INTERRUPTED,
        (false, true) => 0,
        (false, false) if causes.all(|cause| matches!(cause, Cause::Exhausted(_))) => ENVIRONMENT,
        (false, false) => BUILD_FAILED,
    }
}

/// How many problems of a manifest a person is shown; a program gets all.
const SHOWN: usize = 50;

impl From<osbc_engine::Error> for Failure {
    fn from(error: osbc_engine::Error) -> Self {
        use osbc_engine::Error;
        match error {
            Error::Text(error) => error.into(),
            Error::Manifest(report) => report.into(),
            error @ (Error::NoModuleDirectory(_) | Error::UnknownExports(_) | Error::ExportName { .. }) => {
                Failure::arguments(error)
            }
            error @ (Error::Machine(_) | Error::Io { .. }) => Failure::environment(error),
            Error::Library(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::Run(error) => error.into(),
            Error::Export(error) => error.into(),
        }
    }
}

impl From<osbc_debian::Error> for Failure {
    fn from(error: osbc_debian::Error) -> Self {
        use osbc_debian::Error;
        match error {
            Error::Description(reason) => Failure::Arguments(reason),
            Error::Machine(reason) => Failure::Environment(reason),
            Error::Write { path, source } => Failure::Output { path, source },
            Error::Interrupted => Failure::Interrupted,
        }
    }
}

impl Failure {
    /// The machine lacks something.
    pub(crate) fn environment(reason: impl Display) -> Self {
        Failure::Environment(reason.to_string())
    }

    /// The command line asks for something that is not there.
    pub(crate) fn arguments(reason: impl Display) -> Self {
        Failure::Arguments(reason.to_string())
    }

    /// Has problems of a manifest printed as JSON, if `json`.
    #[must_use]
    pub(crate) fn with_json(self, json: bool) -> Self {
        match self {
            Failure::Manifest(report) if json => Failure::ManifestAsJson(report),
            other => other,
        }
    }

    /// Shows the failure and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::Manifest(report) => {
                show(&report.render(&GraphicalReportHandler::new(), SHOWN));
            }
            Failure::ManifestAsJson(report) => {
                // If standard output is gone, nobody is left to read it.
                print(format!("{:#}\n", report.to_json()).as_bytes()).ok();
            }
            other => match other.way_out() {
                Some(way_out) => say(&format!("osbc: {other}; {way_out}")),
                None => say(&format!("osbc: {other}")),
            },
        }
        self.code()
    }

    /// Returns what to do about it, if that takes this program's flags and commands.
    fn way_out(&self) -> Option<&'static str> {
        match self {
            Failure::NoThread(_) | Failure::Run(RunError::NoThread(_)) => Some(advice::TASKS),
            Failure::Store(StoreError::NoSuchObject { .. }) => Some("`osbc store ls` lists them"),
            _ => None,
        }
    }

    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Manifest(_) | Failure::ManifestAsJson(_) | Failure::Text(_) | Failure::Arguments(_) => BAD_REQUEST,
            Failure::Environment(_)
            | Failure::Store(_)
            | Failure::Run(_)
            | Failure::NoThread(_)
            | Failure::Export(_)
            | Failure::Output { .. }
            | Failure::Stdout(_)
            | Failure::Library(_) => ENVIRONMENT,
            Failure::Interrupted => INTERRUPTED,
        })
    }
}

/// Shows what clap has to say: help and version on standard output with 0, mistakes on standard error with 2.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to say more.
    error.print().ok();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_REQUEST))
}

#[cfg(test)]
mod tests {
    use osbc_sandbox::request::SHELL_NOT_STARTED;

    use super::*;

    #[test]
    fn the_document_lists_these_codes() {
        let text = include_str!("../../docs/exit-codes.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok());
        let not_started = u8::try_from(SHELL_NOT_STARTED).expect("is an exit code");
        let codes = [0, BUILD_FAILED, BAD_REQUEST, ENVIRONMENT, TIMED_OUT, not_started, INTERRUPTED];
        assert_eq!(rows.collect::<Vec<u8>>(), codes);
        assert_eq!(DIFFERENT, BUILD_FAILED);
    }
}
