//! `osbc resolve`: from a short description of a system to a manifest that says it in full.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use osbc_executor::interrupt::Interrupt;

use crate::args::ResolveDebianArgs;
use crate::debian::apt::Apt;
use crate::debian::graph;
use crate::debian::lock::{Lock, Set};
use crate::debian::reach;
use crate::debian::spec::Spec;
use crate::exit::Failure;
use crate::output::print;
use crate::signals::listen;

/// Resolves a Debian system.
pub(crate) fn debian(args: &ResolveDebianArgs) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let spec = Spec::read(&args.spec)?;
    let mut urls: BTreeMap<String, String> = args.mirrors.iter().cloned().collect();
    let old = args.lock.as_deref().map(Lock::read).transpose()?.flatten();
    let lock = match old.as_ref().filter(|_| !args.update) {
        Some(lock) if !lock.is_of(&spec) => {
            let path = args.lock.as_deref().unwrap_or(Path::new(""));
            return Err(Failure::arguments(format!(
                "{} is the lock of other packages than {} asks for; `--update` resolves them anew",
                path.display(),
                args.spec.display()
            )));
        }
        Some(lock) => {
            if !lock.packages.iter().all(|package| urls.contains_key(&package.repository)) {
                add(&mut urls, &Apt::new(&spec.release, spec.architecture.as_deref(), &interrupt)?);
            }
            lock.clone()
        }
        None => {
            let apt = Apt::new(&spec.release, spec.architecture.as_deref(), &interrupt)?;
            add(&mut urls, &apt);
            let lock = apt.resolve(&spec)?;
            reach::ask(&lock, &urls, apt.directory(), &interrupt)?;
            lock
        }
    };
    let manifest = graph::manifest(&spec, &lock, &urls)?;
    let text = serde_json::to_string_pretty(&manifest).map_err(Failure::environment)? + "\n";
    std::fs::write(&args.output, text).map_err(|source| Failure::Output { path: args.output.clone(), source })?;
    if let Some(path) = &args.lock
        && old.as_ref() != Some(&lock)
    {
        lock.write(path)?;
    }
    print(summary(&lock, old.as_ref()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn add(urls: &mut BTreeMap<String, String>, apt: &Apt) {
    for (label, url) in apt.urls() {
        urls.entry(label).or_insert(url);
    }
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
