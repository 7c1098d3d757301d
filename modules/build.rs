//! Lists `src/<kind>/*.rs` into the registry: one `#[path]` module and one table row per file, the file's header as its
//! documentation.
//!
//! Adding a module touches no list.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const DIRECTORIES: [&str; 6] = ["sources", "inputs", "devices", "mounts", "stages", "assemblers"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut modules = String::new();
    let mut rows = String::new();
    for directory in DIRECTORIES {
        let path = root.join("src").join(directory);
        println!("cargo::rerun-if-changed={}", path.display());
        let Ok(entries) = fs::read_dir(&path) else { continue };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
        files.sort();
        for file in files {
            match header(&file) {
                Ok(doc) => add(&mut modules, &mut rows, directory, &file, &doc),
                Err(reason) => println!("cargo::error={}: {reason}", file.display()),
            }
        }
    }
    let text = format!(
        "{modules}\n/// Every built-in module with its documentation.\npub static MODULES: &[Registered] = &[\n{rows}];\n"
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("registry.rs");
    fs::write(out, text).expect("the build directory is writable");
}

/// The `//!` lines at the top of a module's file, without their markers.
fn header(file: &Path) -> Result<String, &'static str> {
    let text = fs::read_to_string(file).map_err(|_| "is not readable UTF-8")?;
    let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    if lines.is_empty() {
        return Err("starts with no `//!` header; it is the module's documentation");
    }
    if !text.contains("static MODULE: ModuleDef") {
        return Err("declares no `pub(crate) static MODULE: ModuleDef`");
    }
    Ok(lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n"))
}

fn add(modules: &mut String, rows: &mut String, directory: &str, file: &Path, doc: &str) {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{directory}_{stem}");
    writeln!(modules, "#[path = {:?}]\nmod {name};", file.display().to_string()).expect("a string grows");
    let file = format!("{directory}/{stem}.rs");
    writeln!(rows, "    Registered {{ def: &{name}::MODULE, file: {file:?}, doc: {doc:?} }},").expect("a string grows");
}
