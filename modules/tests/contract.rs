//! Checks what every module owes.
//!
//! That is its file's name, its documentation, the agreement of schema, examples and options type, and, for stages,
//! that no symbolic link in a tree leads their writes out of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use base64::prelude::*;
use osbc_module_api::{
    Entry, Error, Kind, Map, MappedInput, ModuleDef, Registered, Requirement, Schema, StageContext, StageMeta, Tree,
    Value, json,
};
use osbc_modules::builtin::MODULES;
use rayon::prelude::*;
use tempfile::TempDir;

/// Stages that cannot run in the test's process though they declare nothing that it does not have: they need other
/// inputs than files of inline sources, or files of a build root.
///
/// Each has tests of its own. Those whose examples all have devices need not be named: they write there.
const NEED_MORE: &[&str] = &[
    "org.osbc.grub-debian",
    "org.osbuild.copy",
    "org.osbuild.coreos.platform",
    "org.osbuild.dd",
    "org.osbuild.error",
    "org.osbuild.grub2.iso",
    "org.osbuild.grub2.iso.legacy",
    "org.osbuild.gunzip",
    "org.osbuild.gzip",
    "org.osbuild.isolinux",
    "org.osbuild.oci-archive",
    "org.osbuild.ostree.grub2",
    "org.osbuild.ostree.passwd",
    "org.osbuild.xz",
    "org.osbuild.zip",
    "org.osbuild.zstd",
];

/// Stages that declare a tool which they do not call on the bare tree.
const RUN_ANYWAY: &[&str] = &["org.osbuild.ovf"];

/// Returns whether a stage needs what the test's process does not have: tools in a sandbox, devices, programs of the
/// tree.
fn declares_more(def: &ModuleDef) -> bool {
    let is_more =
        |need: &Requirement| need.tool().is_some() || need.is_of_kernel() || matches!(need, Requirement::TreePrograms);
    def.requires.iter().any(is_more)
}

