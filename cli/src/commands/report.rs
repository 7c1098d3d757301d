//! `osbc report`: a recorded build as one page.

use std::path::Path;
use std::process::ExitCode;

use crate::args::ReportArgs;
use crate::builds::{Builds, events, unreadable};
use crate::commands::log::{no_such_build, result};
use crate::exit::Failure;
use crate::output::{print, say};
use crate::report::Page;

/// Writes the page.
pub(crate) fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let builds = Builds::of(args.store.as_deref())?;
    let record = match &args.build {
        Some(name) => builds.find(name)?.ok_or_else(|| no_such_build(name))?,
        None => builds.last()?,
    };
    let graph = record.graph().map_err(|error| unreadable(&record.directory, &error))?;
    let page = Page::new(&record.header, result(record), &events(record)?, &graph, &record.directory);
    let text = page.html().map_err(Failure::environment)?;
    if args.output == Path::new("-") {
        return Ok(print(text.as_bytes())?);
    }
    std::fs::write(&args.output, text).map_err(|source| Failure::Output { path: args.output.clone(), source })?;
    say(&format!("osbc: {} is the report of the build {}", args.output.display(), record.header.build));
    Ok(ExitCode::SUCCESS)
}
