//! Builds a manifest and prints what happens meanwhile, a line for each event.
//!
//! ```text
//! cargo run --example watch_events -- MANIFEST STORE
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example of a program")]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use osbc_engine::{
    BuildOptions, Environment, Event, Interrupt, Monitor, Request, Session, SessionConfig, SourceText, StoreConfig,
    become_root, builtin, child_main, exports,
};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, NodeOutcome, printable};

/// Prints events; the graph has the names of what they are about.
struct Lines(Arc<Graph>);

impl Lines {
    fn name(&self, node: NodeIndex) -> String {
        if let Some(stage) = self.0.stage_node(node) {
            let (pipeline, stage) = self.0.stage(stage);
            return format!("{}: {}", pipeline.name, stage.module.name);
        }
        self.0.item_node(node).map(|item| self.0.item(item).1.key.checksum.clone()).unwrap_or_default()
    }
}

impl Monitor for Lines {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        let line = match event {
            Event::Started { workers, .. } => format!("started with {workers} workers"),
            Event::Cached { node } => format!("cached   {}", self.name(*node)),
            Event::FetchStarted { node, .. } => format!("fetching {}", self.name(*node)),
            Event::StageStarted { node, .. } => format!("running  {}", self.name(*node)),
            Event::StageOutput { node, text } => format!("output   {}: {}", self.name(*node), text.trim_end()),
            Event::Finished { node, outcome: NodeOutcome::Ran(result) } if result.success => {
                format!("done     {}", self.name(*node))
            }
            Event::Finished { node, outcome } if outcome.is_failure() => format!("failed   {}", self.name(*node)),
            Event::Ended { duration, .. } => format!("ended after {duration:?}"),
            _ => return,
        };
        println!("{:8.3} s  {}", at.as_secs_f64(), printable::text(&line));
    }
}

fn main() -> ExitCode {
    if let Some(code) = child_main(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, store] = arguments.as_slice() else {
        eprintln!("usage: watch_events MANIFEST STORE");
        return ExitCode::from(2);
    };
    match build(Path::new(manifest), Path::new(store)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds; returns whether all went well.
fn build(manifest: &Path, store: &Path) -> Result<bool, Box<dyn Error>> {
    become_root()?;
    let session = Session::open(SessionConfig { libraries: vec![builtin()], environment: Environment::default() })?;
    let graph = session.compile(&SourceText::read(manifest)?)?;
    let request = Request::results(exports(&graph, &[])?);
    let planned = session.plan(&graph, &StoreConfig::own(store), &request)?;
    planned.check_machine(&BTreeSet::new())?;
    let options = BuildOptions { manifest, ..BuildOptions::default() };
    let built = planned.run(&options, &mut Lines(graph), &Interrupt::new()?)?;
    Ok(built.outcome.success())
}
