//! `osbc compat`: what osbuild and osbc make of a manifest, side by side, down to the ids.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use osbc_compiler::SourceText;
use osbc_ir::Value;
use osbc_module_api::host_program;

use crate::args::CompatArgs;
use crate::env;
use crate::exit::{self, Failure};
use crate::output::print;

/// The modules of an installed osbuild.
const LIBDIR: &str = "/usr/lib/osbuild";

/// The fields that osbc adds to the problems that osbuild reports.
const ADDED: [&str; 5] = ["code", "line", "column", "label", "help"];

/// Compares.
pub(crate) fn run(args: &CompatArgs) -> Result<ExitCode, Failure> {
    let text = SourceText::read(&args.manifest)?;
    let (osbuild, libdir) = osbuild(args)?;
    let libdir = args.libdir.clone().unwrap_or(libdir);
    let theirs = inspect("osbuild", osbuild, &libdir, text.as_str())?;
    let mut osbc = Command::new("/proc/self/exe");
    osbc.arg(env::DROP_IN);
    let ours = inspect("osbc", osbc, &libdir, text.as_str())?;
    match difference(&theirs, &ours) {
        None => {
            print(format!("no difference: {}\n", theirs.sum()).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(difference) => {
            print(format!("{difference}\n").as_bytes())?;
            Ok(ExitCode::from(exit::BUILD_FAILED))
        }
    }
}

/// How osbuild is started, and where its modules are: of a checkout its own.
fn osbuild(args: &CompatArgs) -> Result<(Command, PathBuf), Failure> {
    match &args.osbuild {
        Some(checkout) if checkout.is_dir() => {
            let checkout = std::path::absolute(checkout).map_err(Failure::environment)?;
            if !checkout.join("osbuild/__main__.py").is_file() {
                return Err(Failure::arguments(format!("{} is no checkout of osbuild", checkout.display())));
            }
            let mut command = Command::new("python3");
            command.args(["-m", "osbuild"]).env("PYTHONPATH", &checkout).env("PYTHONDONTWRITEBYTECODE", "1");
            Ok((command, checkout))
        }
        program => {
            let program = program.as_ref().map_or_else(|| OsString::from("osbuild"), |path| path.into());
            Ok((Command::new(program), PathBuf::from(LIBDIR)))
        }
    }
}

/// What a program makes of a manifest.
#[derive(Debug, Clone, PartialEq)]
struct Inspected {
    code: Option<i32>,
    /// The manifest with ids, or its problems; `None` if it printed no JSON.
    document: Option<Value>,
    /// The last line that it wrote to standard error.
    last_line: String,
}

fn inspect(name: &str, mut command: Command, libdir: &Path, manifest: &str) -> Result<Inspected, Failure> {
    let cannot =
        |error: std::io::Error| Failure::environment(format!("cannot run {name}: {error}; `--osbuild` names one"));
    command.args(["--inspect", "--libdir"]).arg(libdir).arg("-");
    let ran = host_program::output(&mut command, manifest.as_bytes(), &|| false).map_err(cannot)?;
    let output = ran.ok_or(Failure::Interrupted)?;
    let mut document: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if let Some(errors) =
        document.as_mut().and_then(|document| document.get_mut("errors")).and_then(Value::as_array_mut)
    {
        for error in errors.iter_mut().filter_map(Value::as_object_mut) {
            error.retain(|key, _| !ADDED.contains(&key.as_str()));
        }
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last_line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    Ok(Inspected { code: output.status.code(), document, last_line })
}

impl Inspected {
    /// In a few words.
    fn sum(&self) -> String {
        let Some(document) = &self.document else { return format!("both refuse it with {}", self.ended()) };
        if let Some(errors) = document.get("errors").and_then(Value::as_array) {
            return format!("both report the same {} problems", errors.len());
        }
        match document.get("pipelines").and_then(Value::as_array) {
            Some(pipelines) => {
                let stages = pipelines.iter().filter_map(|pipeline| pipeline.get("stages")?.as_array()).map(Vec::len);
                format!("{} pipelines and {} stages, all ids alike", pipelines.len(), stages.sum::<usize>())
            }
            None => "all ids alike".to_owned(),
        }
    }

    fn ended(&self) -> String {
        self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"))
    }

    fn ending(&self) -> String {
        if self.last_line.is_empty() { self.ended() } else { format!("{}: {}", self.ended(), self.last_line) }
    }
}

/// Returns where two programs first differ, for people; `None` if they do not.
fn difference(theirs: &Inspected, ours: &Inspected) -> Option<String> {
    if theirs.code != ours.code || theirs.document.is_some() != ours.document.is_some() {
        return Some(format!("they end differently\n  osbuild: {}\n  osbc:    {}", theirs.ending(), ours.ending()));
    }
    let (theirs, ours) = (theirs.document.as_ref()?, ours.document.as_ref()?);
    let (place, theirs, ours) = first(theirs, ours, String::new())?;
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), shortened);
    Some(format!("the first difference is at {place}\n  osbuild: {}\n  osbc:    {}", show(theirs), show(ours)))
}

/// The first place, in the order of the first one, where two values differ.
fn first<'v>(
    one: &'v Value,
    other: &'v Value,
    place: String,
) -> Option<(String, Option<&'v Value>, Option<&'v Value>)> {
    let here = if place.is_empty() { "the top".to_owned() } else { place.clone() };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                let place = format!("{place}.{key}");
                match other.get(key) {
                    None => return Some((place, Some(value), None)),
                    Some(counterpart) => match first(value, counterpart, place) {
                        None => {}
                        found => return found,
                    },
                }
            }
            let extra = other.iter().find(|(key, _)| !one.contains_key(*key));
            extra.map(|(key, value)| (format!("{place}.{key}"), None, Some(value)))
        }
        (Value::Array(one), Value::Array(other)) => {
            for index in 0..one.len().max(other.len()) {
                let place = format!("{place}[{index}]");
                match (one.get(index), other.get(index)) {
                    (Some(value), Some(counterpart)) => match first(value, counterpart, place) {
                        None => {}
                        found => return found,
                    },
                    (value, counterpart) => return Some((place, value, counterpart)),
                }
            }
            None
        }
        _ => (one != other).then_some((here, Some(one), Some(other))),
    }
}

