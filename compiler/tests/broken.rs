//! Every broken manifest of `fixtures/manifests/broken/` and the diagnostics that it gets: NAME.json has to be refused,
//! and what is said about it is in NAME.txt.
//!
//! A new fixture starts without its expectation: run with `UPDATE_EXPECTATIONS=1`, read what was written, commit both.

use std::fs;
use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme};
use osbc_compiler::{Host, SourceText, compile};
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::trees::runners::{BUILT_IN, for_host};

/// What is said about a manifest.
fn diagnostics(path: &Path, catalog: &Catalog) -> String {
    let name = path.file_name().expect("a file").to_string_lossy();
    let text = match SourceText::from_bytes(name, fs::read(path).expect("readable")) {
        Ok(text) => text,
        Err(error) => return format!("{error}\n"),
    };
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    match compile(&text, catalog, Host::bare(&for_host("", BUILT_IN))) {
        Ok(_) => panic!("{} is accepted", path.display()),
        Err(report) => report.render(&handler, usize::MAX),
    }
}

#[test]
fn broken_manifests_are_reported_with_all_their_problems() {
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let catalog = Catalog::new(libraries);
    let directory = osbc_fixtures::manifest("broken");
    let mut manifests: Vec<_> = fs::read_dir(&directory)
        .expect("the fixtures")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    manifests.sort();
    assert!(manifests.len() >= 25, "only {} broken manifests", manifests.len());
    let mut wrong = Vec::new();
    for path in manifests {
        let expectation = path.with_extension("txt");
        // Trailing spaces are miette's layout and no part of what is said.
        let said: String = diagnostics(&path, &catalog).lines().map(|line| format!("{}\n", line.trim_end())).collect();
        if std::env::var_os("UPDATE_EXPECTATIONS").is_some() {
            fs::write(&expectation, &said).expect("writable fixtures");
        }
        match fs::read_to_string(&expectation) {
            Ok(expected) if expected == said => {}
            Ok(expected) => wrong.push(format!("{}: expected\n{expected}\nbut it says\n{said}", path.display())),
            Err(_) => wrong.push(format!("{} has no expectation; it says\n{said}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}
