//! Debian packages in the sandbox: made by the tests with dpkg-deb, fetched over loopback, installed by the tree's own
//! dpkg.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osbc_fixtures::deb::{Deb, base, can_install, renamed};
use predicates::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::{Place, checksum, leftovers, osbc, respond, serve};

/// A manifest that installs the content of these packages in the pipeline `tree`, and writes a file in `other`.
fn installing(place: &Place, packages: &[Vec<u8>]) -> PathBuf {
    serving(place, packages, packages)
}

/// The same where the server has other content for the same names.
fn serving(place: &Place, packages: &[Vec<u8>], served: &[Vec<u8>]) -> PathBuf {
    let served: Vec<Vec<u8>> = served.to_vec();
    let url = serve(Arc::new(move |path, stream| {
        let index: usize = path.trim_start_matches('/').parse().expect("the manifest's own address");
        respond(stream, "200 OK", &served[index]);
    }));
    let address = |(index, package): (usize, &Vec<u8>)| (checksum(package), json!(format!("{url}/{index}")));
    let items: Map<String, Value> = packages.iter().enumerate().map(address).collect();
    let references: Vec<&String> = items.keys().collect();
    let packages = json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references});
    let stage = json!({"type": "org.osbc.deb", "inputs": {"packages": packages}});
    let other = json!({"type": "org.osbuild.hostname", "options": {"hostname": "unharmed"}});
    place.manifest(&json!({
        "version": "2",
        "sources": {"org.osbuild.curl": {"items": items}},
        "pipelines": [
            {"name": "tree", "source-epoch": 1_700_000_000, "stages": [stage]},
            {"name": "other", "stages": [other]}
        ]
    }))
}

/// Builds both pipelines of which the first one must fail, saying these words; the other one comes out, and nothing
/// else remains: no process, no mount, nothing half done in the store.
fn fails(place: &Place, manifest: &Path, more: &[&str], said: &[&str]) {
    let mut build = place.build(manifest);
    build.args(["-e", "tree", "-e", "other", "--keep-going"]).args(more);
    let output = build.assert().code(1).get_output().clone();
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    for words in said {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!place.output().join("tree").exists());
    let other = fs::read_to_string(place.output().join("other/etc/hostname"));
    assert_eq!(other.expect("it was built"), "unharmed\n");
    fs::remove_dir_all(place.output()).expect("its own directory");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    assert_eq!(running(&["sleep", LONG]), Vec::<String>::new());
    for directory in ["work", "damaged"] {
        let left = fs::read_dir(place.store().join(directory)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{directory}: {text}");
    }
    osbc().args(["store", "verify", "--store"]).arg(place.store()).assert().success();
}

/// How long what lingers in these tests would, so that it is known by its command line.
const LONG: &str = "86399";

/// The processes with these words at the end of their command lines.
fn running(words: &[&str]) -> Vec<String> {
    let wanted: String = words.iter().map(|word| format!("{word}\0")).collect();
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let lines = processes.map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default());
    lines.filter(|line| line.ends_with(&wanted)).collect()
}

fn content(deb: &Deb, directory: &Path) -> Vec<u8> {
    fs::read(deb.write(directory)).expect("it was made")
}

/// What SPDX 2.3 demands of a document, and the package URL that names each package.
fn spdx_schema() -> Value {
    let id = json!({"type": "string", "pattern": "^SPDXRef-[A-Za-z0-9.-]+$"});
    json!({
        "type": "object",
        "required": ["spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace", "creationInfo"],
        "properties": {
            "spdxVersion": {"enum": ["SPDX-2.3"]},
            "dataLicense": {"enum": ["CC0-1.0"]},
            "SPDXID": {"enum": ["SPDXRef-DOCUMENT"]},
            "documentNamespace": {"type": "string", "pattern": "^[a-z]+:[^#\\\\s]+$"},
            "creationInfo": {
                "required": ["created", "creators"],
                "properties": {
                    "created": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"},
                    "creators": {"type": "array", "minItems": 1, "items": {"pattern": "^(Tool|Organization|Person): ?.+"}}
                }
            },
            "packages": {"type": "array", "items": {
                "required": ["SPDXID", "name", "downloadLocation", "filesAnalyzed"],
                "properties": {"SPDXID": id, "externalRefs": {"items": {
                    "required": ["referenceCategory", "referenceType", "referenceLocator"],
                    "properties": {
                        "referenceCategory": {"enum": ["PACKAGE-MANAGER"]},
                        "referenceLocator": {"type": "string", "pattern": "^pkg:[a-z]+/[^@]+@.+$"}
                    }
                }}}
            }},
            "relationships": {"type": "array", "items": {
                "required": ["spdxElementId", "relationshipType", "relatedSpdxElement"],
                "properties": {
                    "spdxElementId": id, "relatedSpdxElement": id, "relationshipType": {"enum": ["DESCRIBES", "CONTAINS"]}
                }
            }}
        }
    })
}

