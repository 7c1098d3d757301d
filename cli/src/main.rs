//! The `osbc` command: arguments and presentation.

mod advice;
mod args;
mod builds;
mod causes;
mod commands;
mod doctor;
mod dropin;
mod env;
mod exit;
mod monitor;
mod output;
mod render;
mod report;
mod rootless;
mod signals;
mod size;
mod summary;
mod terminal;
mod warnings;
mod wiring;

use std::process::ExitCode;

use clap::Parser;
use osbc_module_api::threads;

use crate::args::{Args, Command, ResolveCommand};
use crate::exit::Failure;

/// Compiling makes millions of small values and drops them again, which glibc's allocator takes half as long again for
/// (`benches/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = osbc_engine::child_main(std::env::args_os()) {
        return code;
    }
    if let Some(arguments) = env::osbuild_arguments() {
        return dropin::main(&arguments);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    match run(args.command) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    if command.works_on_trees() {
        rootless::become_root();
    }
    if command.works_in_parallel() {
        threads::start_pool()?;
    }
    match command {
        Command::Plan(args) => commands::plan::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Build(args) => commands::build::run(&args),
        Command::Resolve(ResolveCommand::Debian(args)) => commands::resolve::debian(&args),
        Command::Boot(args) => commands::boot::run(&args),
        Command::Shell(args) => commands::shell::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Log(args) => commands::log::run(&args),
        Command::Graph(args) => commands::graph::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Modules(args) => commands::modules::run(&args),
        Command::Compat(args) => commands::compat::run(&args),
        Command::Osbuild(args) => Ok(dropin::run(&args)),
        Command::Store(command) => commands::store::run(command),
        Command::Completions { shell } => commands::manual::completions(shell),
        Command::Man { directory } => commands::manual::man(directory.as_deref()),
    }
}
