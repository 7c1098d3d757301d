//! No files of different directories import each other in a circle. A file and the directory of its name are one place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::layering::{ALLOWED, sources};

/// A module by its path in the crate: `["store", "lease"]`.
type Module = Vec<String>;

#[test]
fn files_of_different_directories_do_not_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, _) in ALLOWED {
        let files = modules(&root.join(name).join("src"));
        let imports: BTreeMap<&Module, BTreeSet<&Module>> =
            files.iter().map(|(module, text)| (module, imports(module, text, &files))).collect();
        let all: BTreeMap<&Module, BTreeSet<&Module>> =
            imports.keys().map(|module| (*module, reachable(module, &imports))).collect();
        for (module, reached) in &all {
            let circle: Vec<_> = reached.iter().filter(|other| all[**other].contains(*module)).collect();
            let places: BTreeSet<_> = circle.iter().map(|module| place(module, &files)).collect();
            assert!(places.len() < 2, "{name}: these import each other in a circle: {circle:?}");
        }
    }
}

/// Returns the modules of a crate that are no tests, with their text.
fn modules(source: &Path) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    for path in sources(source) {
        let path_of_module = path.strip_prefix(source).expect("it is below").with_extension("");
        let mut module: Module = path_of_module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.iter().any(|part| ["tests", "testing", "fuzz", "fake"].contains(&part.as_str())) {
            continue;
        }
        module.pop_if(|name| ["lib", "main"].contains(&name.as_str()));
        found.insert(module, std::fs::read_to_string(path).expect("a source"));
    }
    assert!(!found.is_empty(), "{} has modules", source.display());
    found
}

/// Returns the modules whose items a module names by `crate::` or `super::`, outside of its tests.
fn imports<'f>(module: &Module, text: &str, files: &'f BTreeMap<Module, String>) -> BTreeSet<&'f Module> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == ':') {
                continue;
            }
            for path in paths(&code[at..]) {
                found.extend(file_of(module, &path, files).filter(|file| *file != module));
            }
        }
    }
    found
}

/// Returns the paths that a text begins with: one, or several if it is a tree of imports.
fn paths(text: &str) -> Vec<Vec<String>> {
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_' && char != ':').unwrap_or(text.len());
    let path: Vec<String> = text[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let Some(tree) = text[end..].strip_prefix('{').filter(|_| text[..end].ends_with("::")) else { return vec![path] };
    let mut found = Vec::new();
    let (mut depth, mut begun) = (0, true);
    for (at, char) in tree.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begun = true,
            char if begun && !char.is_whitespace() => {
                begun = false;
                found.extend(paths(&tree[at..]).into_iter().map(|rest| [path.clone(), rest].concat()));
            }
            _ => {}
        }
    }
    found
}

/// Returns the file that a path from a module leads into.
fn file_of<'f>(module: &Module, path: &[String], files: &'f BTreeMap<Module, String>) -> Option<&'f Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let mut whole: Module = if supers > 0 { module[..module.len().checked_sub(supers)?].to_vec() } else { Vec::new() };
    whole.extend(path[supers.max(1)..].iter().cloned());
    (0..=whole.len()).rev().find_map(|length| files.get_key_value(&whole[..length].to_vec())).map(|(file, _)| file)
}

/// Returns all that a module imports, and what that imports; itself only if it is in a circle.
fn reachable<'f>(module: &'f Module, imports: &BTreeMap<&'f Module, BTreeSet<&'f Module>>) -> BTreeSet<&'f Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = imports[module].iter().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(&imports[next]);
        }
    }
    reached
}

/// Returns the directory of a module; that of its own name if there is one.
fn place(module: &Module, files: &BTreeMap<Module, String>) -> Module {
    let is_directory = files.keys().any(|other| other.len() > module.len() && other.starts_with(module));
    if is_directory || module.is_empty() { module.clone() } else { module[..module.len() - 1].to_vec() }
}

#[test]
fn trees_of_imports_are_read() {
    let read = |text: &str| paths(text).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(read("crate::a::b;"), ["crate::a::b"]);
    assert_eq!(
        read("crate::a::{b, c::{d, e}, self};"),
        ["crate::a::b", "crate::a::c::d", "crate::a::c::e", "crate::a::self"]
    );
    let files: BTreeMap<Module, String> =
        [("a", "use crate::b::c::x;"), ("b", ""), ("b/c", "super::super::a::y()"), ("d", "mod e; use super::a;")]
            .map(|(path, text)| (path.split('/').map(str::to_owned).collect(), text.to_owned()))
            .into();
    let of = |path: &str| {
        let module: Module = path.split('/').map(str::to_owned).collect();
        imports(&module, &files[&module], &files).into_iter().map(|file| file.join("/")).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("a"), of("b"), of("b/c"), of("d")),
        (vec!["b/c".into()], vec![], vec!["a".into()], vec!["a".to_owned()])
    );
}
