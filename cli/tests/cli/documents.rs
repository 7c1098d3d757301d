//! The commands and files that the documents name are there.

use std::path::Path;

use crate::harness::osbc;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(path).expect("the document is there")
}

#[test]
fn every_command_that_the_readme_shows_exists() {
    let readme = document("README.md");
    let mut seen = 0;
    for line in readme.lines() {
        let Some(rest) = line.strip_prefix("| `osbc ") else { continue };
        let Some(command) = rest.split([' ', '`']).next().filter(|word| !word.is_empty()) else { continue };
        osbc().args([command, "--help"]).assert().success();
        seen += 1;
    }
    assert!(seen >= 7, "the README shows the commands");
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let text = document("ARCHITECTURE.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let paths = text.split('`').skip(1).step_by(2).filter(|code| {
        code.contains('/') && (code.ends_with(".rs") || code.ends_with('/')) && !code.contains(['<', '*', ' ', '{'])
    });
    let mut seen = 0;
    for path in paths {
        assert!(root.join(path).exists(), "ARCHITECTURE.md names `{path}`, which is not there");
        seen += 1;
    }
    assert!(seen >= 10, "ARCHITECTURE.md is a map of the code");
}
