//! The lock file: which packages a description came to, by name, version, size and checksum, and where they are: by the
//! labels of repositories and the paths in there, not by hosts.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::Spec;

/// What a description came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of this format.
    pub version: u32,
    /// The release, e.g. `bookworm`.
    pub release: String,
    /// The architecture, in dpkg's words.
    pub architecture: String,
    /// Seconds since 1970 of the last change of the repositories.
    pub epoch: i64,
    /// What was asked for.
    pub wanted: Vec<String>,
    /// What was asked for in the build root.
    pub tools: Vec<String>,
    /// What was asked for on top in variants, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<String, Vec<String>>,
    /// All packages, by name.
    pub packages: Vec<Locked>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The name of the package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The architecture, in dpkg's words.
    pub architecture: String,
    /// The size of its file in bytes.
    pub size: u64,
    /// The SHA-256 of its file, in hexadecimal.
    pub sha256: String,
    /// The label of the repository.
    pub repository: String,
    /// Its path there.
    pub path: String,
    /// Which sets it is in.
    pub sets: Vec<Set>,
}

/// A set of packages that a stage installs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// What every system has.
    Essential,
    /// What the system has besides.
    System,
    /// What the build root has besides.
    Tools,
    /// What this variant has on top.
    Variant(String),
}

/// The version of the format.
pub(crate) const VERSION: u32 = 1;

impl Locked {
    /// Where it is, by where the repository of each label is.
    ///
    /// # Errors
    /// There is no place for its repository.
    pub(crate) fn url(&self, urls: &BTreeMap<String, String>) -> Result<String, Error> {
        let label = &self.repository;
        let base = urls.get(label).ok_or_else(|| {
            let name = &self.name;
            Error::machine(format!(
                "apt has no repository with the label {label} for {name}; `--mirror {label}=URL` names one"
            ))
        })?;
        Ok(format!("{}/{}", base.trim_end_matches('/'), self.path))
    }
}

impl Lock {
    /// Reads a lock file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| Error::description(format!("cannot read {shown}: {error}")))?,
        };
        let lock: Self = serde_json::from_str(&text)
            .map_err(|error| Error::description(format!("{shown} is no lock file: {error}")))?;
        if lock.version != VERSION {
            let version = lock.version;
            return Err(Error::description(format!("{shown} has version {version} of the format, not {VERSION}")));
        }
        Ok(Some(lock))
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(Error::machine)? + "\n";
        std::fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    /// Whether it is of this description.
    pub(crate) fn is_of(&self, spec: &Spec) -> bool {
        self.release == spec.release
            && spec.architecture.as_ref().is_none_or(|architecture| *architecture == self.architecture)
            && self.wanted == spec.wanted(&self.architecture)
            && self.tools == spec.tools()
            && self.variants == spec.more_wanted()
    }

    /// The packages of a set.
    pub fn of(&self, set: &Set) -> impl Iterator<Item = &Locked> {
        self.packages.iter().filter(move |package| package.sets.contains(set))
    }

    /// What differs from an older lock, a line a package.
    pub fn changes(&self, older: &Self) -> Vec<String> {
        let versions = |lock: &Self| -> BTreeMap<String, String> {
            lock.packages.iter().map(|package| (package.name.clone(), package.version.clone())).collect()
        };
        let (old, new) = (versions(older), versions(self));
        let gone = old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(name, old)| format!("- {name} {old}"));
        let here = new.iter().filter_map(|(name, new)| match old.get(name) {
            None => Some(format!("+ {name} {new}")),
            Some(old) if old != new => Some(format!("~ {name} {old} -> {new}")),
            Some(_) => None,
        });
        let mut lines: Vec<String> = gone.chain(here).collect();
        lines.sort_by(|one, other| one[2..].cmp(&other[2..]));
        lines
    }
}
