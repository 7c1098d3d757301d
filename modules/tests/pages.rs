//! The pages below `docs/modules/`: one a module and an index, made from the same descriptions as `osbc modules NAME`
//! prints.
//!
//! The test fails where a committed page is not what would be made today; `UPDATE_PAGES=1 cargo test -p osbc-modules
//! --test pages` makes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use osbc_module_api::{Kind, Library, Map, Module, Revision, Value};
use osbc_modules::builtin::BuiltIn;

const REGENERATE: &str = "UPDATE_PAGES=1 cargo test -p osbc-modules --test pages";

#[test]
fn pages_are_up_to_date() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/modules");
    let (wanted, found) = (pages(), written(&directory));
    let differ = |path: &&PathBuf| wanted.get(*path) != found.get(*path);
    let all: BTreeSet<&PathBuf> = wanted.keys().chain(found.keys()).collect();
    let stale: Vec<&PathBuf> = all.into_iter().filter(differ).collect();
    if env::var_os("UPDATE_PAGES").is_some() {
        stale.iter().for_each(|path| update(&directory.join(path), wanted.get(*path)));
    } else {
        assert!(stale.is_empty(), "stale below docs/modules: {stale:?}\nmake them anew: {REGENERATE}");
    }
}

/// What lies below the directory of pages.
fn written(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(path) = rest.pop() {
        let Ok(entries) = fs::read_dir(&path) else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.insert(path.strip_prefix(directory).expect("walked from there").to_owned(), text);
            continue;
        };
        rest.extend(entries.map(|entry| entry.expect("a readable directory").path()));
    }
    found.remove(Path::new(""));
    found
}

fn update(path: &Path, text: Option<&String>) {
    match text {
        Some(text) => {
            fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("the directory can be made");
            fs::write(path, text).expect("the page can be written");
        }
        None => fs::remove_file(path).expect("the page can be removed"),
    }
}

/// Every page by its place below the directory.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let mut index = format!("# Modules\n\nMade from the modules themselves by `{REGENERATE}`.\n");
    for kind in Kind::ALL {
        let names = BuiltIn.names(kind).expect("built in");
        let modules = names.iter().filter_map(|name| BuiltIn.module(kind, name).expect("built in"));
        let mut rows = String::new();
        for module in modules {
            let path = format!("{}/{}.md", kind.directory(), module.name);
            writeln!(rows, "| [{}]({path}) | {} |", module.name, cell(&module.summary)).expect("a string grows");
            pages.insert(PathBuf::from(path), page(&module));
        }
        if !rows.is_empty() {
            let title = kind.directory();
            let title = title[..1].to_uppercase() + &title[1..];
            write!(index, "\n## {title}\n\n| Name | Summary |\n|---|---|\n{rows}").expect("a string grows");
        }
    }
    pages.insert("README.md".into(), index);
    pages
}

fn page(module: &Module) -> String {
    let mut text = format!("# {}\n\n{}\n", module.name, module.summary);
    let mut add = |paragraph: &str| write!(text, "\n{}\n", paragraph.trim_end()).expect("a string grows");
    add(&module.description);
    let rows: Vec<String> = Table::of(module).rows.iter().map(Row::line).collect();
    if !rows.is_empty() {
        add("## What it takes");
        add(&format!("| Key | Type | Required | Meaning |\n|---|---|---|---|\n{}", rows.join("\n")));
    }
    add("## Facts");
    let Revision::BuiltIn(revision) = module.revision else { panic!("{} is not built in", module.name) };
    let versions = match (&module.schema, &module.schema_2, module.kind) {
        (None, _, Kind::Stage | Kind::Assembler) => "2; version 1 does not check its options",
        (None, _, _) => "2",
        _ => "1 and 2",
    };
    let mut facts = format!("- Kind: {}\n- Manifest versions: {versions}\n- Revision: {revision}\n", module.kind);
    if !module.capabilities.is_empty() {
        writeln!(facts, "- Capabilities: {}", module.capabilities.join(", ")).expect("a string grows");
    }
    add(&facts);
    text
}

/// The rows of a table of all keys that a module takes.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    /// How many of the schema's alternatives are around what is being read.
    forms: usize,
}

struct Row {
    path: String,
    kinds: Vec<String>,
    required: bool,
    meaning: String,
    /// Whether it is of one form of its object among several.
    of_a_form: bool,
}

