//! Resolves a description of a Debian system: which packages it takes, where they are, and the manifest that builds it.
//!
//! A description (`Spec`) says what people say of a system; a [`Lock`] holds the packages that it came to; the manifest
//! is what `osbc build` reads. Like the engine it prints nothing and reads no environment variable.

mod apt;
mod error;
#[cfg(test)]
mod fuzz;
mod graph;
mod lock;
mod reach;
mod spec;

use std::collections::BTreeMap;
use std::path::Path;

use osbc_sandbox::interrupt::Interrupt;
use serde_json::Value;

use crate::apt::Apt;
pub use crate::error::Error;
pub use crate::lock::{Lock, Locked, Set};
use crate::spec::Spec;

/// What is to be resolved, and with what.
#[derive(Debug)]
pub struct Request<'a> {
    /// The file of the description.
    pub description: &'a Path,
    /// The file of the lock: it is kept to if it is there, and the result is compared with it.
    pub lock: Option<&'a Path>,
    /// Whether the packages are chosen anew although there is a lock.
    pub update: bool,
    /// URLs of repositories by label, which go before those that apt knows.
    pub mirrors: &'a [(String, String)],
    /// Where temporary files may lie.
    pub temporary: &'a Path,
    /// The variables that downloads know, such as `https_proxy`.
    pub environment: &'a BTreeMap<String, String>,
}

/// What a description came to.
#[derive(Debug)]
pub struct Resolved {
    /// The manifest, in osbuild's format 2.
    pub manifest: Value,
    /// The packages.
    pub lock: Lock,
    /// The lock that was there before.
    pub old: Option<Lock>,
}

/// Resolves a description.
///
/// # Errors
/// The description or its lock cannot be used, the lock is of other packages than the description asks for, apt does not
/// have them, a repository does not give them, or `interrupt` is raised.
pub fn resolve(request: &Request<'_>, interrupt: &Interrupt) -> Result<Resolved, Error> {
    let spec = Spec::read(request.description)?;
    let mut urls: BTreeMap<String, String> = request.mirrors.iter().cloned().collect();
    let old = request.lock.map(Lock::read).transpose()?.flatten();
    let apt = || Apt::new(&spec.release, spec.architecture.as_deref(), request.temporary, interrupt);
    let lock = match old.as_ref().filter(|_| !request.update) {
        Some(lock) if !lock.is_of(&spec) => {
            return Err(Error::description(format!(
                "{} is the lock of other packages than {} asks for; `--update` resolves them anew",
                request.lock.unwrap_or(Path::new("")).display(),
                request.description.display()
            )));
        }
        Some(lock) => {
            if !lock.packages.iter().all(|package| urls.contains_key(&package.repository)) {
                add(&mut urls, &apt()?);
            }
            lock.clone()
        }
        None => {
            let apt = apt()?;
            add(&mut urls, &apt);
            let lock = apt.resolve(&spec)?;
            reach::ask(&lock, &urls, apt.directory(), request.environment, interrupt)?;
            lock
        }
    };
    Ok(Resolved { manifest: graph::manifest(&spec, &lock, &urls)?, lock, old })
}

fn add(urls: &mut BTreeMap<String, String>, apt: &Apt<'_>) {
    for (label, url) in apt.urls() {
        urls.entry(label).or_insert(url);
    }
}
