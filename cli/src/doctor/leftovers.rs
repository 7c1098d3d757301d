//! Finds loop and device-mapper devices that dead builds left.
//!
//! These are devices whose file is, or was, in the `work/` of a store or in the stores of a check beside it. osbc opens
//! loop devices so that they end with their last user, but LVM or LUKS on one can still hold it, and an on-disk module
//! can have made a persistent one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use osbc_module_api::loopdev;
use osbc_store::fs::temporary;
use osbc_store::is_owned;
use serde::Serialize;

/// What the kernel puts behind the path of a file that is no more.
const DELETED: &str = " (deleted)";

/// A device that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOver {
    /// Its name, e.g. `loop3` or `dm-0`.
    pub(crate) device: String,
    /// The file that it is, or lies on.
    pub(crate) file: String,
    /// What dm calls it.
    pub(crate) mapping: Option<String>,
}

/// Those of a store, in the order in which they can be removed: what lies on others first.
pub(crate) fn find(store: &Path) -> Vec<LeftOver> {
    let given = |name: &str| loopdev::given_name(&File::open(Path::new("/dev").join(name)).ok()?).ok();
    find_in(Path::new("/sys/block"), store, given, is_owned)
}

fn find_in(
    block: &Path,
    store: &Path,
    given: impl Fn(&str) -> Option<PathBuf>,
    is_owned: impl Fn(&Path) -> bool,
) -> Vec<LeftOver> {
    let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let names: Vec<String> = fs::read_dir(block)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let text = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim_end_matches('\n').to_owned()).ok();
    let mut loops = Vec::new();
    for name in &names {
        let Some(file) = text(block.join(name).join("loop/backing_file")) else { continue };
        // The kernel's path is within a mount that may be gone; the device has the path that it was opened by, while
        // the file was visible.
        let seen = PathBuf::from(file.strip_suffix(DELETED).unwrap_or(&file));
        let given = given(name).filter(|given| !given.as_os_str().is_empty());
        if let Some(path) = [Some(seen), given].into_iter().flatten().find(|path| is_left(path, &store, &is_owned)) {
            let file = if file.starts_with(&*path.to_string_lossy()) { file } else { path.display().to_string() };
            loops.push(LeftOver { device: name.clone(), file, mapping: None });
        }
    }
    // A mapping may lie on another; one more round finds what the one before made known.
    let mut found = loops;
    let mut known = 0;
    while known < found.len() {
        known = found.len();
        for name in names.iter().filter(|name| name.starts_with("dm-")) {
            let slaves = fs::read_dir(block.join(name).join("slaves")).into_iter().flatten().flatten();
            let slaves: Vec<String> = slaves.map(|slave| slave.file_name().to_string_lossy().into_owned()).collect();
            // A partition is named after its device.
            let lies_on = |under: &&LeftOver| {
                slaves.iter().any(|slave| {
                    slave.strip_prefix(&under.device).is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
                })
            };
            if found.iter().any(|other| other.device == *name) {
                continue;
            }
            if let Some(file) = found.iter().find(lies_on).map(|under| under.file.clone()) {
                let mapping = text(block.join(name).join("dm/name"));
                found.insert(0, LeftOver { device: name.clone(), file, mapping });
            }
        }
    }
    found
}

/// Whether a file lies where a build worked that is dead by now. The end of its path may be cut off.
fn is_left(file: &Path, store: &Path, is_owned: &impl Fn(&Path) -> bool) -> bool {
    let places = [(store.join("work"), ""), (store.parent().unwrap_or(store).to_owned(), temporary::CHECK)];
    places.iter().any(|(place, prefix)| {
        let Ok(inside) = file.strip_prefix(place) else { return false };
        let mut components = inside.components().map(|component| component.as_os_str().to_string_lossy());
        let Some(owner) = components.next().filter(|owner| owner.starts_with(prefix)) else { return false };
        if components.next().is_some() {
            return !is_owned(&place.join(&*owner));
        }
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let mut alive = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*owner));
        !alive.any(|entry| is_owned(&entry.path()))
    })
}

/// Removes one.
///
/// # Errors
/// Somebody still uses it, or a tool that is needed is not here.
pub(crate) fn remove(left: &LeftOver) -> io::Result<()> {
    let (program, arguments): (&str, Vec<String>) = match &left.mapping {
        Some(mapping) => ("dmsetup", vec!["remove".to_owned(), mapping.clone()]),
        None => ("losetup", vec!["--detach".to_owned(), format!("/dev/{}", left.device)]),
    };
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_on_files_of_dead_builds_are_found_what_lies_on_them_first() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (block, store) = (directory.path().join("block"), directory.path().join("store"));
        fs::create_dir_all(store.join("work")).expect("makes");
        let store = store.canonicalize().expect("is there");
        let work = store.join("work").display().to_string();
        let put = |path: &str, text: &str| {
            let path = block.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("makes");
            fs::write(path, text).expect("writes");
        };
        put("loop0/loop/backing_file", &format!("{work}/dead/0/tree/disk.raw{DELETED}\n"));
        put("loop1/loop/backing_file", &format!("{work}/alive/0/tree/disk.raw\n"));
        put("loop2/loop/backing_file", "/somewhere/else.raw\n");
        put("loop3/loop/backing_file", &format!("/disk.raw{DELETED}\n"));
        put("loop4/loop/backing_file", "/disk.raw\n");
        put("loop6/loop/backing_file", "/disk.raw\n");
        fs::create_dir(store.join("work/alive")).expect("makes");
        let check = store.parent().expect("a place").join(format!("{}abc123", temporary::CHECK));
        put("loop5/loop/backing_file", &format!("{}/1/work/x/disk.raw\n", check.display()));
        put("dm-0/dm/name", "crypt\n");
        put("dm-0/slaves/dm-1", "");
        put("dm-1/dm/name", "vg-root\n");
        put("dm-1/slaves/loop0p2", "");
        put("dm-2/slaves/loop1p1", "");
        put("dm-3/slaves/loop00", "");
        put("sda/size", "1\n");
        let given = |name: &str| match name {
            "loop3" => Some(format!("{work}/dead/0/scra").into()),
            "loop4" => Some(format!("{work}/alive/0/scra").into()),
            // Cut off within the owner's name.
            "loop6" => Some(format!("{work}/ali").into()),
            _ => None,
        };
        let found = find_in(&block, &store, given, |lease| lease.ends_with("alive"));
        let mut names: Vec<_> = found.iter().map(|left| (left.device.as_str(), left.mapping.as_deref())).collect();
        names[2..].sort_unstable();
        let loops = [("loop0", None), ("loop3", None), ("loop5", None)];
        assert_eq!(names[..2], [("dm-0", Some("crypt")), ("dm-1", Some("vg-root"))]);
        assert_eq!(names[2..], loops);
        let elsewhere = directory.path().join("elsewhere/no-store");
        assert!(find_in(&block, &elsewhere, |_| None, |_| false).is_empty());
    }
}
