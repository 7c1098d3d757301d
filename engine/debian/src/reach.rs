//! Whether the repositories that a lock names give what it says, before a build finds that they do not.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;
use osbc_modules::downloads::probe;
use osbc_sandbox::interrupt::Interrupt;

use crate::lock::{Lock, Locked};

/// Asks each repository for the smallest of its packages, which is downloaded to `directory` for the moment.
///
/// # Errors
/// There is no place for a repository, it does not give the package, or the user ends it.
pub(crate) fn ask(
    lock: &Lock,
    urls: &BTreeMap<String, String>,
    directory: &Path,
    environment: &BTreeMap<String, String>,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let mut smallest: BTreeMap<&str, &Locked> = BTreeMap::new();
    for package in &lock.packages {
        let known = smallest.entry(&package.repository).or_insert(package);
        if package.size < known.size {
            *known = package;
        }
    }
    smallest.into_iter().try_for_each(|(label, package)| {
        let checksum = format!("sha256:{}", package.sha256);
        let asked = probe::ask(&package.url(urls)?, &checksum, directory, &|| interrupt.is_raised(), environment);
        asked.map_err(|error| match error {
            osbc_module_api::Error::Interrupted => Error::Interrupted,
            error => Error::machine(format!(
                "the repository {label} does not give the package {}: {error}\n`--mirror {label}=URL` names another place; \
                 where this one has newer packages, `apt-get update` lets apt know",
                package.name
            )),
        })
    })
}