impl Table {
    fn of(module: &Module) -> Self {
        let mut table = Self::default();
        let none = Map::new();
        let schema = |schema: &Option<Value>| schema.as_ref().and_then(Value::as_object).cloned();
        match module.kind {
            Kind::Stage | Kind::Assembler => {
                let properties = schema(&module.schema_2).unwrap_or_else(|| {
                    schema(&module.schema).into_iter().map(|options| ("options".to_owned(), options.into())).collect()
                });
                table.properties("", &properties.into(), &[]);
            }
            Kind::Device => table.inside("options", schema(&module.schema).as_ref().unwrap_or(&none)),
            _ => {
                let whole = schema(&module.schema_2).or_else(|| schema(&module.schema)).unwrap_or(none);
                table.inside("", &whole);
            }
        }
        table
    }

    /// The keys of an object or of the objects of a list, whichever form they have.
    fn inside(&mut self, path: &str, schema: &Map<String, Value>) {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(properties) = schema.get("properties") {
            self.properties(path, properties, &required);
        }
        for (pattern, value) in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            self.row(&join(path, &format!("<{pattern}>")), value, false);
        }
        if let Some(value @ Value::Object(_)) = schema.get("additionalProperties") {
            self.row(&join(path, "<name>"), value, false);
        }
        if let Some(Value::Object(items)) = schema.get("items") {
            self.inside(&format!("{path}[]"), items);
        }
        self.forms += 1;
        for forms in ["oneOf", "anyOf", "allOf"] {
            for form in schema.get(forms).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
                self.inside(path, form);
            }
        }
        self.forms -= 1;
    }

    fn properties(&mut self, path: &str, properties: &Value, required: &[&str]) {
        for (key, value) in properties.as_object().into_iter().flatten() {
            // Said by the page's title.
            if !(path.is_empty() && key == "type") {
                self.row(&join(path, key), value, required.contains(&key.as_str()));
            }
        }
    }

    fn row(&mut self, path: &str, value: &Value, required: bool) {
        let none = Map::new();
        let schema = value.as_object().unwrap_or(&none);
        let mut meaning = schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        if let Some(default) = schema.get("default") {
            write!(meaning, " Default: `{default}`.").expect("a string grows");
        }
        let kind = kind(schema);
        match self.rows.iter_mut().find(|row| row.path == path) {
            Some(row) if row.of_a_form => {
                row.required &= required;
                if !row.kinds.contains(&kind) {
                    row.kinds.push(kind);
                }
            }
            Some(_) => {}
            None => {
                let (path, kinds, meaning) = (path.to_owned(), vec![kind], meaning.trim().to_owned());
                self.rows.push(Row { path, kinds, required, meaning, of_a_form: self.forms > 0 });
            }
        }
        self.inside(path, schema);
    }
}

impl Row {
    fn line(&self) -> String {
        let required = if self.required { "yes" } else { "" };
        let cells = [format!("`{}`", self.path), self.kinds.join(" or "), required.to_owned(), self.meaning.clone()];
        format!("| {} |", cells.map(|text| cell(&text)).join(" | "))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What a value may be, in words.
fn kind(schema: &Map<String, Value>) -> String {
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    let mut words = match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => ["oneOf", "anyOf"]
            .iter()
            .filter_map(|forms| schema.get(*forms)?.as_array())
            .flatten()
            .filter_map(Value::as_object)
            .map(kind)
            .filter(|words| !words.is_empty())
            .fold(Vec::new(), |mut all, words| {
                if !all.contains(&words) {
                    all.push(words);
                }
                all
            })
            .join(" or "),
    };
    if let Some(items) = schema.get("items").and_then(Value::as_object) {
        let items = kind(items);
        if !items.is_empty() {
            write!(words, " of {items}").expect("a string grows");
        }
    }
    for (key, name) in [
        ("minimum", "from"),
        ("maximum", "to"),
        ("minLength", "at least this long:"),
        ("maxLength", "at most this long:"),
        ("minItems", "at least this many:"),
        ("maxItems", "at most this many:"),
        ("minProperties", "at least this many keys:"),
        ("pattern", "matching"),
    ] {
        match schema.get(key) {
            Some(Value::String(pattern)) => write!(words, ", {name} `{pattern}`").expect("a string grows"),
            Some(value) => write!(words, ", {name} {value}").expect("a string grows"),
            None => {}
        }
    }
    words
}

/// Text that fits a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
