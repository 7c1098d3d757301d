//! The engine's errors.

use std::io;
use std::path::PathBuf;

use osbc_compiler::passes::ExportError as UnknownExports;
use osbc_compiler::{ReadError, Report};
use osbc_executor::RunError;
use osbc_module_api::LibraryError;
use osbc_store::StoreError;
use osbc_store::export::ExportError;

/// An error of the engine.
///
/// A failed stage or download is no error, but part of the build's outcome. Messages name no flags; a front end adds
/// advice about its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest cannot be read.
    #[error(transparent)]
    Text(#[from] ReadError),
    /// The manifest has problems.
    #[error("the manifest is invalid")]
    Manifest(#[from] Box<Report>),
    /// There is no such directory of modules.
    #[error("the module directory {} is not there", .0.display())]
    NoModuleDirectory(PathBuf),
    /// A module cannot be described.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// An export names no pipeline of the manifest.
    #[error(transparent)]
    UnknownExports(#[from] UnknownExports),
    /// A pipeline cannot be exported to a directory of its name.
    #[error(
        "the pipeline `{name}` cannot be exported to {}: its name is not that of a directory; export it by its id",
        output.display()
    )]
    ExportName {
        /// The pipeline's name.
        name: String,
        /// The directory that was to have one of its name.
        output: PathBuf,
    },
    /// This machine lacks something that the plan needs.
    #[error("{0}")]
    Machine(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A result cannot be written to the output directory.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A system call failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// The OS error.
        source: io::Error,
    },
}
