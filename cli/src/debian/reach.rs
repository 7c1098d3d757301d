//! Whether the repositories that a lock names give what it says, before a build finds that they do not.

use std::collections::BTreeMap;

use osbc_modules::probe;

use super::lock::{Lock, Locked};
use crate::env;
use crate::exit::Failure;

/// Asks each repository for the smallest of its packages.
///
/// # Errors
/// There is no place for a repository, or it does not give the package.
pub(crate) fn ask(lock: &Lock, urls: &BTreeMap<String, String>) -> Result<(), Failure> {
    let mut smallest: BTreeMap<&str, &Locked> = BTreeMap::new();
    for package in &lock.packages {
        let known = smallest.entry(&package.repository).or_insert(package);
        if package.size < known.size {
            *known = package;
        }
    }
    let environment = env::sources();
    smallest.into_iter().try_for_each(|(label, package)| {
        let checksum = format!("sha256:{}", package.sha256);
        probe::ask(&package.url(urls)?, &checksum, &environment).map_err(|error| {
            Failure::environment(format!(
                "the repository {label} does not give the package {}: {error}\n`--mirror {label}=URL` names another place; \
                 where this one has newer packages, `apt-get update` lets apt know",
                package.name
            ))
        })
    })
}
