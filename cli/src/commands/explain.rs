//! `osbc explain`: why stages run, are cached or are not needed, compared with the last build of the manifest.

use std::fmt::Write as _;
use std::process::ExitCode;

use osbc_compiler::compare::Cause;
use osbc_compiler::passes::{WrittenAction, WrittenStage, written_plan};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Graph, Plan, printable};
use serde_json::{Value, json};

use crate::args::ExplainArgs;
use crate::causes::{Causes, LastBuild, RunCause, Stage, cause_words, change_lines};
use crate::commands::plan::reason;
use crate::exit::Failure;
use crate::output::print;
use crate::{render, wiring};

/// How many stages of one kind are named in the summary.
const NAMED: usize = 5;

/// Explains.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let prepared =
        wiring::prepare(&args.manifest, &args.target.exports).map_err(|failure| failure.with_json(args.json))?;
    let store = wiring::look(args.target.store.as_deref())?;
    let plan = prepared.preview(store.as_ref())?;
    let last = store.as_ref().and_then(|store| LastBuild::of(store, &args.manifest.manifest, &plan.graph));
    let causes = Causes::new(&plan, last.as_ref());
    let places = args.node.as_ref().map(|node| find(&plan.graph, node)).transpose()?;
    let all = stages(&plan);
    let wanted = all.iter().filter(|one| places.as_ref().is_none_or(|places| places.contains(&one.place)));
    let explanation = Explanation { plan: &plan, causes, last: last.as_ref() };
    let text = match (args.json, &places) {
        (true, _) => format!("{:#}\n", explanation.json(wanted)),
        (false, Some(_)) => wanted.map(|one| explanation.stage(one)).collect::<Vec<_>>().join("\n"),
        (false, None) => explanation.summary(&all),
    };
    Ok(print(text.as_bytes())?)
}

/// A stage at a place where it is written: pipeline and position.
struct Written {
    place: (usize, usize),
    pipeline: String,
    stage: WrittenStage,
}

fn stages(plan: &Plan) -> Vec<Written> {
    let pipelines = written_plan(plan).0.into_iter().enumerate();
    let written = pipelines.flat_map(|(index, pipeline)| {
        let name = pipeline.name;
        pipeline.stages.into_iter().enumerate().map(move |(position, stage)| Written {
            place: (index, position),
            pipeline: name.clone(),
            stage,
        })
    });
    written.collect()
}

/// The places that a name stands for: PIPELINE, PIPELINE:TYPE, PIPELINE:INDEX or the beginning of an id.
fn find(graph: &Graph, name: &str) -> Result<Vec<(usize, usize)>, Failure> {
    let pipelines = &graph.manifest.pipelines;
    let place = |pipeline: &str| pipelines.iter().position(|known| known.name == pipeline);
    if let Some(index) = place(name) {
        return Ok((0..pipelines[index].stages.len()).map(|position| (index, position)).collect());
    }
    let mut found = Vec::new();
    if let Some((pipeline, stage)) = name.rsplit_once(':')
        && let Some(index) = place(pipeline)
    {
        let number = stage.parse::<usize>().ok();
        for (position, written) in pipelines[index].stages.iter().enumerate() {
            let module = &written.module.name;
            if number == Some(position) || module == stage || module.strip_prefix("org.osbuild.") == Some(stage) {
                found.push((index, position));
            }
        }
    } else if name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        for (index, nodes) in graph.pipelines.iter().enumerate() {
            for (position, node) in nodes.stages.iter().enumerate() {
                let begins = |id: String| id.starts_with(&name.to_ascii_lowercase());
                if graph
                    .stage_node(*node)
                    .is_some_and(|node| begins(node.id.to_string()) || begins(node.compat.to_string()))
                {
                    found.push((index, position));
                }
            }
        }
    }
    if found.is_empty() {
        let known: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        return Err(Failure::arguments(format!(
            "there is no stage `{name}`; name a pipeline ({}), PIPELINE:TYPE, PIPELINE:INDEX (from 0) or the beginning of an \
             id",
            known.join(", ")
        )));
    }
    Ok(found)
}

struct Explanation<'a> {
    plan: &'a Plan,
    causes: Causes<'a>,
    last: Option<&'a LastBuild<'a>>,
}

