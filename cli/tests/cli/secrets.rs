//! Secrets of URLs reach the servers that they are for, and nothing that a build says or keeps.
//!
//! Every secret here holds the word that all of it is searched for.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use osbc_fixtures::has_root;
use serde_json::{Value, json};

use super::dropin::osbuild;
use crate::harness::{Place, checksum, osbc, respond, serve};

const WORD: &str = "CANARY";
const GOOD: &[u8] = b"hello";

/// A server that gives one file, redirects from `/moved`, and refuses all else. Without its token it gives nothing.
fn server() -> String {
    serve(Arc::new(|path, stream| match path {
        "/good?token=CANARY-query" => respond(stream, "200 OK", GOOD),
        "/moved" => {
            let location = "Location: /forbidden?signature=CANARY-redirect&x=1#CANARY-fragment\r\n";
            use std::io::Write as _;
            stream.write_all(format!("HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\n\r\n").as_bytes()).ok();
        }
        _ => respond(stream, "403 Forbidden", b"CANARY-body"),
    }))
}

/// A manifest with secrets wherever a URL may be; `own` are its items, and `fails` says whether its stage does.
fn manifest(own: &Value, fails: bool) -> Value {
    let good = checksum(GOOD);
    let from = if fails { "nothing" } else { good.as_str() };
    let items = |checksums: Vec<&String>| json!({"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": checksums});
    let checksums = own.as_object().expect("items").keys().collect();
    json!({
        "version": "2",
        "metadata": {"generators": [{"name": "https://CANARY-user:CANARY-password@h/"}]},
        "sources": {"org.osbuild.curl": {"items": own}},
        "pipelines": [{"name": "tree", "stages": [
            {"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/https:"}]}},
            {"type": "org.osbuild.copy", "inputs": {"files": items(checksums)}, "options": {"paths": [
                {"from": format!("input://files/{from}"), "to": "tree:///https://CANARY-user@h?token=CANARY-option"}
            ]}},
        ]}],
    })
}

/// A place whose store, output and documents are searched; manifests, which hold the secrets, lie elsewhere.
struct Searched {
    place: Place,
    manifests: Place,
    said: Vec<(String, Vec<u8>)>,
}

impl Searched {
    fn new() -> Self {
        Self { place: Place::new(), manifests: Place::new(), said: Vec::new() }
    }

    fn manifest(&self, name: &str, manifest: &Value) -> PathBuf {
        self.manifests.file(name, manifest.to_string().as_bytes())
    }

    /// Runs osbc in the place, and returns its exit code.
    fn osbc(&mut self, arguments: &[&str], manifest: Option<&Path>) -> Option<i32> {
        let mut command = osbc();
        command.args(arguments).args(manifest).current_dir(self.place.path(""));
        let output = command.output().expect("runs");
        self.hear(arguments.join(" "), output)
    }

    /// The same in drop-in mode.
    fn osbuild(&mut self, arguments: &[&str], manifest: &Path) -> Option<i32> {
        let output = osbuild(&self.place).args(arguments).arg(manifest).output().expect("runs");
        self.hear(format!("osbuild {}", arguments.join(" ")), output)
    }

    fn hear(&mut self, what: String, output: Output) -> Option<i32> {
        self.said.push((what, [output.stdout, output.stderr].concat()));
        output.status.code()
    }

