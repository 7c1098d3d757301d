//! The errors of modules.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::threads::NoThread;

/// Why a module could not do its work. Shown to people as the reason of a failed stage or fetch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options do not fit the module's type, though they passed its schema.
    #[error("invalid options: {0}")]
    Options(#[source] serde_json::Error),
    /// A file operation failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot … /etc/hostname": `read`, `write`, `create the directory`.
        act: &'static str,
        /// Where; inside a tree the path within it.
        path: PathBuf,
        /// The OS error.
        source: io::Error,
    },
    /// A tool is missing.
    #[error("the tool `{tool}` is not {place}; install {packages} there")]
    MissingTool {
        /// The tool's name.
        tool: String,
        /// Where it was looked for: `in the build root`, `in the tree` or `on the host`.
        place: &'static str,
        /// Which packages have it.
        packages: String,
    },
    /// A tool failed, and the log has what it said.
    #[error("`{command}` failed: {status}")]
    ToolFailed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A tool failed that has no log to write to.
    #[error("`{command}` failed: {status}: {said}")]
    ToolRefused {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// A program is made for another CPU architecture, and the machine has no emulator for it.
    #[error(
        "{} is made for {architecture}, which this machine does not run; install qemu-user-static and binfmt-support on it",
        program.display()
    )]
    WrongArchitecture {
        /// The program, as a path of its tree.
        program: PathBuf,
        /// Debian's name of the machines that it is for.
        architecture: String,
    },
    /// No thread can be started. The machine lacks something; the manifest is fine.
    #[error(transparent)]
    NoThread(NoThread),
    /// The module refuses or gives up, and says why.
    #[error("{reason}")]
    Failed {
        /// Lower case, no final period, names the thing and where there is one the way out.
        reason: String,
    },
    /// The build was ended while the module worked.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A failure in the module's own words.
    pub fn failed(reason: impl Into<String>) -> Self {
        Error::Failed { reason: reason.into() }
    }

    /// Whether a file could not be written since a disk, or a quota of it, is full.
    pub fn is_full(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Error::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Puts what was tried, and where, to a system error: `.map_err(Error::io("read", path))`.
    pub fn io<E: Into<io::Error>>(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { act, path: path.as_ref().to_owned(), source: source.into() }
    }
}
