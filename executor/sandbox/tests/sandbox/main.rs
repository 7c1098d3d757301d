//! Stages in their sandbox, for real: every test starts the helper process as osbc does.
//!
//! The helper is this very program, which is why it brings its own harness: libtest's runs tests beside other threads,
//! and the helper must begin alone.

mod contained;
mod devices;
mod environment;
mod harness;
mod hostile;
mod life;
mod modules;
mod on_disk;
mod place;
mod trees;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["helper"] => osbc_sandbox::server::stage_main(&modules::catalog()),
        ["parent", request] => life::be_parent(request),
        ["measure", count] => place::measure(count.parse().expect("a number of stages")),
        _ => harness::run(
            &[
                environment::TESTS,
                trees::TESTS,
                devices::TESTS,
                life::TESTS,
                on_disk::TESTS,
                hostile::TESTS,
                contained::TESTS,
            ]
            .concat(),
            &arguments,
        ),
    }
}
