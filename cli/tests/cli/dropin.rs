//! Drop-in mode: its command line, its monitors and documents, its store, and a session of each of its callers.

mod callers;
mod errors;
mod machines;
mod monitors;
mod options;
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

/// The same on a machine that has `fixtures/libdir` installed where callers have osbuild look for modules, and nothing
/// else said.
///
/// It is so in a mount namespace of this one command.
fn installed(place: &Place, program: &Path) -> Command {
    let directory = place.path("installed");
    if !directory.exists() {
        std::fs::create_dir(&directory).expect("makes");
        let copied = Command::new("cp").arg("-a").arg(osbc_fixtures::libdir()).arg(directory.join("osbuild")).status();
        assert!(copied.expect("cp is there").success());
        // For the library, if this machine has it.
        std::fs::create_dir(directory.join("osbuild/osbuild")).expect("makes");
    }
    let mut command = Command::new("unshare");
    let script = r#"mount -t overlay overlay -o "lowerdir=$INSTALLED:/usr/lib" /usr/lib && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program).current_dir(place.path(""));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("INSTALLED", directory);
    command
}

/// The link of that name.
fn link(place: &Place) -> PathBuf {
    let directory = place.path("bin");
    let link = directory.join("osbuild");
    std::fs::create_dir_all(&directory).expect("makes");
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

/// A stage that makes a directory.
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

/// The input of a stage `org.example.write`: files, by what they are called there.
fn files(origin: &str, references: &Value) -> Value {
    json!({"files": {"type": "org.example.files", "origin": origin, "references": references}})
}

/// A stage that writes the item to `/hello`.
fn write_item() -> Value {
    let references = json!({item(): {"name": "hello"}});
    json!({"type": "org.example.write", "inputs": files("org.osbuild.source", &references)})
}

/// A stage that writes a file out of another pipeline's tree.
fn write_of_tree(pipeline: &str, file: &str, name: &str) -> Value {
    let references = json!({format!("name:{pipeline}"): {"file": file, "name": name}});
    json!({"type": "org.example.write", "inputs": files("org.osbuild.pipeline", &references)})
}

/// A stage that writes `/greeting`.
fn greet() -> Value {
    json!({"type": "org.example.greet", "options": {"name": "you"}})
}

/// The same as [`image_of_tree`], with the modules of `fixtures/libdir`.
fn image_of_installed() -> Value {
    json!({
        "version": "2",
        "sources": {"org.example.text": {"items": {item(): {"text": "hello"}}}},
        "pipelines": [
            {"name": "tree", "source-epoch": 1_659_397_331, "stages": [greet(), write_item()]},
            {"name": "image", "stages": [write_of_tree("tree", "/hello", "disk.img")]},
        ],
    })
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("reads").file_name().into_string().expect("is text")).collect();
    names.sort();
    names
}

/// Everything below a directory that is neither a directory nor a regular file, nor a link, as notes of items are.
fn special_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(directory) {
        let path = directory.join(name);
        let kind = path.symlink_metadata().expect("is there").file_type();
        if kind.is_dir() {
            found.extend(special_files(&path));
        } else if !kind.is_file() && !kind.is_symlink() {
            found.push(path);
        }
    }
    found
}
