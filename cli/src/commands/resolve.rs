//! `osbc resolve`: makes a manifest from a short description of a system.

use std::process::ExitCode;

use osbc_debian::{Lock, Request, Set};
use osbc_sandbox::interrupt::Interrupt;

use crate::args::ResolveDebianArgs;
use crate::env;
use crate::exit::Failure;
use crate::output::print;
use crate::signals::listen;

/// Resolves a Debian system.
pub(crate) fn debian(args: &ResolveDebianArgs) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let request = Request {
        description: &args.spec,
        lock: args.lock.as_deref(),
        update: args.update,
        mirrors: &args.mirrors,
        temporary: &std::env::temp_dir(),
        environment: &env::environment().sources,
    };
    let resolved = osbc_debian::resolve(&request, &interrupt)?;
    let text = serde_json::to_string_pretty(&resolved.manifest).map_err(Failure::environment)? + "\n";
    std::fs::write(&args.output, text).map_err(|source| Failure::Output { path: args.output.clone(), source })?;
    let old = resolved.old.as_ref();
    if let Some(path) = &args.lock
        && old != Some(&resolved.lock)
    {
        resolved.lock.write(path)?;
    }
    print(summary(&resolved.lock, old).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What came of it, and what is other than before.
fn summary(lock: &Lock, old: Option<&Lock>) -> String {
    let count = |set: Set| lock.of(&set).count();
    let bytes: u64 = lock.packages.iter().map(|package| package.size).sum();
    let mut text =
        old.map_or_else(String::new, |old| lock.changes(old).iter().map(|line| format!("{line}\n")).collect());
    text += &format!(
        "{} {}: {} packages in the system, {} more in the build root, {} to fetch\n",
        lock.release,
        lock.architecture,
        count(Set::Essential) + count(Set::System),
        lock.packages.iter().filter(|package| package.sets == [Set::Tools]).count(),
        crate::render::bytes(bytes),
    );
    text
}
