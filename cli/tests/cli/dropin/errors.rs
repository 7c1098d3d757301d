//! What is refused: the order of checks, the exit codes, and one document with `--json`.

use osbc_fixtures::manifest;
use serde_json::json;

use super::{image_of_tree, osbuild, run};
use crate::harness::{Place, one_pipeline, osbc};

#[test]
fn the_version_is_that_of_the_contract() {
    let place = Place::new();
    assert_eq!(run(osbuild(&place), ["--version"]).with(0), "osbuild 190\n");
    osbc().args(["osbuild", "--version"]).assert().code(0).stdout("osbuild 190\n");
}

#[test]
fn wrong_arguments_end_with_2_and_the_usage_on_standard_error() {
    let place = Place::new();
    for (line, expected) in [
        (&["--colour"][..], "Usage: osbuild"),
        (&[], "Usage: osbuild"),
        (&["--c=1", "m"], "Usage: osbuild"),
        (&["--cache-max-size=20G", "m"], "20G"),
    ] {
        let ran = run(osbuild(&place), line);
        assert!(ran.err.contains(expected), "{ran:?}");
        assert_eq!(ran.with(2), "", "{line:?}");
    }
}

#[test]
fn checks_come_in_osbuilds_order() {
    let place = Place::new();
    place.file("syntax.json", b"{");
    place.file("format.json", br#"{"version": "7"}"#);
    place.file("invalid.json", one_pipeline(json!([{"type": "org.osbuild.nothing"}])).to_string().as_bytes());
    place.file("valid.json", image_of_tree().to_string().as_bytes());
    for (line, code, expected) in [
        ("missing.json --export none", 1, "missing.json"),
        ("syntax.json --export none", 1, "syntax.json has errors"),
        ("format.json --export none", 2, "format.json has errors"),
        ("invalid.json --export none", 2, "org.osbuild.nothing"),
        ("valid.json --export none --checkpoint none --inspect", 1, "Export none not found in ['tree', 'image']"),
        ("valid.json --export image --checkpoint none --inspect", 1, "No checkpoints matched provided patterns!"),
        ("valid.json --export image --inspect", 0, "\"pipelines\""),
        ("valid.json --export image --monitor None", 1, "Need --output-directory for --export"),
        ("valid.json --export image --output-directory o --monitor None", 1, "Unknown monitor: None"),
        ("valid.json --export image --output-directory o --monitor-fd 99", 1, "--monitor-fd"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let out = run(osbuild(&place), &arguments).with(code);
        assert!(out.contains(expected), "{line}: {out}");
        if code != 0 && line != "valid.json --export image --inspect" {
            let expected =
                run(osbuild(&place), arguments.iter().filter(|argument| **argument != "--inspect").chain([&"--json"]));
            assert_eq!(expected.document(code)["success"], false, "{line}");
        }
    }
    assert!(!place.path("o").exists());
}

#[test]
fn problems_of_a_manifest_are_reported_as_in_osbuild() {
    let place = Place::new();
    let invalid = one_pipeline(json!([{"type": "org.osbuild.hostname", "options": {"hostname": 1}}]));
    let path = place.manifest(&invalid);
    for option in ["--json", "--inspect"] {
        let expected = run(osbuild(&place), [path.as_os_str(), option.as_ref()]).document(2);
        assert_eq!(expected["type"], "https://osbuild.org/validation-error");
        assert_eq!(expected["errors"][0]["path"], json!(["pipelines", 0, "stages", 0, "options", "hostname"]));
    }
}

#[test]
fn inspect_prints_osbuilds_ids_and_reads_standard_input() {
    let place = Place::new();
    let path = manifest("quickstart.json");
    let expected =
        osbc().args(["inspect", "--ids", "osbuild"]).arg(&path).assert().success().get_output().stdout.clone();
    let mut command = osbuild(&place);
    command.arg("--inspect").stdin(std::fs::File::open(&path).expect("opens"));
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, expected);
    assert!(!place.path(".osbuild").exists(), "nothing is built");
}
