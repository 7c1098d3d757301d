//! `osbc plan`: what a build would do, and why. Changes nothing.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::process::ExitCode;

use osbc_compiler::passes::{WrittenAction, WrittenItem, WrittenPipeline, WrittenReason, WrittenStage, written_plan};
use osbc_ir::{Action, Edge, Export, Kind, Plan, printable};
use osbc_module_api::Catalog;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::PlanArgs;
use crate::causes::{Causes, LastBuild};
use crate::exit::Failure;
use crate::output::{print, say};
use crate::{render, wiring};

/// Prints the plan.
pub(crate) fn run(args: &PlanArgs) -> Result<ExitCode, Failure> {
    let prepared =
        wiring::prepare(&args.manifest, &args.target.exports).map_err(|failure| failure.with_json(args.json))?;
    let store = wiring::look(args.target.store.as_deref())?;
    let plan = prepared.preview(store.as_ref())?;
    // Where nothing runs there is nothing to say why.
    let last = store
        .filter(|_| !plan.segments.is_empty())
        .and_then(|store| LastBuild::of(&store, &args.manifest.manifest, &plan.graph));
    let causes = last.as_ref().map(|last| Causes::new(&plan, Some(last)));
    if let Some(reason) = prepared.session.missing(&plan)? {
        say(&format!("osbc: warning: {reason}"));
    }
    let document = Document::of(&plan, choices(&plan, prepared.session.catalog())?, causes.as_ref());
    let text = if args.json { format!("{:#}\n", document.json()) } else { document.text() };
    Ok(print(text.as_bytes())?)
}

/// The plan as data: the shape of `osbc plan --json`.
#[derive(Serialize)]
struct Document<'a> {
    exports: &'a [Export],
    pipelines: Vec<WrittenPipeline>,
    sources: Vec<WrittenItem>,
    /// The modules that several libraries have.
    choices: Vec<Choice>,
    totals: Totals,
    /// Why what runs is not in the store, where an earlier build is known.
    #[serde(skip)]
    causes: Option<&'a Causes<'a>>,
}

/// A module that more than one library has.
#[derive(Debug, Serialize)]
struct Choice {
    kind: Kind,
    name: String,
    provider: String,
    /// Who has it too.
    others: Vec<String>,
}

/// Which side provides a module where several do.
fn choices(plan: &Plan, catalog: &Catalog) -> Result<Vec<Choice>, Failure> {
    let mut choices = Vec::new();
    for (kind, name) in named_modules(plan) {
        let mut providers = catalog.providers(kind, name)?;
        if providers.len() > 1 {
            let others = providers.split_off(1);
            let provider = providers.pop().unwrap_or_default();
            choices.push(Choice { kind, name: name.to_owned(), provider, others });
        }
    }
    Ok(choices)
}

/// The modules that a plan's manifest names, each once.
fn named_modules(plan: &Plan) -> BTreeSet<(Kind, &str)> {
    let manifest = &plan.graph.manifest;
    let stages = manifest.pipelines.iter().flat_map(|pipeline| &pipeline.stages).flat_map(|stage| {
        let inputs = stage.inputs.iter().map(|input| &input.module);
        let devices = stage.devices.iter().map(|device| &device.module);
        let mounts = stage.mounts.iter().map(|mount| &mount.module);
        std::iter::once(&stage.module).chain(inputs).chain(devices).chain(mounts)
    });
    let sources = manifest.sources.iter().map(|source| &source.module);
    stages.chain(sources).map(|module| (module.kind, module.name.as_str())).collect()
}

/// How many written stages and items have which action.
#[derive(Debug, Default, Serialize)]
struct Totals {
    run: usize,
    cached: usize,
    shared: usize,
    unneeded: usize,
    fetch: usize,
    /// Bytes to fetch, as far as the manifest states sizes.
    fetch_bytes: u64,
    /// Items to fetch whose size the manifest does not state.
    fetch_unknown: usize,
}

impl<'a> Document<'a> {
    fn of(plan: &'a Plan, choices: Vec<Choice>, causes: Option<&'a Causes<'a>>) -> Self {
        let (pipelines, sources) = written_plan(plan);
        let mut totals = Totals::default();
        for stage in pipelines.iter().flat_map(|pipeline| &pipeline.stages) {
            match stage.action {
                WrittenAction::Run => totals.run += 1,
                WrittenAction::Cached => totals.cached += 1,
                WrittenAction::Shared => totals.shared += 1,
                WrittenAction::Unneeded => totals.unneeded += 1,
            }
        }
        for item in sources.iter().filter(|item| item.action == Action::Fetch) {
            totals.fetch += 1;
            totals.fetch_bytes += item.size.unwrap_or(0);
            totals.fetch_unknown += usize::from(item.size.is_none());
        }
        Self { exports: &plan.exports, pipelines, sources, choices, totals, causes }
    }