/// Runs a check on every module and reports all that fail it.
fn each(check: impl Fn(&Registered) -> Result<(), String>) {
    let faults: Vec<String> = MODULES
        .iter()
        .filter_map(|row| check(row).err().map(|fault| format!("{} ({}): {fault}", row.file, row.def.name)))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The examples of a module: the `json` blocks of its header.
fn examples(row: &Registered) -> Result<Vec<Map<String, Value>>, String> {
    let mut examples = Vec::new();
    for block in row.doc.split("```json\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        let value: Value = serde_json::from_str(text).map_err(|error| format!("example is no JSON: {error}"))?;
        let Value::Object(example) = value else { return Err("example is no object".to_owned()) };
        if example.get("type") != Some(&json!(row.def.name)) {
            return Err(format!("example has another `type` than `{}`", row.def.name));
        }
        examples.push(example);
    }
    if examples.is_empty() { Err("the header has no ```json example".to_owned()) } else { Ok(examples) }
}

/// What is checked in a manifest of a format version, put together from a module's schemas as osbuild does it.
fn composed(def: &ModuleDef, version: u8) -> Value {
    let Schema { schema, schema_2 } = (def.schema)();
    let mut whole = json!({"type": "object", "additionalProperties": false});
    let object = whole.as_object_mut().expect("written as one");
    let mut update = |own: Option<Value>| {
        let Some(Value::Object(own)) = own else { panic!("{} has no schema that is an object", def.name) };
        object.extend(own);
    };
    match def.kind {
        Kind::Stage | Kind::Assembler => {
            let key = if version == 2 { "type" } else { "name" };
            let own = if version == 2 { schema_2 } else { None };
            let mut properties = json!({"mounts": {"type": "array"}, "devices": {"type": "object"}});
            let all = properties.as_object_mut().expect("written as one");
            match own.or_else(|| schema.map(|options| json!({ "options": options }))) {
                Some(Value::Object(own)) => all.extend(own),
                _ => panic!("{} has no schema that is an object", def.name),
            }
            all.insert(key.to_owned(), json!({"enum": [def.name]}));
            update(Some(json!({"required": [key], "properties": properties})));
        }
        Kind::Device => {
            let options = schema_2.or(schema);
            update(Some(json!({
                "additionalProperties": true,
                "properties": {"type": {"enum": [def.name]}, "options": options},
            })));
        }
        Kind::Mount => {
            update(schema_2);
            object["properties"]["type"] = json!({"enum": [def.name]});
        }
        Kind::Input | Kind::Source => update(schema_2.or(schema)),
        Kind::Runner => panic!("{}: runners are not modules of the registry", def.name),
    }
    whole
}

fn validator(def: &ModuleDef, version: u8) -> Result<jsonschema::Validator, String> {
    jsonschema::draft4::meta::validate(&composed(def, version)).map_err(|error| format!("schema: {error}"))?;
    jsonschema::draft4::new(&composed(def, version)).map_err(|error| format!("schema: {error}"))
}

/// An example as the schema of that version sees it, and the options that the module gets to parse.
fn as_written(def: &ModuleDef, example: &Map<String, Value>, version: u8) -> (Value, Value) {
    let mut whole = example.clone();
    whole.remove("type");
    if def.kind == Kind::Source {
        return (Value::Object(whole.clone()), Value::Object(whole));
    }
    let options = example.get("options").cloned().unwrap_or_else(|| json!({}));
    if version == 1 {
        return (json!({"name": def.name, "options": options}), options);
    }
    whole.insert("type".to_owned(), json!(def.name));
    (Value::Object(whole), options)
}

#[test]
fn files_are_named_after_their_modules() {
    each(|row| {
        let directory = match row.def.kind {
            Kind::Source => "sources",
            Kind::Input => "inputs",
            Kind::Device => "devices",
            Kind::Mount => "mounts",
            Kind::Stage => "stages",
            Kind::Assembler => "assemblers",
            Kind::Runner => return Err("is a runner".to_owned()),
        };
        let stem = row.def.name.splitn(3, '.').nth(2).ok_or("the name has no two dots")?.replace(['.', '-'], "_");
        let file = format!("{directory}/{stem}.rs");
        if row.file == file { Ok(()) } else { Err(format!("the file is to be {file}")) }
    });
}

#[test]
fn names_are_used_once() {
    let mut names: Vec<_> = MODULES.iter().map(|row| (row.def.kind, row.def.name)).collect();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn kinds_have_entries_of_their_kind() {
    each(|row| {
        let fits = match row.def.entry {
            Entry::Stage(_) => matches!(row.def.kind, Kind::Stage | Kind::Assembler),
            Entry::Input(_) => row.def.kind == Kind::Input,
            Entry::Device(_) => row.def.kind == Kind::Device,
            Entry::Mount(_) => row.def.kind == Kind::Mount,
            Entry::Source(_) => row.def.kind == Kind::Source,
        };
        if fits { Ok(()) } else { Err("the entry is of another kind".to_owned()) }
    });
}

/// The names in calls like `cx.tool("tar")` in a text.
fn tools_called(text: &str) -> BTreeSet<&str> {
    let calls = ["cx.tool(\"", "Tool::find(\"", "Tool::of_host(\"", "Packing::Tool(\""];
    calls.iter().flat_map(|call| text.split(call).skip(1)).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn tools_that_a_module_calls_are_declared() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    each(|row| {
        let text = fs::read_to_string(sources.join(row.file)).map_err(|error| error.to_string())?;
        let declared: BTreeSet<&str> = row.def.requires.iter().filter_map(Requirement::tool).collect();
        let missing: Vec<_> = tools_called(&text).difference(&declared).copied().collect();
        let tree_programs = row.def.requires.iter().any(|need| matches!(need, Requirement::TreePrograms));
        let runs_some = ["Program::find(", "tools: Tools"].iter().any(|words| text.contains(words));
        match missing.as_slice() {
            [] if tree_programs == runs_some => Ok(()),
            [] => {
                Err(format!("`TreePrograms` is declared: {tree_programs}; programs of the tree are run: {runs_some}"))
            }
            _ => Err(format!("`requires` lacks {missing:?}")),
        }
    });
    // What modules share calls tools for one of them.
    let declared: BTreeSet<&str> =
        MODULES.iter().flat_map(|row| row.def.requires).filter_map(Requirement::tool).collect();
    let mut shared = String::new();
    for entry in fs::read_dir(&sources).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            shared += &fs::read_to_string(path).unwrap();
        }
    }
    let missing: Vec<_> = tools_called(&shared).difference(&declared).copied().collect();
    assert!(missing.is_empty(), "no module's `requires` has {missing:?}");
}