/// A value on one line that is not too long.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inspected(code: i32, document: Option<Value>) -> Inspected {
        Inspected { code: Some(code), document, last_line: "it is so".to_owned() }
    }

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let one = json!({"pipelines": [{"name": "a", "stages": [{"id": "1", "options": {"x": 1}}, {"id": "2"}]}]});
        let mut other = one.clone();
        other["pipelines"][0]["stages"][1]["id"] = json!("3");
        other["pipelines"][0]["stages"][1]["more"] = json!(true);
        let text = difference(&inspected(0, Some(one.clone())), &inspected(0, Some(other))).expect("they differ");
        assert_eq!(text, "the first difference is at .pipelines[0].stages[1].id\n  osbuild: \"2\"\n  osbc:    \"3\"");
        assert_eq!(difference(&inspected(0, Some(one.clone())), &inspected(0, Some(one))), None);
    }

    #[test]
    fn what_one_has_alone_is_a_difference() {
        for (one, other, place) in [
            (json!({"a": 1}), json!({"a": 1, "b": 2}), ".b"),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), ".b"),
            (json!([1]), json!([1, 2]), "[1]"),
            (json!(1), json!(1.0), "the top"),
        ] {
            let text = difference(&inspected(0, Some(one)), &inspected(0, Some(other))).expect("they differ");
            assert!(text.starts_with(&format!("the first difference is at {place}\n")), "{text}");
        }
    }

    #[test]
    fn another_end_is_a_difference() {
        let text = difference(&inspected(0, Some(json!({}))), &inspected(1, None)).expect("they differ");
        assert_eq!(text, "they end differently\n  osbuild: exit code 0: it is so\n  osbc:    exit code 1: it is so");
        assert_eq!(difference(&inspected(1, None), &inspected(1, None)), None);
    }
}
