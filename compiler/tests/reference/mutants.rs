//! osbuild's samples with one thing changed: at each place a key dropped, a key added, a value of another type, a value
//! out of range. osbuild and the built-in modules have to accept and refuse the same ones, but for what [`KNOWN`] says.
//!
//! A place is tried once, however many samples have it, in a manifest of that one stage or source; what lies around
//! them in a manifest is tried without them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use osbc_compiler::{Host, Phase, SourceText, compile};
use osbc_ir::Runner;
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::trees::runners::{BUILT_IN, for_host};
use serde_json::{Value, json};

use super::json_files;

/// Where the two are known to disagree: the module, the end of the place and the change, each of which may be `*` for
/// any, who accepts, and why.
const KNOWN: &[(&str, &str, &str, &str, &str)] = &[(
    "org.osbuild.ostree.selinux",
    "/options/deployment",
    "type",
    "osbuild",
    "its schema does not say that the deployment is an object; the module then fails in the middle of the build",
)];

/// Samples that osbuild refuses too: they are older than the modules that they use.
const OUTDATED: &[&str] = &["rhel/el7-qcow2.json", "arch/arch-build.json", "arch/arch-vagrant-virtualbox.json"];

/// Prints, for each manifest of the list in the file named on its command line, whether osbuild's validation accepts
/// it; null where it raises.
const JUDGE: &str = r#"
import json, sys
import osbuild.meta
index = osbuild.meta.Index(".")
with open(sys.argv[1], encoding="utf8") as file:
    manifests = json.load(file)
for manifest in manifests:
    try:
        verdict = not index.detect_format_info(manifest).module.validate(manifest, index).as_dict()
    except Exception:
        verdict = None
    print(json.dumps(verdict))
"#;

/// A part of a sample in a manifest of its own.
struct Part {
    /// The module, or `manifest` for what lies around modules.
    name: String,
    manifest: Value,
    /// Where in it the part begins, as a JSON pointer.
    at: String,
}

