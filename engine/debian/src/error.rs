//! Why a description was not resolved.

use std::fmt::Display;
use std::path::PathBuf;

/// Why a description was not resolved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description or the lock is wrong, or asks for what cannot be had.
    #[error("{0}")]
    Description(String),
    /// The machine or one of its repositories lacks something.
    #[error("{0}")]
    Machine(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The OS error.
        source: std::io::Error,
    },
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn description(reason: impl Display) -> Self {
        Error::Description(reason.to_string())
    }

    pub(crate) fn machine(reason: impl Display) -> Self {
        Error::Machine(reason.to_string())
    }
}
