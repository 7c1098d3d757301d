//! `osbc graph`: the build graph as a picture or as data, coloured by what a build would do now.

use std::process::ExitCode;

use osbc_compiler::draw::{Format, Level, draw};

use crate::args::{GraphArgs, GraphFormat, GraphLevel};
use crate::exit::Failure;
use crate::output::print;
use crate::wiring;

/// Draws the graph.
pub(crate) fn run(args: &GraphArgs) -> Result<ExitCode, Failure> {
    let prepared = wiring::prepare(&args.manifest, &args.target.exports)?;
    let plan = prepared.preview(wiring::look(args.target.store.as_deref())?.as_ref())?;
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
    Ok(print(draw(&prepared.graph, Some(&plan), level, format).as_bytes())?)
}
