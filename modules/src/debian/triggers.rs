//! dpkg's triggers: what packages are interested in, and which of that unpacking has touched. dpkg itself informs the
//! packages, when it configures next.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use osbc_module_api::{Error, Tree};

use super::database::read_text;
use super::package::Package;
use super::unpack::Unpacked;

const DIRECTORY: &str = "var/lib/dpkg/triggers";
/// Who is interested in paths.
const PATHS: &str = "var/lib/dpkg/triggers/File";
/// What was touched and not yet reported to the watchers.
const TOUCHED: &str = "var/lib/dpkg/triggers/Unincorp";

/// Records what packages are interested in, and what unpacking them has touched.
///
/// # Errors
/// The database cannot be read or written.
pub(crate) fn record(tree: &Tree, unpacked: &[(&Package, Unpacked)]) -> Result<(), Error> {
    tree.create_dir_all(DIRECTORY, 0o755)?;
    let mut interests: BTreeMap<String, Vec<String>> = BTreeMap::new();
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
                interests.entry(PATHS.to_owned()).or_default().push(format!("{trigger} {name}{waits}"));
            } else if trigger.contains('/') {
                return Err(Error::failed(format!("the package {name} has a trigger with a wrong name: {trigger}")));
            } else {
                interests.entry(format!("{DIRECTORY}/{trigger}")).or_default().push(format!("{name}{waits}"));
            }
        }
    }
    for (path, lines) in &interests {
        add_lines(tree, path, lines)?;
    }
    if !tree.exists(PATHS)? {
        return Ok(());
    }
    let text = read_text(tree, PATHS)?;
    let triggers: HashSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let files = unpacked.iter().flat_map(|(_, unpacked)| &unpacked.files);
    let touched: BTreeSet<&str> = files.flat_map(|path| ways_to(path)).filter(|path| triggers.contains(path)).collect();
    // Nobody waits: all run before the stage ends.
    add_lines(tree, TOUCHED, &touched.into_iter().map(|trigger| format!("{trigger} -")).collect::<Vec<_>>())
}

/// Returns a path and the directories that it lies in.
fn ways_to(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]).filter(|way| !way.is_empty())
}

/// Adds to a file the lines that it does not have.
fn add_lines(tree: &Tree, path: &str, lines: &[String]) -> Result<(), Error> {
    let before = if tree.exists(path)? { read_text(tree, path)? } else { String::new() };
    let mut there: HashSet<&str> = before.lines().collect();
    let new: String = lines.iter().filter(|line| there.insert(line)).map(|line| format!("{line}\n")).collect();
    if before.is_empty() && new.is_empty() { Ok(()) } else { tree.replace(path, before.clone() + &new, 0o644) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_to_a_path_are_its_directories_and_itself() {
        assert_eq!(ways_to("/usr/share/x").collect::<Vec<_>>(), ["/usr", "/usr/share", "/usr/share/x"]);
        assert_eq!(ways_to("/x").collect::<Vec<_>>(), ["/x"]);
    }
}