#[test]
fn requirements_are_found_in_all_options() {
    each(|row| {
        for example in examples(row)? {
            let (_, options) = as_written(row.def, &example, 2);
            for requirement in row.def.requires {
                // Whatever the answer, options of any shape have one.
                for options in [&options, &Value::Null] {
                    requirement.takes(options);
                    requirement.loop_devices(options);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn headers_begin_with_a_summary_line() {
    each(|row| {
        let mut lines = row.doc.lines();
        let summary = lines.next().unwrap_or_default();
        let starts_well = summary.chars().next().is_some_and(char::is_uppercase);
        if !starts_well || !summary.ends_with('.') {
            return Err(format!("the header's first line is to be a sentence: {summary:?}"));
        }
        match lines.next() {
            Some("") => Ok(()),
            _ => Err("an empty line is to follow the summary".to_owned()),
        }
    });
}

#[test]
fn examples_pass_the_schema_and_the_options_type() {
    each(|row| {
        let validator = validator(row.def, 2)?;
        for example in examples(row)? {
            let (whole, options) = as_written(row.def, &example, 2);
            validator.validate(&whole).map_err(|error| format!("the schema refuses an example: {error}"))?;
            (row.def.parse)(&options).map_err(|error| format!("the type refuses an example: {error}"))?;
        }
        Ok(())
    });
}

#[test]
fn examples_without_inputs_pass_the_schema_of_version_1() {
    each(|row| {
        if !matches!(row.def.kind, Kind::Stage | Kind::Assembler) || (row.def.schema)().schema.is_none() {
            return Ok(());
        }
        let validator = validator(row.def, 1)?;
        for example in examples(row)? {
            let (whole, _) = as_written(row.def, &example, 1);
            validator.validate(&whole).map_err(|error| format!("the schema refuses an example: {error}"))?;
        }
        Ok(())
    });
}

#[test]
fn rejects_are_refused_by_the_schema() {
    each(|row| {
        let validator = validator(row.def, 2)?;
        if row.def.rejects.is_empty() {
            return Err("`rejects` is empty".to_owned());
        }
        for text in row.def.rejects {
            let Ok(Value::Object(reject)) = serde_json::from_str(text) else {
                return Err(format!("not a JSON object: {text}"));
            };
            if validator.is_valid(&as_written(row.def, &reject, 2).0) {
                return Err(format!("the schema accepts {text}"));
            }
        }
        Ok(())
    });
}

/// Fills a tree with what most stages look for.
fn fill_bare(tree: &Tree) {
    for directory in [
        "boot/loader/entries",
        "etc/profile.d",
        "etc/security/limits.d",
        "etc/systemd/system/multi-user.target.wants",
        "etc/tuned",
        "home",
        "root",
        "tmp",
        "usr/bin",
        "usr/lib/sysctl.d",
        "usr/lib/systemd/system",
        "usr/lib/systemd/system-preset",
        "usr/lib/sysusers.d",
        "usr/lib/tmpfiles.d",
        "usr/lib/udev/rules.d",
        "usr/share/zoneinfo/Europe",
        "var/lib",
        "var/log",
    ] {
        tree.create_dir_all(directory, 0o755).unwrap();
    }
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/os-release", "ID=linux\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("boot/vmlinuz", "kernel"),
        ("etc/dnf/plugins/product-id.conf", "[main]\nenabled=1\n"),
        ("etc/rhsm/rhsm.conf", "[rhsm]\nmanage_repos = 1\n"),
        ("etc/security/pwquality.conf", "# minlen = 8\n"),
        ("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
        ("etc/ssh/sshd_config", "#PermitRootLogin prohibit-password\n"),
        ("etc/waagent.conf", "ResourceDisk.Format=y\n"),
        ("usr/lib/tuned/sap-hana/tuned.conf", "[main]\n"),
        ("usr/share/zoneinfo/Europe/Berlin", "TZif2"),
    ] {
        tree.create_dir_all(Path::new(path).parent().unwrap(), 0o755).unwrap();
        tree.write(path, text).unwrap();
    }
    tree.write("image.vmdk", [b"KDMV".as_slice(), &[0; 60]].concat()).unwrap();
}

/// All below a directory that a stage could change: what it is, who owns it, what it holds.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(path) = rest.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            format!("{} {:?}", metadata.len(), fs::read(&path).unwrap().get(..4096))
        };
        let facts = format!("{:o} {} {} {}", metadata.mode(), metadata.uid(), metadata.gid(), content);
        all.insert(path.strip_prefix(directory).unwrap().to_owned(), facts);
    }
    all
}

/// The times of a directory and the file in it that change with every change.
fn stamps(directory: &Path) -> Vec<(PathBuf, i64, i64)> {
    let paths = [directory.to_owned(), directory.join("canary")];
    let stamp = |path: &PathBuf| {
        let metadata = fs::symlink_metadata(path).unwrap();
        (path.clone(), metadata.ctime(), metadata.ctime_nsec())
    };
    paths.iter().map(stamp).collect()
}

/// Runs a stage with a link at `path` of its tree to a directory outside, or to a file in there.
fn lead_out(site: &Site, path: &Path) -> Result<(), String> {
    let outside = tempfile::tempdir_in(osbc_fixtures::scratch()).unwrap();
    fs::write(outside.path().join("canary"), "sings").unwrap();
    let up = PathBuf::from("../".repeat(24));
    for target in [outside.path().to_owned(), outside.path().join("canary")] {
        for target in [target.clone(), up.join(target.strip_prefix("/").unwrap())] {
            let before = (snapshot(outside.path()), stamps(outside.path()));
            let tree = site.tree();
            let handle = Tree::open(tree.path()).unwrap();
            handle.remove_dir_all(path).unwrap();
            handle.create_dir_all(path.parent().unwrap(), 0o755).unwrap();
            symlink(&target, tree.path().join(path)).unwrap();
            // It may fail or find its way inside the tree, as long as all is as it was outside.
            let _ = site.run(tree.path());
            if (snapshot(outside.path()), stamps(outside.path())) != before {
                return Err(format!("is led out of the tree by a link at {}", path.display()));
            }
        }
    }
    Ok(())
}

/// A stage and the tree that it is run on, which is made anew for each run.
struct Site {
    def: &'static ModuleDef,
    sources: Value,
    /// The stages that make the tree; none for the bare one.
    before: Vec<Value>,
    stage: Value,
}

impl Site {
    /// What a module's example or a case of `fixtures/modules` asks for; none if a stage has devices or mounts, an
    /// input of another kind than inline sources, or needs the sandbox.
    fn new(def: &'static ModuleDef, sources: Value, before: Vec<Value>, stage: Value) -> Option<Self> {
        let plain = |stage: &Value| {
            // Scripts of lorax find their templates where the sandbox has the tree.
            let script = stage["type"] == "org.osbuild.lorax-script";
            let inputs = stage["inputs"].as_object().into_iter().flat_map(Map::values);
            !script && stage.get("devices").is_none() && stage.get("mounts").is_none() && { inputs }
                .all(is_of_inline_source)
        };
        (before.iter().all(plain) && plain(&stage)).then_some(Self { def, sources, before, stage })
    }

    fn tree(&self) -> TempDir {
        let directory = tempfile::tempdir_in(osbc_fixtures::scratch()).unwrap();
        if self.before.is_empty() {
            fill_bare(&Tree::open(directory.path()).unwrap());
        }
        for stage in &self.before {
            let name = stage["type"].as_str().unwrap();
            let row = osbc_modules::builtin::find(Kind::Stage, name).unwrap_or_else(|| panic!("no stage {name}"));
            run(row.def, &self.sources, stage, directory.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        directory
    }

    fn run(&self, tree: &Path) -> Result<(), Error> {
        run(self.def, &self.sources, &self.stage, tree)
    }

    /// What the stage changes in its tree, and the directories above. Of many names in a directory a few stand for all.
    fn places(&self) -> Result<BTreeSet<PathBuf>, String> {
        let tree = self.tree();
        let before = snapshot(tree.path());
        self.run(tree.path()).map_err(|error| error.to_string())?;
        let after = snapshot(tree.path());
        let changed = after.iter().filter(|(path, facts)| before.get(*path) != Some(facts)).map(|(path, _)| path);
        let changed = changed.chain(before.keys().filter(|path| !after.contains_key(*path)));
        let places: BTreeSet<&Path> =
            changed.flat_map(|path| path.ancestors()).filter(|path| *path != Path::new("")).collect();
        let mut names: BTreeMap<Option<&Path>, usize> = BTreeMap::new();
        let few = places.into_iter().filter(|path| {
            let before = names.entry(path.parent()).or_default();
            *before += 1;
            *before <= 4
        });
        Ok(few.map(Path::to_owned).collect())
    }
}

fn is_of_inline_source(input: &Value) -> bool {
    input["type"] == "org.osbuild.files" && input["origin"] == "org.osbuild.source" && input["references"].is_array()
}

/// Runs a stage in the test's process, its inputs being items of inline sources.
fn run(def: &ModuleDef, sources: &Value, stage: &Value, tree: &Path) -> Result<(), Error> {
    let Entry::Stage(entry) = def.entry else { panic!("{} is no stage", def.name) };
    let directory = tempfile::tempdir_in(osbc_fixtures::scratch()).unwrap();
    let mut inputs = BTreeMap::new();
    for (name, input) in stage["inputs"].as_object().into_iter().flatten() {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        let mut files = Map::new();
        for id in input["references"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let item = &sources["org.osbuild.inline"]["items"][id]["data"];
            let item = item.as_str().unwrap_or_else(|| panic!("{}: {id} is no inline item", def.name));
            fs::write(path.join(id), BASE64_STANDARD.decode(item).unwrap()).unwrap();
            files.insert(id.to_owned(), json!({}));
        }
        inputs.insert(name.clone(), MappedInput { path, data: json!({ "files": files }) });
    }
    entry(&StageContext {
        tree: Tree::open(tree)?,
        options: stage.get("options").cloned().unwrap_or_else(|| json!({})),
        requires: def.requires,
        inputs,
        devices: BTreeMap::new(),
        mounts: BTreeMap::new(),
        meta: StageMeta { id: "0".repeat(64), source_epoch: Some(1_700_000_000) },
        metadata: RefCell::default(),
    })
}

/// The trees that a stage's cases below `fixtures/modules` run it on, without the cases that are to fail.
fn cases(def: &'static ModuleDef) -> Vec<Site> {
    let directory = osbc_fixtures::module_cases(def.name);
    let mut sites = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name.starts_with("error") {
            continue;
        }
        let case: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for pipeline in case["pipelines"].as_array().into_iter().flatten() {
            let stages = pipeline["stages"].as_array().cloned().unwrap_or_default();
            let Some(index) = stages.iter().position(|stage| stage["type"] == def.name) else { continue };
            let before = stages[..index].to_vec();
            sites.extend(Site::new(def, case["sources"].clone(), before, stages[index].clone()));
        }
    }
    sites
}

/// The stage's examples on the bare tree, and on the trees of its cases what these do: whatever a stage writes there it
/// must not write elsewhere because of a link.
///
/// An example that needs more than the bare tree has is left to the cases.
#[test]
fn no_link_in_a_tree_leads_a_stage_out_of_it() {
    let stages: Vec<&Registered> = MODULES.iter().filter(|row| row.def.kind == Kind::Stage).collect();
    let check = |row: &&Registered| -> Result<(), String> {
        if NEED_MORE.contains(&row.def.name) || (declares_more(row.def) && !RUN_ANYWAY.contains(&row.def.name)) {
            return Ok(());
        }
        let examples = examples(row)?;
        if examples.iter().all(|example| example.contains_key("devices")) {
            return Ok(());
        }
        let bare = examples.into_iter().filter(|example| !example.contains_key("inputs"));
        let bare = bare.filter_map(|example| Site::new(row.def, Value::Null, Vec::new(), example.into()));
        let (mut ran, mut reasons) = (false, Vec::new());
        for site in bare.chain(cases(row.def)) {
            match site.places() {
                Ok(places) => {
                    ran = true;
                    places.iter().try_for_each(|place| lead_out(&site, place))?;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        if ran {
            return Ok(());
        }
        let advice = "give it a case in fixtures/modules, or test it in its file and name it in NEED_MORE";
        Err(format!("runs neither on a bare tree nor on those of its cases: {reasons:?}; {advice}"))
    };
    let fault = |row: &&Registered| check(row).err().map(|fault| format!("{}: {fault}", row.def.name));
    let faults: Vec<String> = stages.par_iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