    /// Where the word is in all that was said and kept, but in source items and the trees of stages.
    fn found(&self) -> Vec<String> {
        let has = |text: &[u8]| text.windows(WORD.len()).any(|window| window == WORD.as_bytes());
        let said = self.said.iter().filter(|(_, text)| has(text));
        let mut found: Vec<String> =
            said.map(|(what, text)| format!("{what}: {}", String::from_utf8_lossy(text))).collect();
        let mut directories = vec![self.place.path("")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).expect("lists").flatten() {
                let (path, kind) = (entry.path(), entry.file_type().expect("has a type"));
                let name = entry.file_name();
                if kind.is_dir() && !["sources", "https:"].iter().any(|own| name == *own) {
                    directories.push(path);
                } else if kind.is_file() && has(&std::fs::read(&path).expect("reads")) {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

#[test]
fn a_failed_build_shows_no_secret() {
    if !has_root() {
        return;
    }
    let server = server();
    let with_user = server.replace("://", "://CANARY-user:CANARY-password@");
    let other = |name: &str| checksum(name.as_bytes());
    let items = json!({
        checksum(GOOD): format!("{with_user}/good?token=CANARY-query"),
        other("1"): format!("{with_user}/forbidden?token=CANARY-query;CANARY-bare#CANARY-fragment"),
        other("2"): {"url": format!("{server}/moved"), "insecure": true},
        other("4"): "ftp://CANARY-user:CANARY-password@h/x",
        other("6"): "https://CANARY-user:CANARY/pass@word@127.0.0.1:1/x",
    });
    let mut all = Searched::new();
    let items_fail = all.manifest("items.json", &manifest(&items, false));
    let good = json!({checksum(GOOD): format!("{with_user}/good?token=CANARY-query")});
    let stage_fails = all.manifest("stage.json", &manifest(&good, true));
    for failing in [&items_fail, &stage_fails] {
        for arguments in [
            &["build", "--keep-going", "--store", "store", "--events", "ev", "--trace", "trace"][..],
            &["build", "--json", "--keep-going", "--store", "store"],
        ] {
            assert_eq!(all.osbc(arguments, Some(failing)), Some(1));
        }
        for arguments in [&["--json"][..], &["--monitor", "JSONSeqMonitor"], &["--monitor", "LogMonitor"]] {
            let store = ["--store", "ostore", "--output-directory", "oout", "--export", "tree"];
            assert_eq!(all.osbuild(&[arguments, &store].concat(), failing), Some(1));
        }
        all.osbc(&["log", "--store", "store"], None);
        all.osbc(&["report", "--store", "store", "-o", "report.html"], None);
    }
    assert!(all.said.iter().any(|(_, text)| String::from_utf8_lossy(text).contains("/forbidden?signature=***&x=***")));
    assert_eq!(all.found(), [""; 0]);
}

#[test]
fn a_successful_build_shows_no_secret() {
    if !has_root() {
        return;
    }
    let with_user = server().replace("://", "://CANARY-user:CANARY-password@");
    let mut all = Searched::new();
    let items = json!({checksum(GOOD): format!("{with_user}/good?token=CANARY-query")});
    let first = all.manifest("manifest.json", &manifest(&items, false));
    let arguments = ["build", "--store", "store", "-o", "out", "--provenance", "--sbom", "spdx", "--events", "ev"];
    assert_eq!(all.osbc(&arguments, Some(&first)), Some(0), "{:?}", all.said);
    assert_eq!(all.osbc(&["build", "--json", "--store", "store"], Some(&first)), Some(0));
    for monitor in ["LogMonitor", "JSONSeqMonitor"] {
        let store = ["--store", "ostore", "--output-directory", "oout", "--export", "tree", "--monitor", monitor];
        assert_eq!(all.osbuild(&store, &first), Some(0));
    }
    for arguments in [&["log", "--list", "--json"][..], &["log"], &["log", "copy"], &["report", "-o", "-"]] {
        assert_eq!(all.osbc(&[arguments, &["--store", "store"]].concat(), None), Some(0));
    }
    for arguments in [&["plan"][..], &["plan", "--json"], &["explain"], &["explain", "--json"], &["graph"]] {
        assert_eq!(all.osbc(&[arguments, &["--store", "store"]].concat(), Some(&first)), Some(0));
    }

    // Another token is another option, and said to be so.
    let mut changed = manifest(&items, false);
    changed["pipelines"][0]["stages"][1]["options"]["paths"][0]["to"] = json!("tree:///https://CANARY@h?token=CANARY2");
    let other = all.manifest("other.json", &changed);
    let mut diff = osbc();
    diff.arg("diff").args([&first, &other]).current_dir(all.place.path(""));
    let output = diff.output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("/options/paths/0/to: \"tree:///https://h?token=*** ["));
    assert_eq!(all.hear("diff".into(), output), Some(1));
    std::fs::write(&first, changed.to_string()).expect("writes");
    assert_eq!(all.osbc(&["explain", "--store", "store"], Some(&first)), Some(0));
    assert!(String::from_utf8_lossy(&all.said.last().expect("said").1).contains("options changed: paths"));
    assert_eq!(all.osbc(&["explain", "--json", "--store", "store"], Some(&first)), Some(0));
    assert_eq!(all.found(), [""; 0]);
}

#[test]
fn a_refused_manifest_shows_no_secret() {
    let mut all = Searched::new();
    let own = json!({checksum(GOOD): {"url": "https://CANARY-user:CANARY-password@h/x?t=CANARY y", "insecure": "no"}});
    let refused = all.manifest("manifest.json", &manifest(&own, false));
    assert_eq!(all.osbc(&["plan"], Some(&refused)), Some(2));
    assert_eq!(all.osbc(&["plan", "--json"], Some(&refused)), Some(2));
    assert_eq!(all.osbuild(&["--json", "--store", "ostore", "--output-directory", "oout"], &refused), Some(2));
    assert_eq!(all.osbuild(&["--store", "ostore", "--output-directory", "oout"], &refused), Some(2));
    assert_eq!(all.found(), [""; 0]);
}

#[test]
fn proxies_keep_their_passwords() {
    if !has_root() {
        return;
    }
    let mut all = Searched::new();
    let failing = all.manifest("manifest.json", &manifest(&json!({checksum(GOOD): "http://nowhere.test/x"}), false));
    let proxy = server().replace("://", "://CANARY-user:CANARY-password@");
    let mut command = osbc();
    command.args(["build", "--store", "store", "--json"]).arg(&failing).current_dir(all.place.path(""));
    let output = command.env("http_proxy", proxy).output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("(through the proxy http://127.0.0.1:"), "{output:?}");
    assert_eq!(all.hear("build".into(), output), Some(1));
    assert_eq!(all.found(), [""; 0]);
}
