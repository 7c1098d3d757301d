use std::path::Path;

use osbc_ir::{Export, PipelineIndex};

use super::*;

#[test]
fn a_directory_of_modules_must_be_there() {
    let error = directory(Path::new("/no/such/directory"), Vec::new()).expect_err("it is not there");
    assert!(matches!(&error, Error::NoModuleDirectory(path) if path == Path::new("/no/such/directory")), "{error}");
}

#[test]
fn exports_get_directories_of_their_names_in_the_output_and_nowhere_else() {
    let place = tempfile::tempdir().expect("a directory");
    let export = |name: &str| Export { name: name.to_owned(), pipeline: PipelineIndex(0), node: None };
    check_output(&[export("tree")], place.path()).expect("it can be written to");
    for name in ["../tree", "/tree", "a/tree", "..", ""] {
        let error = check_output(&[export(name)], place.path()).expect_err("no directory's name");
        assert!(matches!(&error, Error::ExportName { name: found, .. } if found == name), "{error}");
    }
    std::fs::write(place.path().join("tree"), "").expect("a file");
    let error = check_output(&[export("tree")], place.path()).expect_err("a file is in the way");
    assert!(matches!(error, Error::Export(_)), "{error}");
}

#[test]
fn no_arguments_of_a_user_are_those_of_a_child() {
    for arguments in [&["osbc"][..], &["osbc", "build"], &["/usr/bin/osbuild", "manifest.json"], &[]] {
        assert!(child_main(arguments.iter().map(Into::into)).is_none(), "{arguments:?}");
    }
}
