//! The crates use each other only as `ARCHITECTURE.md` allows.

use std::path::Path;

/// Each crate of ours with the crates of ours that it may use outside tests.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("pytext", &[]),
    ("ir", &[]),
    ("modules/api", &["osbc-ir"]),
    ("modules", &["osbc-ir", "osbc-module-api", "osbc-pytext"]),
    ("compiler", &["osbc-ir", "osbc-module-api", "osbc-pytext"]),
    ("executor", &["osbc-ir", "osbc-module-api"]),
    ("cli", &["osbc-ir", "osbc-pytext", "osbc-module-api", "osbc-modules", "osbc-compiler", "osbc-executor"]),
];

#[test]
fn every_edge_between_crates_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (folder, allowed) in ALLOWED {
        let text = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).expect("the crate is there");
        let dependencies = text
            .lines()
            .skip_while(|line| *line != "[dependencies]")
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("osbc"));
        for dependency in dependencies {
            assert!(allowed.contains(&dependency), "{folder} must not depend on {dependency}");
        }
    }
}