/// A manifest with one thing changed.
struct Mutant {
    name: String,
    place: String,
    change: &'static str,
    manifest: Value,
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn name_of(module: &Value, key: &str) -> String {
    module[key].as_str().unwrap_or_default().to_owned()
}

/// The parts of a sample of either version.
fn parts(sample: &Value) -> Vec<Part> {
    let mut frame = sample.clone();
    let mut parts = Vec::new();
    let new = if sample["version"].is_string() { json!({"version": "2", "pipelines": []}) } else { json!({}) };
    for (name, source) in sample["sources"].as_object().into_iter().flatten() {
        let mut manifest = new.clone();
        manifest["sources"] = json!({ name.clone(): source });
        parts.push(Part { name: name.clone(), manifest, at: format!("/sources/{}", escaped(name)) });
        frame["sources"] = json!({});
    }
    for pipeline in frame["pipelines"].as_array_mut().into_iter().flatten() {
        for stage in pipeline["stages"].take().as_array().into_iter().flatten() {
            let manifest = json!({"version": "2", "pipelines": [{"name": "tree", "stages": [stage]}]});
            parts.push(Part { name: name_of(stage, "type"), manifest, at: "/pipelines/0/stages/0".to_owned() });
        }
        pipeline["stages"] = json!([]);
    }
    let mut pipeline = frame.get_mut("pipeline");
    while let Some(Value::Object(entries)) = pipeline {
        for stage in
            entries.insert("stages".to_owned(), json!([])).iter().flat_map(|stages| stages.as_array()).flatten()
        {
            let manifest = json!({"pipeline": {"stages": [stage]}});
            parts.push(Part { name: name_of(stage, "name"), manifest, at: "/pipeline/stages/0".to_owned() });
        }
        if let Some(assembler) = entries.remove("assembler") {
            let name = name_of(&assembler, "name");
            let manifest = json!({"pipeline": {"assembler": assembler}});
            parts.push(Part { name, manifest, at: "/pipeline/assembler".to_owned() });
        }
        pipeline = entries.get_mut("build").and_then(|build| build.get_mut("pipeline"));
    }
    parts.push(Part { name: "manifest".to_owned(), manifest: frame, at: String::new() });
    parts
}

/// The pointers to all values below a place.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, item)| places(item, &format!("{at}/{}", escaped(key)), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// Returns a pointer without what distinguishes the items of a list, or checksums.
fn alike(place: &str) -> String {
    let word = |word: &str| {
        let counts =
            word.parse::<u32>().is_ok() || ["sha256:", "sha1:", "md5:"].iter().any(|kind| word.starts_with(kind));
        if counts { "*".to_owned() } else { word.to_owned() }
    };
    place.split('/').map(word).collect::<Vec<_>>().join("/")
}

/// The changes of what is at a place, by name.
fn changes(manifest: &Value, place: &str) -> Vec<(&'static str, Value)> {
    let value = manifest.pointer(place).expect("a place in it");
    let with = |new: Value| {
        let mut changed = manifest.clone();
        *changed.pointer_mut(place).expect("a place in it") = new;
        changed
    };
    let mut changes = Vec::new();
    let (parent, key) = place.rsplit_once('/').unwrap_or_default();
    let mut without = manifest.clone();
    if let Some(Value::Object(entries)) = without.pointer_mut(parent)
        && entries.remove(&key.replace("~1", "/").replace("~0", "~")).is_some()
    {
        changes.push(("dropped", without));
    }
    if let Value::Object(entries) = value {
        let mut more = entries.clone();
        more.insert("osbc-mutant".to_owned(), json!(1));
        changes.push(("added", with(more.into())));
    }
    let (other, range): (Value, Vec<Value>) = match value {
        Value::Object(_) => (json!([]), vec![json!({})]),
        Value::Array(_) => (json!({}), vec![json!([])]),
        Value::String(_) => (json!(42), vec![json!(""), json!("/../osbc mutant")]),
        Value::Number(_) => (json!("42"), vec![json!(-1), json!(1_000_000_000_000_i64), json!(0.5)]),
        Value::Bool(_) => (json!("yes"), vec![]),
        Value::Null => (json!(0), vec![]),
    };
    changes.push(("type", with(other)));
    changes.extend(range.into_iter().map(|new| ("range", with(new))));
    changes
}

/// Every change at every place, once.
fn mutants(samples: &[Value]) -> Vec<Mutant> {
    let (mut seen, mut whole) = (BTreeSet::new(), BTreeSet::new());
    let mut mutants = Vec::new();
    for Part { name, manifest, at } in samples.iter().flat_map(parts) {
        let mut found = Vec::new();
        places(manifest.pointer(&at).expect("it begins there"), &at, &mut found);
        for place in found {
            if !seen.insert((name.clone(), at.clone(), alike(&place))) {
                continue;
            }
            for (change, changed) in changes(&manifest, &place) {
                if whole.insert(changed.to_string()) {
                    mutants.push(Mutant { name: name.clone(), place: place.clone(), change, manifest: changed });
                }
            }
        }
    }
    mutants
}

/// Whether osbuild accepts them; none where it raises.
fn osbuild_accepts(checkout: &Path, mutants: &[Mutant]) -> Vec<Option<bool>> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("mutants.json");
    let all: Vec<&Value> = mutants.iter().map(|mutant| &mutant.manifest).collect();
    fs::write(&path, json!(all).to_string()).expect("writable");
    let output = Command::new("python3").arg("-c").arg(JUDGE).arg(&path).current_dir(checkout).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "osbuild fails: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON");
    text.lines().map(|line| serde_json::from_str(line).expect("a verdict")).collect()
}

