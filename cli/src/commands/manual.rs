//! `osbc completions` and `osbc man`: generated from the arguments, so that they are always true.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use osbc_ir::printable;

use crate::args::Args;
use crate::exit::Failure;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "osbc", &mut text);
    print(&text)
}

/// Prints the manual page of `osbc`, or writes one page for it and for each command into a folder.
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
            rendered.map_err(|source| Failure::Output { path: "standard output".into(), source })?;
            print(&text)
        }
    }
}

/// Writes a text to standard output, without what could control a terminal; a reader that has gone away is no failure.
pub(crate) fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    print_as_is(printable::text(&String::from_utf8_lossy(text)).as_bytes())
}

/// Writes bytes to standard output.
pub(crate) fn print_as_is(text: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(source) => Err(Failure::Output { path: "standard output".into(), source }),
    }
}