    /// As data, each stage that runs with its cause.
    fn json(&self) -> Value {
        let mut document = serde_json::to_value(self).expect("a plan has nothing that JSON lacks");
        let Some(causes) = self.causes else { return document };
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            for (position, stage) in pipeline.stages.iter().enumerate() {
                if stage.action == WrittenAction::Run {
                    document["pipelines"][index]["stages"][position]["cause"] = json!(causes.of(stage.node));
                }
            }
        }
        document
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let exported: HashSet<&str> = self.exports.iter().map(|export| export.name.as_str()).collect();
        for pipeline in &self.pipelines {
            let mark = if exported.contains(pipeline.name.as_str()) { "  (exported)" } else { "" };
            writeln!(text, "{}{mark}", printable::line(&pipeline.name)).expect("a string grows");
            let same = |one: &WrittenStage, other: &WrittenStage| folds(one) && fold_key(one) == fold_key(other);
            let rows: Vec<_> = pipeline.stages.chunk_by(same).map(|stages| stage_row(stages, self.causes)).collect();
            text.push_str(&indented(&rows));
        }
        if !self.sources.is_empty() {
            text.push_str("sources\n");
            let same = |one: &WrittenItem, other: &WrittenItem| {
                one.action != Action::Fetch && one.action == other.action && one.module == other.module
            };
            let rows: Vec<_> = self.sources.chunk_by(same).map(item_row).collect();
            text.push_str(&indented(&rows));
        }
        if !self.choices.is_empty() {
            text.push_str("modules from several libraries\n");
            let row = |choice: &Choice| {
                let others = format!("not {}", choice.others.join(", "));
                vec![choice.kind.to_string(), choice.name.clone(), choice.provider.clone(), others]
            };
            text.push_str(&indented(&self.choices.iter().map(row).collect::<Vec<_>>()));
        }
        text + &self.totals.text()
    }
}

impl Totals {
    fn text(&self) -> String {
        let mut text = format!(
            "\n{} to run, {} cached, {} shared, {} not needed; {} to fetch",
            render::count(self.run, "stage"),
            self.cached,
            self.shared,
            self.unneeded,
            render::count(self.fetch, "item"),
        );
        if self.fetch > 0 {
            text += &format!(" ({}", render::bytes(self.fetch_bytes));
            if self.fetch_unknown > 0 {
                text += &format!(" and {} of unknown size", render::count(self.fetch_unknown, "item"));
            }
            text += ")";
        }
        text + "\n"
    }
}

/// Whether a stage may share a line with its neighbours. Stages that run have a line each.
fn folds(stage: &WrittenStage) -> bool {
    stage.action != WrittenAction::Run
}

/// What neighbours must have in common to share a line.
fn fold_key(stage: &WrittenStage) -> (WrittenAction, &WrittenReason) {
    (stage.action, &stage.reason)
}

fn stage_row(stages: &[WrittenStage], causes: Option<&Causes<'_>>) -> Vec<String> {
    let (name, id) = match stages {
        [only] => (only.module.clone(), only.id.short()),
        several => (render::count(several.len(), "stage"), String::new()),
    };
    let action = match stages[0].action {
        WrittenAction::Run => "run",
        WrittenAction::Cached => "cached",
        WrittenAction::Shared => "shared",
        WrittenAction::Unneeded => "not needed",
    };
    let why = match causes.filter(|_| stages[0].action == WrittenAction::Run) {
        Some(causes) => causes.of(stages[0].node).words(),
        None => reason(&stages[0].reason),
    };
    vec![action.to_owned(), name, id, why]
}

fn item_row(items: &[WrittenItem]) -> Vec<String> {
    let action = match items[0].action {
        Action::Fetch => "fetch",
        Action::Cached => "cached",
        Action::Run | Action::Unneeded => "not needed",
    };
    let known: u64 = items.iter().filter_map(|item| item.size).sum();
    let size =
        if items.iter().any(|item| item.size.is_none()) { "size unknown".to_owned() } else { render::bytes(known) };
    let name = match items {
        [only] => only.checksum.clone(),
        several => render::count(several.len(), "item"),
    };
    vec![action.to_owned(), items[0].module.clone(), name, size, reason(&items[0].reason)]
}

/// A reason in words.
pub(crate) fn reason(reason: &WrittenReason) -> String {
    match reason {
        WrittenReason::Exported { .. } => "exported".to_owned(),
        WrittenReason::NeededBy { pipeline, module, edge, .. } => {
            let part = match edge {
                Edge::Base => "base",
                Edge::Build => "build root",
                Edge::Input => "input",
                Edge::Fetch => "source item",
            };
            format!("{part} of {pipeline}: {module}")
        }
        WrittenReason::AllSources => "all sources are asked for".to_owned(),
        WrittenReason::InStore => "in the store".to_owned(),
        WrittenReason::EqualContent => "equal content".to_owned(),
        WrittenReason::SameAs { pipeline } => format!("same as in {pipeline}"),
        WrittenReason::CoveredByCache => "a cached result covers it".to_owned(),
        WrittenReason::NotRequested => "no export needs it".to_owned(),
    }
}

fn indented(rows: &[Vec<String>]) -> String {
    render::table(rows).lines().fold(String::new(), |text, line| text + "  " + line + "\n")
}