impl Explanation<'_> {
    /// One stage, in full.
    fn stage(&self, one: &Written) -> String {
        let Written { pipeline, stage, place: (_, position) } = one;
        let mut text =
            format!("{}: {} (stage {position})  {}\n", printable::line(pipeline), stage.module, stage.id.short());
        let why = reason(&stage.reason);
        let act = match stage.action {
            WrittenAction::Run => format!("runs: {why}"),
            WrittenAction::Cached => format!("cached: {why}"),
            WrittenAction::Shared => format!("shared: {why}"),
            WrittenAction::Unneeded => format!("not needed: {why}"),
        };
        line(&mut text, 1, &act);
        if stage.action == WrittenAction::Run {
            line(&mut text, 1, &format!("why it is not in the store: {}", self.causes.of(stage.node).words()));
            self.differences(stage.node, &mut text);
        }
        text
    }

    /// What led to another id than at the last build.
    fn differences(&self, node: NodeIndex, text: &mut String) {
        let Some(comparison) = self.causes.comparison() else { return };
        for root in comparison.roots(node) {
            let depth = if root == node {
                2
            } else {
                let (pipeline, module) = render::node_name(&self.plan.graph, root);
                line(text, 2, &format!("{pipeline}: {module}: {}", cause_words(comparison.cause(root))));
                3
            };
            if let Cause::Changed { changes } = comparison.cause(root) {
                change_lines(changes).iter().for_each(|change| line(text, depth, change));
            }
        }
    }

    /// First causes and what follows from them, then all else that runs, then the count.
    fn summary(&self, all: &[Written]) -> String {
        let mut text = self.header();
        let runs = |node: NodeIndex| self.plan.decision(node).action == osbc_ir::Action::Run;
        if let Some(comparison) = self.causes.comparison() {
            for first in comparison.first_causes(runs) {
                let (pipeline, module) = render::node_name(&self.plan.graph, first.stages[0]);
                let name = match first.stages.len() {
                    1 => module.to_owned(),
                    several => format!("{} from {module} on", render::count(several, "stage")),
                };
                let cause = comparison.cause(first.stages[0]);
                let follow = match first.follow {
                    0 => String::new(),
                    1 => "; 1 stage follows".to_owned(),
                    several => format!("; {several} stages follow"),
                };
                line(&mut text, 0, &format!("{}: {name}: {}{follow}", printable::line(pipeline), cause_words(cause)));
                if let Cause::Changed { changes } = cause {
                    change_lines(changes).iter().for_each(|change| line(&mut text, 1, change));
                }
            }
        }
        for cause in [RunCause::Evicted, RunCause::NotBuilt, RunCause::InPlace] {
            let mut names: Vec<String> = all
                .iter()
                .filter(|one| one.stage.action == WrittenAction::Run && self.causes.of(one.stage.node) == cause)
                .map(|one| format!("{}: {}", one.pipeline, one.stage.module))
                .collect();
            if names.is_empty() {
                continue;
            }
            let count = names.len();
            names.truncate(NAMED);
            let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
            line(&mut text, 0, &format!("{}: {}{more}", cause.words(), names.join(", ")));
        }
        let count = |action| all.iter().filter(|one| one.stage.action == action).count();
        let runs = count(WrittenAction::Run);
        let counted = format!(
            "{} to run, {} cached, {} shared, {} not needed",
            render::count(runs, "stage"),
            count(WrittenAction::Cached),
            count(WrittenAction::Shared),
            count(WrittenAction::Unneeded)
        );
        line(&mut text, 0, &format!("\n{counted}"));
        text
    }

    fn header(&self) -> String {
        match self.last {
            None => "the store has no earlier build of this manifest\n".to_owned(),
            Some(last) => {
                let header = &last.record.header;
                let how = match &header.end {
                    Some(end) if end.success => "succeeded",
                    Some(end) if end.interrupted => "was interrupted",
                    _ => "failed",
                };
                format!("compared with the build {}, which {how}\n\n", header.build)
            }
        }
    }

    fn json<'w>(&self, wanted: impl Iterator<Item = &'w Written>) -> Value {
        let stages: Vec<Value> = wanted
            .map(|one| {
                let Written { pipeline, stage, place: (_, position) } = one;
                let runs = stage.action == WrittenAction::Run;
                let mut document = json!({
                    "pipeline": pipeline,
                    "position": position,
                    "module": stage.module,
                    "id": stage.id,
                    "action": stage.action,
                    "reason": stage.reason,
                });
                if runs {
                    document["cause"] = json!(self.causes.of(stage.node));
                }
                document
            })
            .collect();
        let runs = |node: NodeIndex| self.plan.decision(node).action == osbc_ir::Action::Run;
        let firsts = self.causes.comparison().map(|comparison| {
            let firsts = comparison.first_causes(runs).into_iter();
            let documents = firsts.map(|first| {
                let names = first.stages.iter().map(|node| Stage::new(&self.plan.graph, *node)).collect::<Vec<_>>();
                json!({"stages": names, "cause": comparison.cause(first.stages[0]), "follow": first.follow})
            });
            documents.collect::<Vec<_>>()
        });
        json!({
            "compared_with": self.last.map(|last| &last.record.header.build),
            "first_causes": firsts.unwrap_or_default(),
            "stages": stages,
        })
    }
}

fn line(text: &mut String, depth: usize, line: &str) {
    writeln!(text, "{:indent$}{line}", "", indent = 2 * depth).expect("a string grows");
}
