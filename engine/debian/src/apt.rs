//! What apt knows: asked by its own commands, on an empty system, with the machine's own sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::fmt::rfc2822;
use osbc_module_api::host_program::{self, Output};
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::fs::temporary::{COMMAND, OwnedDirectory};

use crate::error::Error;
use crate::lock::{Lock, Locked, Set, VERSION};
use crate::spec::Spec;

/// The machine's apt, with the status of a system that has no packages.
pub(crate) struct Apt<'a> {
    /// Holds the status, preferences and caches.
    directory: OwnedDirectory,
    interrupt: &'a Interrupt,
    /// The architecture, and whether it is another one than the machine's.
    architecture: String,
    foreign: bool,
    /// The repositories that have the release.
    repositories: Vec<Repository>,
}

/// A repository of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Its own name for itself, in small letters.
    label: String,
    /// Where it is, with a slash at the end.
    url: String,
    /// Which part of the release it has, e.g. `bookworm-updates`.
    codename: String,
}

/// What a description of the index says of each of its files.
const INDEXES: &str = "$(CREATED_BY)\t$(REPO_URI)\t$(LABEL)\t$(CODENAME)";

impl<'a> Apt<'a> {
    /// Asks apt which repositories have a release.
    ///
    /// What they have for another architecture than the machine's is fetched first, since apt itself has no use for it.
    ///
    /// # Errors
    /// There is no apt, it knows no packages of the release, or the user ends it.
    pub(crate) fn new(
        release: &str,
        architecture: Option<&str>,
        temporary: &Path,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Error> {
        let own = said(Command::new("dpkg").arg("--print-architecture"), interrupt)?.trim().to_owned();
        let architecture = architecture.unwrap_or(&own).to_owned();
        let foreign = architecture != own;
        let directory = OwnedDirectory::new(temporary, COMMAND).map_err(Error::machine)?;
        for name in ["cache/archives/partial", "lists/partial", "preferences"] {
            std::fs::create_dir_all(directory.path().join(name)).map_err(Error::machine)?;
        }
        std::fs::write(directory.path().join("status"), "").map_err(Error::machine)?;
        let mut apt = Self { directory, interrupt, architecture, foreign, repositories: Vec::new() };
        if foreign {
            said(apt.tool("apt-get").args(["--error-on=any", "update"]), interrupt)?;
        }
        let all = indexes(&said(apt.tool("apt-get").args(["indextargets", "--format", INDEXES]), interrupt)?);
        let (of_release, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| is_part(&one.codename, release));
        if of_release.is_empty() {
            let mut known: Vec<&str> = others.iter().map(|one| one.codename.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            let known = if known.is_empty() { "no release at all".to_owned() } else { known.join(", ") };
            let architecture = &apt.architecture;
            return Err(Error::machine(format!(
                "apt knows no packages of the release {release} for {architecture}, but {known}; add it to apt's sources and run `apt-get update`"
            )));
        }
        let pins: String = others
            .iter()
            .map(|one| format!("Package: *\nPin: release n={}\nPin-Priority: -1\n\n", one.codename))
            .collect();
        std::fs::write(apt.directory.path().join("preferences/other-releases"), pins).map_err(Error::machine)?;
        apt.repositories = of_release;
        Ok(apt)
    }

    /// A directory that goes with this.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let place = |name: &str| self.directory.path().join(name).display().to_string();
        for (key, value) in [
            ("Dir::State::status", place("status")),
            ("Dir::State::extended_states", place("extended_states")),
            ("Dir::Cache", place("cache")),
            ("Dir::Etc::preferencesparts", place("preferences")),
            ("Debug::NoLocking", "1".to_owned()),
            ("Acquire::ForceHash", "SHA256".to_owned()),
            ("APT::Install-Recommends", "false".to_owned()),
            ("APT::Install-Suggests", "false".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        if self.foreign {
            for (key, value) in [
                ("APT::Architecture", self.architecture.clone()),
                ("APT::Architectures", self.architecture.clone()),
                // Who writes there.
                ("APT::Sandbox::User", "root".to_owned()),
                ("Dir::State::lists", place("lists")),
            ] {
                command.arg("-o").arg(format!("{key}={value}"));
            }
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Where the packages of a label are, the first repository that has it.
    pub(crate) fn urls(&self) -> BTreeMap<String, String> {
        self.repositories.iter().rev().map(|one| (one.label.clone(), one.url.clone())).collect()
    }

    /// Finds all packages that a description takes.
    ///
    /// # Errors
    /// A package is not known, or what is asked for cannot be had together.
    pub(crate) fn resolve(&self, spec: &Spec) -> Result<Lock, Error> {
        let architecture = self.architecture.clone();
        spec.check_boot(&architecture)?;
        let (wanted, tools) = (spec.wanted(&architecture), spec.tools());
        let essential = self.install(&["?essential".to_owned(), "usr-is-merged".to_owned()])?;
        let mut packages: BTreeMap<String, Locked> = BTreeMap::new();
        let variants = spec.more_wanted();
        let mut add = |set: Set, found: Vec<Locked>, beyond: &[String]| -> Vec<String> {
            let names = found.iter().map(|package| package.name.clone()).collect();
            for package in found.into_iter().filter(|package| !beyond.contains(&package.name)) {
                packages.entry(package.name.clone()).or_insert(package).sets.push(set.clone());
            }
            names
        };
        let essential = add(Set::Essential, essential, &[]);
        let system = add(Set::System, self.install(&[&essential[..], &wanted].concat())?, &essential);
        if !tools.is_empty() {
            add(Set::Tools, self.install(&[&essential[..], &tools].concat())?, &essential);
        }
        for (name, more) in &variants {
            add(Set::Variant(name.clone()), self.install(&[&system[..], more].concat())?, &system);
        }
        let epoch = match spec.epoch {
            Some(epoch) => epoch,
            None => self.last_change(&spec.release)?,
        };
        let (release, packages) = (spec.release.clone(), packages.into_values().collect());
        Ok(Lock { version: VERSION, release, architecture, epoch, wanted, tools, variants, packages })
    }

    /// The packages that apt would install on an empty system.
    fn install(&self, names: &[String]) -> Result<Vec<Locked>, Error> {
        let mut command = self.tool("apt-get");
        let output = run(command.args(["--yes", "--print-uris", "install", "--"]).args(names), self.interrupt)?;
        if !output.status.success() {
            return Err(self.refused(&String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| line.starts_with('\'')).map(|line| package(line, &self.repositories)).collect()
    }

    /// Why apt refused, with names that come close to those that it does not know.
    fn refused(&self, words: &str) -> Error {
        let unknown: Vec<&str> = words.lines().filter_map(unknown_package).collect();
        if unknown.is_empty() {
            return Error::description(format!("apt cannot install these packages together:\n{}", words.trim()));
        }
        let known = said(self.tool("apt-cache").arg("pkgnames"), self.interrupt).unwrap_or_default();
        let lines = unknown.iter().map(|name| match similar(name, known.lines()).as_slice() {
            [] => format!("there is no package {name}"),
            close => format!("there is no package {name}; did you mean {}?", close.join(", ")),
        });
        Error::description(lines.collect::<Vec<_>>().join("\n"))
    }

    /// When a repository of the release was last changed.
    fn last_change(&self, release: &str) -> Result<i64, Error> {
        let shell = said(self.tool("apt-config").args(["shell", "LISTS", "Dir::State::lists/d"]), self.interrupt)?;
        let directory = PathBuf::from(shell.trim().trim_start_matches("LISTS=").trim_matches('\''));
        let names = std::fs::read_dir(&directory).map_err(|error| cannot_read(&directory, error))?.flatten();
        let of_release = names.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.contains(&format!("_dists_{release}")) && (name.ends_with("_InRelease") || name.ends_with("_Release"))
        });
        let mut last = None;
        for entry in of_release {
            let text = std::fs::read(entry.path()).map_err(|error| cannot_read(&entry.path(), error))?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
            last = last.max(date.and_then(seconds));
        }
        last.ok_or_else(|| {
            let directory = directory.display();
            Error::machine(format!("{directory} does not say when {release} was last changed; give an `epoch`"))
        })
    }
}

/// The package of a line such as `'http://…/pool/…/x_1%3a2_all.deb' x_1%3a2_all.deb 123 SHA256:…`.
pub(crate) fn package(line: &str, repositories: &[Repository]) -> Result<Locked, Error> {
    let strange = || Error::machine(format!("cannot understand what apt says of a package: {line}"));
    let (url, rest) = line.strip_prefix('\'').and_then(|line| line.split_once("' ")).ok_or_else(strange)?;
    let words: Vec<&str> = rest.split(' ').collect();
    let [file, size, hash] = words.as_slice() else { return Err(strange()) };
    let sha256 = hash.strip_prefix("SHA256:").ok_or_else(strange)?.to_owned();
    let mut parts = file.strip_suffix(".deb").ok_or_else(strange)?.splitn(3, '_').map(unquoted);
    let (name, version, architecture) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(version), Some(architecture)) => (name, version, architecture),
        _ => return Err(strange()),
    };
    let from = repositories.iter().find(|one| url.starts_with(&one.url)).ok_or_else(|| {
        Error::machine(format!("apt takes {name} from a repository that it did not name before: {url}"))
    })?;
    let (path, repository) = (unquoted(&url[from.url.len()..]), from.label.clone());
    let size = size.parse().map_err(|_| strange())?;
    Ok(Locked { name, version, architecture, size, sha256, repository, path, sets: Vec::new() })
}

/// What apt says of the indexes that it has, the packages' alone.
pub(crate) fn indexes(text: &str) -> Vec<Repository> {
    let line = |line: &str| match line.split('\t').collect::<Vec<_>>().as_slice() {
        ["Packages", url, label, codename] => {
            Some(Repository { label: slug(label), url: (*url).to_owned(), codename: (*codename).to_owned() })
        }
        _ => None,
    };
    // One label may stand for one place alone.
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all: Vec<Repository> = Vec::new();
    for mut one in text.lines().filter_map(line) {
        let known = places.entry(one.label.clone()).or_default();
        let place = known.iter().position(|url| *url == one.url).unwrap_or_else(|| {
            known.push(one.url.clone());
            known.len() - 1
        });
        if place > 0 {
            one.label = format!("{}-{}", one.label, place + 1);
        }
        if !all.contains(&one) {
            all.push(one);
        }
    }
    // So that of two places the one is found whose path goes on.
    all.sort_by_key(|one| std::cmp::Reverse(one.url.len()));
    all
}

/// A label as a word.
fn slug(label: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let slug: String = label.chars().map(plain).collect();
    if slug.is_empty() { "unnamed".to_owned() } else { slug }
}

/// Whether a code name is that of a release or of its updates.
fn is_part(codename: &str, release: &str) -> bool {
    codename == release
        || ["-updates", "-security"].iter().any(|part| codename.strip_suffix(part).is_some_and(|name| name == release))
}

/// The package that a line of apt's says is unknown.
pub(crate) fn unknown_package(line: &str) -> Option<&str> {
    let name = line.strip_prefix("E: Unable to locate package ");
    let name = name.or_else(|| {
        line.strip_prefix("E: Package '")?.split_once("' has no installation candidate").map(|(name, _)| name)
    });
    name.map(str::trim)
}

/// The names that come closest to one, three at most.
fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut close: Vec<(usize, &str)> = known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2 || (name.len() > 3 && known.starts_with(name)))
        .collect();
    close.sort_unstable();
    close.into_iter().take(3).map(|(_, known)| known).collect()
}

/// Text in which `%2b` is `+`.
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code =
            tail.get(..2).and_then(|code| str::from_utf8(code).ok()).and_then(|code| u8::from_str_radix(code, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn seconds(date: &str) -> Option<i64> {
    let date = date.trim().replace("UTC", "+0000");
    rfc2822::DateTimeParser::new().parse_timestamp(&date).ok().map(|moment| moment.as_second())
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::machine(format!("cannot read {}: {error}", path.display()))
}

fn run(command: &mut Command, interrupt: &Interrupt) -> Result<Output, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ran = host_program::output(command, b"", &|| interrupt.is_raised()).map_err(|error| {
        Error::machine(format!("cannot run {name}: {error}; packages are found by the apt of Debian and its kin"))
    })?;
    ran.ok_or(Error::Interrupted)
}

/// What a command says that must succeed.
fn said(command: &mut Command, interrupt: &Interrupt) -> Result<String, Error> {
    let output = run(command, interrupt)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let (name, words) = (command.get_program().to_string_lossy().into_owned(), String::from_utf8_lossy(&output.stderr));
    Err(Error::machine(format!("{name} failed: {}", words.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_known_by_labels_that_stand_for_one_place() {
        let text = "Packages\thttp://a.example/debian/\tDebian\tbookworm\nDEP-11\thttp://a.example/debian/\tDebian\tbookworm\n\
                    Packages\thttp://a.example/debian/\tDebian\tbookworm-updates\n\
                    Packages\thttp://a.example/debian-security/\tDebian-Security\tbookworm-security\n\
                    Packages\thttp://b.example/debian/\tDebian\tbookworm\n";
        let labels: Vec<_> = indexes(text).into_iter().map(|one| (one.label, one.codename)).collect();
        let expected = [
            ("debian-security", "bookworm-security"),
            ("debian", "bookworm"),
            ("debian", "bookworm-updates"),
            ("debian-2", "bookworm"),
        ];
        assert_eq!(labels, expected.map(|(label, codename)| (label.to_owned(), codename.to_owned())));
        assert!(is_part("bookworm-security", "bookworm") && !is_part("bookworm-backports", "bookworm"));
    }

    #[test]
    fn what_apt_says_of_a_package_is_taken_apart() {
        let repository =
            Repository { label: "debian".into(), url: "http://a.example/debian/".into(), codename: "x".into() };
        let read = |line: &str| package(line, std::slice::from_ref(&repository));
        let line = "'http://a.example/debian/pool/main/g/gcc/libstdc%2b%2b6_12_amd64.deb' libstdc++6_1%3a12_amd64.deb 12 SHA256:ab";
        let package = read(line).expect("it is whole");
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libstdc++6", "1:12"));
        assert_eq!(
            (package.path.as_str(), package.repository.as_str()),
            ("pool/main/g/gcc/libstdc++6_12_amd64.deb", "debian")
        );
        for line in ["'http://a.example/debian/x' x 1", "'http://b.example/x_1_all.deb' x_1_all.deb 1 SHA256:ab", "'x"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn names_that_come_close_are_suggested() {
        assert_eq!(unknown_package("E: Unable to locate package vmi"), Some("vmi"));
        assert_eq!(unknown_package("E: Package 'awk' has no installation candidate"), Some("awk"));
        assert_eq!(unknown_package("E: Broken packages"), None);
        assert_eq!(similar("vmi", ["vim", "vim-nox", "emacs"].into_iter()), ["vim"]);
        assert_eq!(similar("openssh", ["openssh-server", "openssl", "x"].into_iter()), ["openssl", "openssh-server"]);
    }

    #[test]
    fn dates_are_those_of_release_files() {
        assert_eq!(
            seconds("Sat, 09 Sep 2001 01:46:40 UTC").or(seconds("Sun, 09 Sep 2001 01:46:40 UTC")),
            Some(1_000_000_000)
        );
        assert_eq!(seconds("yesterday"), None);
    }
}
