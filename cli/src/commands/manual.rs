//! `osbc completions` and `osbc man`, generated from the arguments, so that they are up to date.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit::Failure;
use crate::output::{StdoutError, print};

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "osbc", &mut text);
    Ok(print(&text)?)
}

/// Prints the manual page of `osbc`, or writes one page for it and for each command into a directory.
pub(crate) fn man(directory: Option<&Path>) -> Result<ExitCode, Failure> {
    match directory {
        Some(directory) => {
            let failed = |source| Failure::Output { path: directory.to_owned(), source };
            std::fs::create_dir_all(directory).map_err(failed)?;
            clap_mangen::generate_to(Args::command(), directory).map_err(failed)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let mut text = Vec::new();
            let rendered = clap_mangen::Man::new(Args::command()).render(&mut text);
            rendered.map_err(StdoutError::from)?;
            Ok(print(&text)?)
        }
    }
}
