//! `osbc inspect`: the manifest with the ids of its stages.

use std::process::ExitCode;

use osbc_compiler::describe;

use crate::args::{IdScheme, InspectArgs};
use crate::exit::Failure;
use crate::output::print;
use crate::wiring;

/// Prints the manifest.
pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let graph = wiring::compile_as_written(&args.manifest).map_err(|failure| failure.with_json(args.json))?;
    let scheme = match args.ids {
        IdScheme::Blake3 => describe::IdScheme::Blake3,
        IdScheme::Osbuild => describe::IdScheme::Osbuild,
    };
    let text = osbc_pytext::json::to_string(&describe::describe(&graph, scheme)) + "\n";
    Ok(print(text.as_bytes())?)
}
