//! osbc in osbuild's place: its command line, its monitors and documents, its store, and a session of each of its callers.

mod callers;
mod monitors;
mod refusals;
mod shells;
mod store;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Place, checksum};

/// The content of [`item`].
const HELLO: &[u8] = b"hello";

/// osbuild in a place: a link of that name, run there, in an environment that says nothing but where modules come from.
pub(crate) fn osbuild(place: &Place) -> Command {
    let link = link(place);
    let mut command = Command::new(link);
    command.current_dir(place.path("")).env_clear().env("OSBC_NATIVE", "1").env("PATH", "/usr/bin:/bin");
    command
}

/// The link of that name.
fn link(place: &Place) -> PathBuf {
    let folder = place.path("bin");
    let link = folder.join("osbuild");
    std::fs::create_dir_all(&folder).expect("makes");
    if !link.exists() {
        std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin("osbc"), &link).expect("links");
    }
    link
}

/// Runs to the end; gives the exit code and what was printed.
fn run(mut command: Command, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    command.args(arguments).stdin(Stdio::null());
    Ran::from(command.output().expect("starts"))
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// What was printed, of a run that ended with this code.
    fn with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.out
    }

    /// The one document that was printed, of a run that ended with this code.
    fn document(self, code: i32) -> Value {
        let out = self.with(code);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("one JSON document: {error}\n{out}"))
    }
}

/// An inline source of one item.
fn sources() -> Value {
    json!({"org.osbuild.inline": {"items": {item(): {"encoding": "base64", "data": "aGVsbG8="}}}})
}

/// The item's name.
fn item() -> String {
    checksum(HELLO)
}

/// A stage that makes a folder.
fn mkdir(path: &str) -> Value {
    json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}})
}

/// A stage that copies the item to a path.
fn copy_item(to: &str) -> Value {
    let item = item();
    json!({
        "type": "org.osbuild.copy",
        "inputs": {"items": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": [item]}},
        "options": {"paths": [{"from": format!("input://items/{item}"), "to": format!("tree://{to}")}]},
    })
}

/// A stage that copies something out of another pipeline's tree.
fn copy_tree(pipeline: &str, from: &str, to: &str) -> Value {
    json!({
        "type": "org.osbuild.copy",
        "inputs": {"tree": {
            "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [format!("name:{pipeline}")]
        }},
        "options": {"paths": [{"from": format!("input://tree{from}"), "to": format!("tree://{to}")}]},
    })
}

/// A tree and, copied out of it, an image.
fn image_of_tree() -> Value {
    json!({"version": "2", "sources": sources(), "pipelines": [
        {"name": "tree", "source-epoch": 1_659_397_331, "stages": [mkdir("/x"), copy_item("/x/hello")]},
        {"name": "image", "stages": [copy_tree("tree", "/x/hello", "/disk.img")]},
    ]})
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("reads").file_name().into_string().expect("is text")).collect();
    names.sort();
    names
}

/// Everything below a folder that is neither a folder nor a regular file.
fn special_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        let kind = path.symlink_metadata().expect("is there").file_type();
        if kind.is_dir() {
            found.extend(special_files(&path));
        } else if !kind.is_file() {
            found.push(path);
        }
    }
    found
}