/// Whether a manifest is valid, whatever it refers to; or, asked to `load` it too, whether there is nothing wrong at
/// all.
fn osbc_accepts(catalog: &Catalog, host: &Runner, manifest: &Value, load: bool) -> bool {
    let text = SourceText::from_bytes("mutant.json", manifest.to_string().into_bytes()).expect("it is text");
    match compile(&text, catalog, Host::bare(host)) {
        Ok(_) => true,
        Err(report) => !load && report.problems().iter().all(|located| located.problem.phase == Phase::Load),
    }
}

fn samples() -> (PathBuf, Vec<(PathBuf, Value)>) {
    let checkout = env::var_os("OSBUILD_CHECKOUT").map(PathBuf::from).expect("OSBUILD_CHECKOUT is set");
    let mut files = Vec::new();
    json_files(&checkout.join("samples"), &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read(&file).expect("readable");
        let manifest = serde_json::from_slice(&text).expect("JSON");
        (file, manifest)
    };
    let samples: Vec<_> = files.into_iter().map(read).collect();
    assert!(samples.len() > 20, "a checkout has more than {} samples", samples.len());
    (checkout, samples)
}

#[test]
#[ignore = "needs a checkout of osbuild in OSBUILD_CHECKOUT, and python3"]
fn mutants_are_accepted_and_refused_as_by_osbuild() {
    let (checkout, samples) = samples();
    let samples: Vec<Value> = samples.into_iter().map(|(_, manifest)| manifest).collect();
    let mutants = mutants(&samples);
    assert!(mutants.len() > 1000, "only {} mutants", mutants.len());
    let verdicts = osbuild_accepts(&checkout, &mutants);
    assert_eq!(verdicts.len(), mutants.len());
    let refused = verdicts.iter().filter(|accepted| **accepted != Some(true)).count();
    assert!(refused > 500 && refused < mutants.len(), "osbuild refuses {refused} of {}", mutants.len());
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let catalog = Catalog::new(libraries);
    let host = for_host("", BUILT_IN);
    let mut disagreements = Vec::new();
    let mut known = vec![0_usize; KNOWN.len()];
    for (mutant, theirs) in mutants.iter().zip(verdicts) {
        let Mutant { name, place, change, manifest } = mutant;
        // Whatever makes osbuild raise is a problem to us, if not one of schemas.
        let ours = osbc_accepts(&catalog, &host, manifest, theirs.is_none());
        let theirs = theirs.unwrap_or(false);
        if ours == theirs {
            continue;
        }
        let accepts = if theirs { "osbuild" } else { "osbc" };
        let fits = |(module, end, what, who, _): &(&str, &str, &str, &str, &str)| {
            (*module == "*" || module == name)
                && (*end == "*" || place.ends_with(end))
                && (*what == "*" || what == change)
                && *who == accepts
        };
        match KNOWN.iter().position(fits) {
            Some(index) => known[index] += 1,
            None => disagreements.push(format!("{name} {place} {change}: {accepts} accepts {manifest:.400}")),
        }
    }
    let (count, all) = (disagreements.len(), mutants.len());
    assert!(disagreements.is_empty(), "{count} of {all} mutants, known {known:?}:\n{}", disagreements.join("\n"));
    assert!(!known.contains(&0), "a known disagreement is none any more: {known:?} of {all}");
}

#[test]
#[ignore = "needs a checkout of osbuild in OSBUILD_CHECKOUT"]
fn samples_are_valid_with_the_built_in_modules_alone() {
    let (_, samples) = samples();
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let catalog = Catalog::new(libraries);
    let host = for_host("", BUILT_IN);
    let mut refused = Vec::new();
    for (file, _) in &samples {
        // What osbuild's own preprocessor has to see first is no manifest yet.
        if file.to_string_lossy().ends_with(".mpp.json") || OUTDATED.iter().any(|name| file.ends_with(name)) {
            continue;
        }
        let text = SourceText::read(file).expect("readable");
        if let Err(report) = compile(&text, &catalog, Host::bare(&host)) {
            refused.push(format!("{}: {report}", file.display()));
        }
    }
    assert!(refused.is_empty(), "{} samples:\n{}", refused.len(), refused.join("\n"));
}
