//! What the tests of the command share: a throw-away place, the command, and a small web server.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assert_cmd::Command;
use osbc_ir::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A directory of a test's own with a store and an output directory; gone when dropped.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes a manifest and returns its path.
    pub(crate) fn manifest(&self, manifest: &Value) -> PathBuf {
        self.file("manifest.json", manifest.to_string().as_bytes())
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("the directory is writable");
        path
    }

    /// `osbc build MANIFEST --store … -o …`.
    pub(crate) fn build(&self, manifest: &Path) -> Command {
        let mut command = osbc();
        command.arg("build").arg(manifest).arg("--store").arg(self.store()).arg("-o").arg(self.output());
        command
    }

    /// `osbc plan MANIFEST --store … --json`, parsed.
    pub(crate) fn plan(&self, manifest: &Path) -> Value {
        let mut command = osbc();
        command.arg("plan").arg(manifest).arg("--store").arg(self.store()).arg("--json");
        let output = command.assert().success().get_output().stdout.clone();
        serde_json::from_slice(&output).expect("the plan is JSON")
    }
}

/// The command under test, in an environment that says nothing.
pub(crate) fn osbc() -> Command {
    let mut command = Command::cargo_bin("osbc").expect("cargo builds osbc for its tests");
    for variable in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command.timeout(std::time::Duration::from_secs(120));
    command
}

/// Returns the SHA-256 of a content in hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Returns `sha256:…` of a content.
pub(crate) fn checksum(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

/// A manifest of one pipeline `tree`.
pub(crate) fn one_pipeline(stages: Value) -> Value {
    json!({"version": "2", "pipelines": [{"name": "tree", "stages": stages}]})
}

/// A manifest whose pipeline `tree` copies one fetched item to `/item`.
pub(crate) fn fetching(checksum: &str, url: &str) -> Value {
    json!({
        "version": "2",
        "sources": {"org.osbuild.curl": {"items": {checksum: url}}},
        "pipelines": [{"name": "tree", "stages": [{
            "type": "org.osbuild.copy",
            "inputs": {"files": {
                "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [checksum]
            }},
            "options": {"paths": [{"from": format!("input://files/{checksum}"), "to": "tree:///item"}]}
        }]}]
    })
}

/// What the web server does with a request.
pub(crate) type Answer = dyn Fn(&str, &mut TcpStream) + Send + Sync;

/// A web server on loopback; answers each request on a thread of its own, until the test process ends.
pub(crate) fn serve(answer: Arc<Answer>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut request = String::new();
                let mut reader = BufReader::new(stream.try_clone().expect("sockets can be cloned"));
                // A client may try TLS first, which is no text.
                if reader.read_line(&mut request).is_err() {
                    return;
                }
                let mut header = String::new();
                while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
                    header.clear();
                }
                let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
                answer(&path, &mut stream);
            });
        }
    });
    format!("http://{address}")
}

/// A plain answer with a status line and a body.
pub(crate) fn respond(stream: &mut TcpStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
}

/// The mounts, loop devices and processes of the machine that have to do with a path.
pub(crate) fn leftovers(place: &Path) -> Vec<String> {
    let name = place.to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mut found: Vec<String> =
        mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount: {line}")).collect();
    for entry in std::fs::read_dir("/sys/block").expect("/sys is mounted").flatten() {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&name) {
            found.push(format!("loop device: {} of {}", entry.path().display(), file.trim()));
        }
    }
    for process in std::fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        // Processes come and go meanwhile.
        let mounts = std::fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        if mounts.contains(&name) {
            found.push(format!("process: {}", process.path().display()));
        }
    }
    found
}
