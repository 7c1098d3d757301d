//! `osbc graph`: the build graph as a picture or as data, coloured by what a build would do now.

use std::process::ExitCode;

use osbc_compiler::draw::{Format, Level, draw};

use crate::args::{GraphArgs, GraphFormat, GraphLevel};
use crate::commands::manual::print;
use crate::exit::Failure;
use crate::wiring;

/// Draws the graph.
pub(crate) fn run(args: &GraphArgs) -> Result<ExitCode, Failure> {
    let prepared = wiring::prepare(&args.manifest, &args.target)?;
    let plan = wiring::plan_only(&prepared, &args.target)?;
    let format = match args.format {
        GraphFormat::Dot => Format::Dot,
        GraphFormat::Mermaid => Format::Mermaid,
        GraphFormat::Json => Format::Json,
        GraphFormat::Svg => Format::Svg,
    };
    let level = match args.level {
        GraphLevel::Pipeline => Level::Pipeline,
        GraphLevel::Stage => Level::Stage,
    };
    print(draw(&prepared.graph, Some(&plan), level, format).as_bytes())
}
