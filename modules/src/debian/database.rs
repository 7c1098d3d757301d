//! What dpkg keeps in `/var/lib/dpkg`: which packages there are, what is diverted and overridden; and how it records
//! packages that were unpacked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};

use osbc_module_api::tree::Times;
use osbc_module_api::{Error, Tree};
use rustix::fs::OFlags;

use super::control::Control;
use super::owners::Owners;
use super::package::{ControlFile, Package};
use super::unpack::Unpacked;

pub(crate) const DIRECTORY: &str = "var/lib/dpkg";
const STATUS: &str = "var/lib/dpkg/status";
const INFO: &str = "var/lib/dpkg/info";
const DIRECTORIES: [&str; 4] = ["alternatives", "info", "parts", "updates"];

/// Owner, group and mode by path.
pub(crate) type Overrides = HashMap<String, (u32, u32, u32)>;

/// How large a file of the database may be: far more than any has, and less than memory.
const LARGEST: u64 = 256 << 20;

/// Reads a text file that packages' scripts may have made.
///
/// # Errors
/// It cannot be read, is not UTF-8, or larger than any of its kind.
pub(crate) fn read_text(tree: &Tree, path: &str) -> Result<String, Error> {
    let size = tree.metadata(path)?.len();
    if size > LARGEST {
        return Err(Error::failed(format!("/{path} has {size} bytes; at most {LARGEST} are read")));
    }
    tree.read_to_string(path)
}

/// Makes the database where there is none.
///
/// # Errors
/// It cannot be made.
pub(crate) fn prepare(tree: &Tree) -> Result<(), Error> {
    for directory in DIRECTORIES {
        tree.create_dir_all(format!("{DIRECTORY}/{directory}"), 0o755)?;
    }
    for (path, content) in [(STATUS, ""), ("var/lib/dpkg/available", ""), ("var/lib/dpkg/info/format", "1\n")] {
        if !tree.exists(path)? {
            tree.replace(path, content, 0o644)?;
        }
    }
    Ok(())
}

/// The packages that are there, in whatever state, by the names that [`Control::full_name`] gives them.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn packages(tree: &Tree) -> Result<BTreeMap<String, Control>, Error> {
    if !tree.exists(STATUS)? {
        return Ok(BTreeMap::new());
    }
    let all = Control::all(&read_text(tree, STATUS)?);
    let there = |control: &Control| !matches!(state(control), "not-installed" | "config-files");
    Ok(all.into_iter().filter(there).map(|control| (control.full_name(), control)).collect())
}

/// How far a package is, e.g. `unpacked` or `installed`.
pub(crate) fn state(control: &Control) -> &str {
    control.value("Status").rsplit(' ').next().unwrap_or_default()
}

/// A file of the control data of a package, by the package's full name.
pub(crate) fn info(package: &str, file: &str) -> String {
    format!("{INFO}/{package}.{file}")
}

/// The paths of a package that is there.
///
/// # Errors
/// Its list cannot be read.
pub(crate) fn paths(tree: &Tree, package: &str) -> Result<Vec<String>, Error> {
    let list = info(package, "list");
    if !tree.exists(&list)? {
        return Ok(Vec::new());
    }
    Ok(read_text(tree, &list)?.lines().map(str::to_owned).collect())
}

/// Writes the list of a package's paths.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_paths(tree: &Tree, package: &str, paths: &[String]) -> Result<(), Error> {
    let list: String = paths.iter().map(|path| format!("{path}\n")).collect();
    tree.replace(info(package, "list"), list, 0o644)
}

