//! Runs tests one after the other, with the arguments of cargo test and cargo nextest.

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test's name and what it does.
pub(crate) type Test = (&'static str, fn());

/// Names each test after its function.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::harness::Test] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;

#[expect(clippy::print_stdout, reason = "this is what a harness does")]
pub(crate) fn run(tests: &[Test], arguments: &[String]) -> ExitCode {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| {
        let fits =
            |filter: &&String| if has("--exact") { name == filter.as_str() } else { name.contains(filter.as_str()) };
        !has("--ignored") && (filters.is_empty() || filters.iter().any(fits))
    };
    let tests: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    if has("--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !tests.is_empty() && !osbc_fixtures::has_root() {
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, test) in &tests {
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    println!("\n{} passed, {} failed: {failed:?}", tests.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
