//! `osbc doctor`: what this machine can and cannot do, for all builds or for one manifest, how to get it, and what dead
//! builds have left.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use osbc_store::fs::temporary::{CHECK, COMMAND, abandoned, remove_abandoned};
use serde_json::json;

use crate::args::{DoctorArgs, ManifestArgs};
use crate::doctor::{Finding, State, leftovers, machine, manifest, tools};
use crate::exit::{self, Failure};
use crate::output::print;
use crate::{render, wiring};

/// Looks, and cleans if so asked.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let store = wiring::store_path(args.store.as_deref())?;
    let machine = machine::look(&store);
    let prepared = args.manifest.clone().map(|manifest| {
        let manifest = ManifestArgs { manifest, library: args.library.clone() };
        wiring::prepare(&manifest, &args.exports).map_err(|failure| failure.with_json(args.json))
    });
    let prepared = prepared.transpose()?;
    let (title, key, tools) = match &prepared {
        Some(prepared) => ("what this manifest needs", "manifest", manifest::look(prepared)?),
        None => ("tools in this machine's tree", "tools", tools::look()),
    };
    let mut left = leftovers::find(&store);
    let mut problems = Vec::new();
    if args.clean {
        left.retain(|left| match leftovers::remove(left) {
            Ok(()) => false,
            Err(error) => {
                problems.push(format!("cannot remove {}: {error}", left.device));
                true
            }
        });
    }
    let mut directories = directories(&store);
    if args.clean {
        directories.retain(|directory| match remove_abandoned(directory) {
            Ok(()) => false,
            Err(error) => {
                problems.push(format!("cannot remove {}: {error}", directory.display()));
                true
            }
        });
    }
    let can_build = !machine.iter().chain(&tools).any(Finding::is_fatal);
    let text = if args.json {
        let document = json!({
            "can_build": can_build, "machine": machine, key: tools, "left_overs": left,
            "left_directories": directories, "problems": problems,
        });
        format!("{document:#}\n")
    } else {
        let mut text = section("this machine", &machine) + &section(title, &tools);
        for left in &left {
            let name = left.mapping.as_deref().unwrap_or(&left.device);
            writeln!(text, "left over: {name} on {}; `osbc doctor --clean` removes it", left.file)
                .expect("a string grows");
        }
        for directory in &directories {
            writeln!(text, "left over: the directory {}; `osbc doctor --clean` removes it", directory.display())
                .expect("a string grows");
        }
        for problem in &problems {
            writeln!(text, "{problem}").expect("a string grows");
        }
        text + match (args.manifest.is_some(), can_build) {
            (false, true) => "builds can run here\n",
            (false, false) => "builds cannot run here\n",
            (true, true) => "this manifest can be built here\n",
            (true, false) => "this manifest cannot be built here\n",
        }
    };
    print(text.as_bytes())?;
    Ok(if can_build && problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::ENVIRONMENT) })
}

/// The directories of dead commands.
fn directories(store: &Path) -> Vec<PathBuf> {
    let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let mut found = store.parent().map(|parent| abandoned(parent, CHECK)).unwrap_or_default();
    found.extend(abandoned(&std::env::temp_dir(), COMMAND));
    found
}

fn section(title: &str, findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let state = match (finding.state, finding.needed) {
            (State::Ok, _) => "ok",
            (State::Missing, false) => "missing",
            (State::Missing, true) => "MISSING",
        };
        let hint = finding.hint.as_ref().map(|hint| format!("{}; {hint}", finding.detail));
        vec![state.to_owned(), finding.name.clone(), hint.unwrap_or_else(|| finding.detail.clone())]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let lines = render::table(&rows).lines().fold(String::new(), |text, line| text + "  " + line + "\n");
    format!("{title}\n{lines}\n")
}
