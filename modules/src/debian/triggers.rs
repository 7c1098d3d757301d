//! dpkg's triggers: what packages are interested in, and which of that unpacking has touched. dpkg itself tells the
//! packages, when it configures next.

use std::collections::BTreeSet;

use osbc_module_api::{Error, Tree};

use super::package::Package;
use super::unpack::Unpacked;

const FOLDER: &str = "var/lib/dpkg/triggers";
/// Who is interested in paths.
const PATHS: &str = "var/lib/dpkg/triggers/File";
/// What was touched and is still to be told.
const TOUCHED: &str = "var/lib/dpkg/triggers/Unincorp";

/// Records what packages are interested in, and what unpacking them has touched.
///
/// # Errors
/// The database cannot be read or written.
pub(crate) fn record(tree: &Tree, unpacked: &[(&Package, Unpacked)]) -> Result<(), Error> {
    tree.create_dir_all(FOLDER, 0o755)?;
    for (package, _) in unpacked {
        let name = package.control.full_name();
        for line in package.lines("triggers") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (waits, trigger) = match words.as_slice() {
                ["interest" | "interest-await", trigger] => ("", trigger),
                ["interest-noawait", trigger] => ("/noawait", trigger),
                _ => continue,
            };
            if trigger.starts_with('/') {
                add_lines(tree, PATHS, &[format!("{trigger} {name}{waits}")])?;
            } else if trigger.contains('/') {
                return Err(Error::failed(format!("the package {name} has a trigger with a wrong name: {trigger}")));
            } else {
                add_lines(tree, &format!("{FOLDER}/{trigger}"), &[format!("{name}{waits}")])?;
            }
        }
    }
    if !tree.exists(PATHS)? {
        return Ok(());
    }
    let text = tree.read_to_string(PATHS)?;
    let triggers: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let below = |path: &str, trigger: &str| {
        path.strip_prefix(trigger).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let files = || unpacked.iter().flat_map(|(_, unpacked)| &unpacked.files);
    let touched = triggers.into_iter().filter(|trigger| files().any(|path| below(path, trigger)));
    // Nobody waits: all are told before the stage ends.
    add_lines(tree, TOUCHED, &touched.map(|trigger| format!("{trigger} -")).collect::<Vec<_>>())
}

/// Adds to a file the lines that it does not have.
fn add_lines(tree: &Tree, path: &str, lines: &[String]) -> Result<(), Error> {
    let mut text = if tree.exists(path)? { tree.read_to_string(path)? } else { String::new() };
    for line in lines {
        if !text.lines().any(|there| there == line) {
            text.push_str(&format!("{line}\n"));
        }
    }
    if text.is_empty() { Ok(()) } else { tree.replace(path, text, 0o644) }
}
