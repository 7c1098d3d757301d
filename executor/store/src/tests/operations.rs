//! What single operations do in a stage's tree whose files lie in a lower layer, each compared with a plain directory.
//!
//! The table in `docs/store.md` has the same rows.

mod page;
mod rows;

use super::file_systems::{self, Place};
use super::*;

/// What a row says of trees that are layers. Those that are not are as in a directory always.
#[derive(Debug, Clone, Copy)]
pub(super) enum As {
    /// They return the same.
    Directory,
    /// The kernel has it another way, which is this one.
    Otherwise(&'static str),
}

/// An operation: its name, what trees of layers make of it, and what it does to the tree at a path.
pub(super) type Row = (&'static str, As, fn(&Path) -> String);

/// What all rows find in the tree.
fn fill(root: &Path) {
    fs::write(root.join("file"), "0123456789".repeat(2000)).expect("writes");
    fs::write(root.join("one"), "linked").expect("writes");
    fs::hard_link(root.join("one"), root.join("other")).expect("links");
    fs::create_dir_all(root.join("d/e")).expect("makes");
    for index in 0..200 {
        fs::write(root.join(format!("d/{index}")), "x").expect("writes");
    }
    fs::write(root.join("d/e/f"), "deep").expect("writes");
    fs::create_dir_all(long_directory(root)).expect("makes");
}

/// A directory with a path of more bytes than overlayfs notes.
fn long_directory(root: &Path) -> PathBuf {
    [root].into_iter().chain([Path::new(&"long".repeat(20)); 4]).collect()
}

/// What a row says in a plain directory, by the rows' order.
fn in_directory(place: &Place) -> Vec<String> {
    let say = |(_, _, run): &Row| {
        let directory = tempfile::tempdir_in(&place.path).expect("makes");
        fill(directory.path());
        run(directory.path())
    };
    rows::ROWS.iter().map(say).collect()
}

#[test]
fn root_operations_on_files_of_a_lower_layer_are_as_in_a_directory() {
    if !osbc_fixtures::has_root() {
        return;
    }
    for file_system in file_systems::ALL {
        let Some(place) = file_system.mount() else { return };
        let expected = in_directory(&place);
        let mut wrong = Vec::new();
        for layers in file_system.ways() {
            let store = open(&place.path.join(format!("{layers:?}")), *layers);
            let (sketch, ids) = long_chain(2);
            let transaction = sketch.begin(&store);
            build(&transaction, None, ids[0], fill);
            for ((name, says, run), expected) in rows::ROWS.iter().zip(&expected) {
                let work = transaction.work(Some(ids[0])).expect("a tree begins");
                let is_layered = !work.lowers.is_empty();
                let got = with_tree(&work.stack().expect("a tree"), run);
                let (should, is_other) = match says {
                    As::Otherwise(otherwise) if is_layered => (*otherwise, true),
                    _ => (expected.as_str(), false),
                };
                if got != should || is_other && got == *expected {
                    wrong.push(format!("{name}: {layers:?} on {file_system:?}: {got}, in a directory {expected}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn the_documents_have_every_row() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/store.md");
    let text = fs::read_to_string(path).expect("reads");
    for (name, says, _) in rows::ROWS {
        let what = if matches!(says, As::Directory) { "as in a directory" } else { "" };
        assert!(text.lines().any(|line| line.starts_with(&format!("| {name} | {what}"))), "{name}");
    }
}
