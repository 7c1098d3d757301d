//! osbuild itself as the judge: every JSON file below `samples/` and `test/data/` of a checkout goes through its
//! validation and `--inspect`, and through ours.
//!
//! Where it accepts, the description has to be the same text, ids included; where it refuses, the problems have to lie
//! at the same paths. That holds for osbuild's modules alone and with the built-in ones before them. What becomes of
//! manifests with one thing changed is in `mutants.rs`.
//!
//! `OSBUILD_CHECKOUT=DIR cargo test -p osbc-compiler --test reference -- --ignored`; needs python3 with jsonschema.

mod mutants;

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use osbc_compiler::{Host, IdScheme, Phase, SourceText, compile, describe};
use osbc_module_api::{Catalog, Kind, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::on_disk::OnDiskLibrary;
use osbc_modules::trees::runners::for_host;
use osbc_pytext::json;
use serde_json::Value;

/// Prints, for each file named on its command line, one line of JSON: what osbuild makes of it.
const JUDGE: &str = r#"
import json, sys
import osbuild.meta
index = osbuild.meta.Index(".")
for path in sys.argv[1:]:
    verdict = {"path": path}
    try:
        with open(path, encoding="utf8") as file:
            manifest = json.load(file)
        format_info = index.detect_format_info(manifest)
        if format_info is None:
            verdict["unsupported"] = True
        else:
            errors = format_info.module.validate(manifest, index).as_dict()
            if errors:
                verdict["errors"] = [error["path"] for error in errors["errors"]]
            else:
                loaded = format_info.module.load(manifest, index)
                verdict["text"] = json.dumps(format_info.module.describe(loaded, with_id=True))
    except Exception as error:
        verdict["raised"] = repr(error)
    print(json.dumps(verdict))
"#;

fn json_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in directory.read_dir().expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

/// What osbuild makes of files, named relative to its checkout.
fn judge(checkout: &Path, files: &[String]) -> Vec<Value> {
    let output = Command::new("python3").arg("-c").arg(JUDGE).args(files).current_dir(checkout).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "osbuild fails: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Where our verdict differs from osbuild's, in words; nothing if it does not.
fn difference(checkout: &Path, catalog: &Catalog, verdict: &Value) -> Option<String> {
    let path = verdict["path"].as_str().expect("a path");
    let text = SourceText::read(&checkout.join(path)).expect("readable");
    let runners = catalog.names(Kind::Runner).expect("runners");
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let host = for_host(&os_release, runners.iter().map(String::as_str));
    let ours = compile(&text, catalog, Host::bare(&host));
    match (verdict, ours) {
        (Value::Object(verdict), Ok(manifest)) if verdict.contains_key("text") => {
            let ours = json::to_string(&describe(&manifest.finalize(), IdScheme::Osbuild));
            (Some(ours.as_str()) != verdict["text"].as_str()).then(|| format!("is described as {ours}"))
        }
        (Value::Object(verdict), Err(report)) if verdict.contains_key("errors") => {
            let theirs: BTreeSet<String> =
                verdict["errors"].as_array().into_iter().flatten().map(Value::to_string).collect();
            let problems = report.problems().iter().map(|located| &located.problem);
            let ours: BTreeSet<String> = problems
                .filter(|problem| problem.phase == Phase::Validate)
                .map(|problem| serde_json::to_string(&problem.path).expect("JSON"))
                .collect();
            let ours: BTreeSet<String> =
                ours.iter().map(|path| serde_json::from_str::<Value>(path).expect("JSON").to_string()).collect();
            (ours != theirs).then(|| format!("has problems at {ours:?} instead of {theirs:?}"))
        }
        // Whatever makes osbuild raise is a problem to us.
        (Value::Object(verdict), Err(_)) if !verdict.contains_key("text") => None,
        (_, Ok(_)) => Some("is accepted".to_owned()),
        (_, Err(report)) => Some(format!("is refused: {report}")),
    }
}

#[test]
#[ignore = "needs a checkout of osbuild in OSBUILD_CHECKOUT, and python3"]
fn we_agree_with_osbuild_on_its_own_manifests() {
    let checkout = env::var_os("OSBUILD_CHECKOUT").map(PathBuf::from).expect("OSBUILD_CHECKOUT is set");
    let mut files = Vec::new();
    json_files(&checkout.join("samples"), &mut files);
    json_files(&checkout.join("test/data"), &mut files);
    let mut files: Vec<String> = files
        .iter()
        .map(|file| file.strip_prefix(&checkout).expect("inside").to_str().expect("UTF-8").to_owned())
        .collect();
    files.sort();
    assert!(files.len() > 100, "a checkout of osbuild has more than {} files", files.len());
    let verdicts = judge(&checkout, &files);
    let accepted = verdicts.iter().filter(|verdict| verdict.get("text").is_some()).count();
    assert!(accepted > 50, "osbuild accepts only {accepted} of {} files", files.len());
    let on_disk = || Box::new(OnDiskLibrary::new(&checkout));
    let libraries: [Vec<Box<dyn Library>>; 2] = [vec![on_disk()], vec![Box::new(BuiltIn), on_disk()]];
    let mut differences = Vec::new();
    for libraries in libraries {
        let catalog = Catalog::new(libraries);
        for verdict in &verdicts {
            if let Some(difference) = difference(&checkout, &catalog, verdict) {
                let library = catalog.libraries()[0].label();
                differences.push(format!("with {library}, {} {difference}", verdict["path"]));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