/// Writes the files of a package's control data to where dpkg keeps them.
///
/// # Errors
/// They cannot be written.
pub(crate) fn write_info(tree: &Tree, package: &Package) -> Result<(), Error> {
    let name = package.control.full_name();
    let put = |file: &ControlFile, content: &mut dyn Read| -> io::Result<()> {
        let path = info(&name, &file.name);
        tree.replace(&path, "", file.mode).map_err(io::Error::other)?;
        let mut out = tree.open_file(&path, OFlags::WRONLY | OFlags::NOFOLLOW, 0).map_err(io::Error::other)?;
        io::copy(content, &mut out)?;
        let time = (file.mtime, 0);
        tree.set_times(&path, Times { accessed: time, modified: time }).map_err(io::Error::other)
    };
    let cannot = |error| Error::failed(format!("cannot unpack the control data of the package {name}: {error}"));
    package.each_control_file(put).map_err(cannot)
}

/// Records packages as unpacked.
///
/// # Errors
/// The database cannot be written.
pub(crate) fn record(tree: &Tree, unpacked: &[(&Package, Unpacked)]) -> Result<(), Error> {
    let mut status = String::new();
    for (package, unpacked) in unpacked {
        let name = package.control.full_name();
        write_paths(tree, &name, &unpacked.paths)?;
        write_info(tree, package)?;
        if let Some(sums) = &unpacked.sums {
            tree.replace(info(&name, "md5sums"), sums, 0o644)?;
        }
        status.push_str(&paragraph(package, unpacked));
    }
    let before = read_text(tree, STATUS)?;
    let between = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    tree.replace(STATUS, format!("{before}{between}{status}"), 0o644)
}

/// What the status says of a package that was unpacked. dpkg puts the fields into its own order when it writes next.
fn paragraph(package: &Package, unpacked: &Unpacked) -> String {
    let mut text = format!("{}\nStatus: install ok unpacked\n", package.control.text());
    let there: HashSet<&str> = unpacked.configuration.iter().map(String::as_str).collect();
    let listed = package.configuration_files().filter(|path| there.contains(path));
    let files: String = listed.map(|path| format!(" {path} newconffile\n")).collect();
    if !files.is_empty() {
        text.push_str(&format!("Conffiles:\n{files}"));
    }
    text + "\n"
}

/// The owners and modes that dpkg gives to paths whatever packages say.
///
/// # Errors
/// The list cannot be read or names somebody whom the tree does not know.
pub(crate) fn overrides(tree: &Tree, owners: &Owners) -> Result<Overrides, Error> {
    const LIST: &str = "var/lib/dpkg/statoverride";
    if !tree.exists(LIST)? {
        return Ok(Overrides::new());
    }
    let text = read_text(tree, LIST)?;
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let user = words.next().and_then(|name| owners.user(name))?;
        let group = words.next().and_then(|name| owners.group(name))?;
        let mode = words.next().and_then(|mode| u32::from_str_radix(mode, 8).ok())?;
        Some((words.next()?.to_owned(), (user, group, mode)))
    };
    let wrong = |text: &str| Error::failed(format!("/{LIST} has a line that means nothing here: {text}"));
    text.lines().map(|text| line(text).ok_or_else(|| wrong(text))).collect()
}

/// Paths that lead elsewhere for all packages but one.
#[derive(Debug, Default)]
pub(crate) struct Diversions {
    /// Where to and who is not affected, by path.
    paths: HashMap<String, (String, String)>,
}

impl Diversions {
    /// Reads those of a tree.
    ///
    /// # Errors
    /// The list cannot be read.
    pub(crate) fn read(tree: &Tree) -> Result<Self, Error> {
        const LIST: &str = "var/lib/dpkg/diversions";
        if !tree.exists(LIST)? {
            return Ok(Self::default());
        }
        let text = read_text(tree, LIST)?;
        let lines: Vec<&str> = text.lines().collect();
        let one = |lines: &[&str]| (lines[0].to_owned(), (lines[1].to_owned(), lines[2].to_owned()));
        Ok(Self { paths: lines.chunks_exact(3).map(one).collect() })
    }

    /// Where what a package has at an absolute path goes.
    pub(crate) fn of<'a>(&'a self, path: &'a str, package: &str) -> &'a str {
        match self.paths.get(path) {
            Some((target, but)) if but != package => target,
            _ => path,
        }
    }
}
