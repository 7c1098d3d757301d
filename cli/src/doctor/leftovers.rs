//! Loop and device-mapper devices whose file lies, or lay, in the `work/` of a store and whose owner is dead. osbc opens
//! loop devices so that they go with their last user; what a stage had set up on one (LVM, LUKS) can still hold it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use osbc_executor::store::is_owned;
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
    find_in(Path::new("/sys/block"), store, is_owned)
}

fn find_in(block: &Path, store: &Path, is_owned: impl Fn(&Path) -> bool) -> Vec<LeftOver> {
    let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let work = store.join("work");
    let names: Vec<String> = fs::read_dir(block)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let text = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim_end_matches('\n').to_owned()).ok();
    let mut loops = Vec::new();
    for name in &names {
        let Some(file) = text(block.join(name).join("loop/backing_file")) else { continue };
        let path = Path::new(file.strip_suffix(DELETED).unwrap_or(&file));
        let Ok(inside) = path.strip_prefix(&work) else { continue };
        let lease = inside.components().next().map(|lease| work.join(lease));
        if lease.is_some_and(|lease| !is_owned(&lease)) {
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (block, store) = (folder.path().join("block"), folder.path().join("store"));
        fs::create_dir_all(store.join("work")).expect("makes");
        let store = store.canonicalize().expect("is there");
        let work = store.join("work").display().to_string();
        let put = |path: &str, text: &str| {
            let path = block.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
            fs::write(path, text).expect("writes");
        };
        put("loop0/loop/backing_file", &format!("{work}/dead/0/tree/disk.raw{DELETED}\n"));
        put("loop1/loop/backing_file", &format!("{work}/alive/0/tree/disk.raw\n"));
        put("loop2/loop/backing_file", "/somewhere/else.raw\n");
        put("dm-0/dm/name", "crypt\n");
        put("dm-0/slaves/dm-1", "");
        put("dm-1/dm/name", "vg-root\n");
        put("dm-1/slaves/loop0p2", "");
        put("dm-2/slaves/loop1p1", "");
        put("dm-3/slaves/loop00", "");
        put("sda/size", "1\n");
        let found = find_in(&block, &store, |lease| lease.ends_with("alive"));
        let names: Vec<_> = found.iter().map(|left| (left.device.as_str(), left.mapping.as_deref())).collect();
        assert_eq!(names, [("dm-0", Some("crypt")), ("dm-1", Some("vg-root")), ("loop0", None)]);
        assert!(find_in(&block, &folder.path().join("no-store"), |_| false).is_empty());
    }
}
