//! The crates use each other only as `ARCHITECTURE.md` allows.

use std::path::{Path, PathBuf};

/// Each crate of ours with the crates of ours that it may use outside tests.
pub(crate) const ALLOWED: [(&str, &[&str]); 11] = [
    ("pytext", &[]),
    ("ir", &[]),
    ("modules/api", &["osbc-ir"]),
    ("modules", &["osbc-ir", "osbc-module-api", "osbc-pytext"]),
    ("compiler", &["osbc-ir", "osbc-module-api", "osbc-pytext"]),
    ("executor/store", &["osbc-ir", "osbc-module-api"]),
    ("executor/sandbox", &["osbc-ir", "osbc-module-api", "osbc-store"]),
    ("executor", &["osbc-ir", "osbc-module-api", "osbc-store", "osbc-sandbox"]),
    (
        "engine",
        &["osbc-ir", "osbc-module-api", "osbc-modules", "osbc-compiler", "osbc-store", "osbc-sandbox", "osbc-executor"],
    ),
    ("engine/debian", &["osbc-ir", "osbc-module-api", "osbc-modules", "osbc-store", "osbc-sandbox"]),
    (
        "cli",
        &[
            "osbc-ir",
            "osbc-pytext",
            "osbc-module-api",
            "osbc-modules",
            "osbc-compiler",
            "osbc-store",
            "osbc-sandbox",
            "osbc-executor",
            "osbc-engine",
            "osbc-debian",
        ],
    ),
];

#[test]
fn every_edge_between_crates_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (directory, allowed) in ALLOWED {
        let text = std::fs::read_to_string(root.join(directory).join("Cargo.toml")).expect("the crate is there");
        let dependencies = text
            .lines()
            .skip_while(|line| *line != "[dependencies]")
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("osbc"));
        for dependency in dependencies {
            assert!(allowed.contains(&dependency), "{directory} must not depend on {dependency}");
        }
    }
}

/// What the engine is handed and does not take: the environment, standard streams, globals.
#[test]
fn the_engine_reads_no_environment_and_prints_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine");
    let sources = [sources(&root.join("src")), sources(&root.join("debian/src"))].concat();
    assert!(sources.len() > 10, "{sources:?}");
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("a source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for forbidden in ["env::", "print!", "println!", "stdout()", "stderr()", "thread_local!"] {
                assert!(!line.contains(forbidden), "{}: {line}", path.display());
            }
            assert!(!line.trim_start().starts_with("static "), "{}: {line}", path.display());
        }
    }
}

/// The commands and the drop-in are two doors: neither knows the other.
#[test]
fn commands_and_the_drop_in_do_not_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (directory, other) in [("commands", "crate::dropin"), ("dropin", "crate::commands")] {
        for path in sources(&root.join(directory)) {
            let text = std::fs::read_to_string(&path).expect("a source");
            assert!(!text.contains(other), "{} uses {other}", path.display());
        }
    }
}

/// All sources of a directory, and the one beside it that it belongs to.
pub(crate) fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        Some(directory.with_extension("rs")).into_iter().filter(|file| file.is_file()).collect();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}