/// What in-toto's statement and SLSA's predicate demand.
fn provenance_schema() -> Value {
    let digest = json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}});
    let uri = json!({"type": "string", "pattern": "^[a-z]+:.+"});
    json!({
        "type": "object",
        "required": ["_type", "subject", "predicateType", "predicate"],
        "properties": {
            "_type": {"enum": ["https://in-toto.io/Statement/v1"]},
            "subject": {"type": "array", "minItems": 1, "items": {
                "required": ["name", "digest"], "properties": {"digest": digest}
            }},
            "predicateType": {"enum": ["https://slsa.dev/provenance/v1"]},
            "predicate": {
                "required": ["buildDefinition", "runDetails"],
                "properties": {
                    "buildDefinition": {
                        "required": ["buildType", "externalParameters"],
                        "properties": {
                            "buildType": uri,
                            "externalParameters": {"type": "object"},
                            "internalParameters": {"type": "object"},
                            "resolvedDependencies": {"items": {"properties": {"uri": uri, "digest": digest}}}
                        }
                    },
                    "runDetails": {"required": ["builder"], "properties": {"builder": {
                        "required": ["id"], "properties": {"id": uri}
                    }}}
                }
            }
        }
    })
}

fn documents_say_what_there_is(place: &Place, manifest: &Path) {
    let read = |kind: &str, schema: &Value| -> Value {
        let text = fs::read(place.output().join(format!("tree.{kind}.json"))).expect("it was written");
        let document = serde_json::from_slice(&text).expect("it is JSON");
        jsonschema::validator_for(schema).expect("a schema").validate(&document).expect("it is valid");
        document
    };
    let sbom = read("spdx", &spdx_schema());
    let names: Vec<&str> =
        sbom["packages"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["tree", "base", "one"]);
    assert_eq!(sbom["packages"][2]["externalRefs"][0]["referenceLocator"], "pkg:deb/one@1.0-1?arch=all");
    assert_eq!(sbom["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let provenance = read("intoto", &provenance_schema());
    let definition = &provenance["predicate"]["buildDefinition"];
    let digest = checksum(&fs::read(manifest).expect("it is there"));
    assert_eq!(definition["externalParameters"]["manifest"]["digest"]["sha256"], digest["sha256:".len()..]);
    assert_eq!(definition["resolvedDependencies"].as_array().map(Vec::len), Some(2));
    assert_eq!(definition["internalParameters"]["stages"][0]["module"], "org.osbc.deb");
}

#[test]
fn root_debian_packages_are_installed_by_the_dpkg_of_the_tree() {
    if !can_install() {
        return;
    }
    let place = Place::new();
    let one = Deb::new("one").file("etc/one.conf", "one\n").control("conffiles", "/etc/one.conf\n");
    let one = one.script("postinst", "echo \"$DPKG_MAINTSCRIPT_PACKAGE $1\" >/etc/said; sleep 0.1 & wait");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let manifest = installing(&place, &[content(&base(), directory.path()), content(&one, directory.path())]);
    let mut build = place.build(&manifest);
    build.args(["--sbom", "spdx", "--provenance"]).assert().success();
    documents_say_what_there_is(&place, &manifest);
    // The same out of the store.
    let sbom = fs::read(place.output().join("tree.spdx.json")).expect("it was written");
    fs::remove_dir_all(place.output()).expect("its own directory");
    place.build(&manifest).args(["--sbom", "spdx", "--provenance"]).assert().success();
    assert!(
        sbom == fs::read(place.output().join("tree.spdx.json")).expect("it was written"),
        "the same out of the store"
    );
    let tree = place.output().join("tree");
    assert_eq!(fs::read_to_string(tree.join("etc/said")).expect("the script ran"), "one configure\n");
    for question in ["--audit", "--verify"] {
        let output = Command::new("dpkg").arg("--root").arg(&tree).arg(question).output().expect("dpkg starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{question}");
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_debian_packages_that_misbehave_fail_their_stage_and_leave_nothing() {
    if !can_install() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let base = content(&base(), directory.path());
    let with = |name: &str, commands: &str| content(&Deb::new("one").script(name, commands), directory.path());
    let script = |commands: &str| with("postinst", commands);
    let whole = script("true");
    let leaving = Deb::new("one").compression("none").file("usr/xx/xx/xx/outside", "");
    let leaving = renamed(&content(&leaving, directory.path()), "./usr/xx/xx/xx/outside", "./usr/../../../outside");
    let daemon = format!("echo it begins; busybox setsid sleep {LONG} >/dev/null 2>&1 </dev/null &");
    let left = format!("left processes running, which it may not: `sleep {LONG}`");
    for (package, said) in [
        (script("echo this is why; exit 7"), ["this is why", "a script failed of one"]),
        (with("preinst", "echo this is why >&2; exit 7"), ["this is why", "preinst of the package one failed"]),
        (script(&daemon), ["it begins", &left]),
        (with("preinst", &daemon), ["it begins", &left]),
        (
            whole[..whole.len() - 20].to_vec(),
            ["cannot read the package sha256:", "it is cut off: data.tar.gz should have"],
        ),
        (leaving, ["cannot unpack the package one", "it has a path that leaves the tree: ./usr/../../../outside"]),
        (b"no package".to_vec(), ["cannot read the package sha256:", "it is no Debian package"]),
    ] {
        let place = Place::new();
        fails(&place, &installing(&place, &[base.clone(), package]), &[], &said);
    }
    let place = Place::new();
    let hangs = format!("echo it begins; sleep {LONG}");
    for hanging in [script(&hangs), script(&format!("trap '' TERM INT HUP; {hangs}")), with("preinst", &hangs)] {
        let manifest = installing(&place, &[base.clone(), hanging]);
        let begin = Instant::now();
        fails(&place, &manifest, &["--stage-timeout", "5"], &["it begins", "it took longer than the 5s"]);
        assert!(begin.elapsed() < Duration::from_secs(60), "it was ended in time");
    }
    // What is whole is built in the same store.
    place.build(&installing(&place, &[base, whole])).assert().success();
}

#[test]
fn root_debian_packages_of_another_architecture_say_what_runs_them() {
    if !can_install() {
        return;
    }
    let place = Place::new();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut dpkg = fs::read("/usr/bin/dpkg").expect("dpkg is there");
    // The machine in the header of an ELF file: one that nobody emulates.
    dpkg[18..20].copy_from_slice(&9999u16.to_le_bytes());
    let dpkg = content(&base().program("usr/bin/dpkg", dpkg), directory.path());
    let mut shell = fs::read("/bin/busybox").expect("busybox is there");
    shell[18..20].copy_from_slice(&9999u16.to_le_bytes());
    let scripted = base().program("usr/bin/busybox", shell).script("preinst", "true");
    for (package, program) in [(dpkg, "/usr/bin/dpkg"), (content(&scripted, directory.path()), "base.preinst")] {
        let said = predicate::str::contains(format!("{program} is made for an architecture with the number 9999"))
            .and(predicate::str::contains("install qemu-user-static and binfmt-support"));
        place.build(&installing(&place, &[package])).assert().code(3).stderr(said);
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
    }
}

#[test]
fn root_a_debian_package_that_is_another_than_asked_for_is_not_installed() {
    if !can_install() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (base, place) = (content(&base(), directory.path()), Place::new());
    let one = |text: &str| content(&Deb::new("one").file("usr/share/one", text), directory.path());
    let (wanted, served) = (one("wanted"), one("served"));
    let manifest = serving(&place, &[base.clone(), wanted.clone()], &[base, served.clone()]);
    let reason = format!("the file has the checksum {} instead of {}", checksum(&served), checksum(&wanted));
    fails(&place, &manifest, &[], &[&reason, "/1"]);
}
