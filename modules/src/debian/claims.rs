//! Whose a path is that several packages have: that of the package which says that it replaces the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use osbc_module_api::{Error, Tree};

use super::control::Control;
use super::database;
use super::package::Package;
use super::unpack::{Target, Unpacked};

/// Takes paths from the lists of the packages that are replaced there, and returns which of those unpacked are to be
/// unpacked again, since what was replaced may have come after them.
///
/// # Errors
/// Two packages have the same path and neither replaces the other, or the database cannot be read or written.
pub(crate) fn settle(
    target: &Target,
    tree: &Tree,
    there: &BTreeMap<String, Control>,
    unpacked: &mut [(&Package, Unpacked)],
) -> Result<BTreeSet<usize>, Error> {
    let mut owners: HashMap<String, usize> = HashMap::new();
    let (mut again, mut lost) = (BTreeSet::new(), Vec::new());
    for (index, (package, what)) in unpacked.iter().enumerate() {
        for path in &what.files {
            let place = target.place(path, package.name());
            let Some(&other) = owners.get(place) else {
                owners.insert(place.to_owned(), index);
                continue;
            };
            let others = unpacked[other].0;
            let (winner, loser) = if replaces(&package.control, &others.control) {
                owners.insert(place.to_owned(), index);
                (index, other)
            } else if replaces(&others.control, &package.control) {
                (other, index)
            } else if other == index || others.name() == package.name() {
                continue;
            } else {
                return Err(clash(path, &package.control, &others.control));
            };
            again.insert(winner);
            lost.push((loser, path.clone()));
        }
    }
    for (loser, path) in lost {
        let (paths, files) = (&mut unpacked[loser].1.paths, &path);
        paths.retain(|one| one != files);
    }
    for (name, control) in there {
        let mut paths = database::paths(tree, name)?;
        let before = paths.len();
        let mut refused = Ok(());
        paths.retain(|path| {
            let place = target.place(path, control.value("Package"));
            let Some(&index) = owners.get(place) else { return true };
            let package = &unpacked[index].0.control;
            if tree.is_dir(place).unwrap_or(false) || package.value("Package") == control.value("Package") {
                return true;
            }
            if !replaces(package, control) {
                refused = Err(clash(path, package, control));
            }
            false
        });
        refused?;
        if paths.len() < before {
            database::write_paths(tree, name, &paths)?;
        }
    }
    Ok(again)
}

fn replaces(package: &Control, other: &Control) -> bool {
    package.relations("Replaces").concat().contains(&other.value("Package"))
}

fn clash(path: &str, one: &Control, other: &Control) -> Error {
    let (one, other) = (one.value("Package"), other.value("Package"));
    Error::failed(format!(
        "the packages {one} and {other} both have {path}, and neither says that it replaces the other"
    ))
}
