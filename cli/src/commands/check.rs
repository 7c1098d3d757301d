//! `osbc build --check`: builds twice, in different environments, and shows what differs.
//!
//! | | first | second |
//! |---|---|---|
//! | time | now | later, in another second of every clock that counts in twos |
//! | store | a new one | another new one, at a longer path |
//! | order of entries | the file system's | another one: half of each directory's files come before all others |
//! | stages at a time | `--jobs` | one |
//! | host name | the machine's | `osbc-check` |
//!
//! The source items are fetched once. As everywhere in osbc, modification times of the build itself do not count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use osbc_engine::{BuildOptions, Built, StoreConfig};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{Plan, StageId, printable};
use osbc_sandbox::interrupt::Interrupt;
use osbc_store::fs::overlay;
use osbc_store::fs::temporary;
use osbc_store::fs::temporary::OwnedDirectory;
use osbc_store::tree_diff::{Differing, Tree, differ};
use osbc_store::{Layers, Store};
use serde_json::{Value, json};

use crate::args::BuildArgs;
use crate::causes::Stage;
use crate::exit::{self, Failure};
use crate::output::{print, show};
use crate::signals::listen;
use crate::summary::Summary;
use crate::wiring::Prepared;
use crate::{monitor, render, warnings, wiring};

/// The least time between the starts of the two builds: archives like zip have times in steps of two seconds.
const APART: Duration = Duration::from_millis(2100);
/// How many differing entries of a pipeline are shown; JSON has all.
const SHOWN: usize = 20;

/// Checks.
pub(crate) fn run(args: &BuildArgs, prepared: &Prepared) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::new().map_err(Failure::environment)?;
    listen(&interrupt)?;
    let place = place(&wiring::store_path(args.target.store.as_deref())?)?;
    let store = |path: PathBuf, layers: Layers| StoreConfig::Own { path, settings: layers.into() };
    let first = store(place.path().join("1"), Layers::default());
    let first = Build::run(args, prepared, &interrupt, first, args.jobs)?;
    if !first.built.outcome.success() {
        return first.failed();
    }
    let second = place.path().join("2/at-another-and-longer/path");
    share_items(first.built.lease().store(), &second)?;
    std::thread::sleep(APART.saturating_sub(first.began.elapsed().unwrap_or_default()));
    let _surroundings = OtherHost::enter()?;
    let second = store(second, Layers::Shuffled);
    let second = Build::run(args, prepared, &interrupt, second, Some(NonZeroUsize::MIN))?;
    if !second.built.outcome.success() {
        return second.failed();
    }
    let comparison = Comparison::new(&first, &second)?;
    if args.json {
        print(format!("{:#}\n", comparison.json()).as_bytes())?;
    } else {
        print(comparison.text().as_bytes())?;
    }
    Ok(if comparison.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(exit::BUILD_FAILED) })
}

/// A directory for the two stores beside the usual one, which lies on a file system that can be built on.
fn place(store: &Path) -> Result<OwnedDirectory, Failure> {
    let store = std::path::absolute(store).map_err(Failure::environment)?;
    let parent = store.parent().unwrap_or(Path::new("/"));
    let made = std::fs::create_dir_all(parent).and_then(|()| OwnedDirectory::new(parent, temporary::CHECK));
    made.map_err(|source| Failure::Output { path: parent.to_owned(), source })
}

/// Lets the second store have the items that the first one fetched.
fn share_items(first: &Store, second: &Path) -> Result<(), Failure> {
    let sources = second.join("sources");
    let shared = std::fs::create_dir_all(second)
        .and_then(|()| Store::open(second, Layers::Shuffled).map_err(std::io::Error::other).map(drop))
        .and_then(|()| std::fs::remove_dir(&sources))
        .and_then(|()| std::os::unix::fs::symlink(first.path().join("sources"), &sources));
    shared.map_err(|source| Failure::Output { path: sources, source })
}

/// Another host name for this thread and those that it starts.
struct OtherHost;

impl OtherHost {
    fn enter() -> Result<Self, Failure> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS)
            .and_then(|()| nix::unistd::sethostname("osbc-check"))
            .map_err(|error| Failure::environment(format!("cannot take another host name: {error}")))?;
        Ok(Self)
    }
}

/// One of the two builds.
struct Build {
    built: Built,
    began: SystemTime,
}

impl Build {
    fn run(
        args: &BuildArgs,
        prepared: &Prepared,
        interrupt: &Interrupt,
        store: StoreConfig,
        jobs: Option<NonZeroUsize>,
    ) -> Result<Self, Failure> {
        let began = SystemTime::now();
        let planned = prepared.session.plan(&prepared.graph, &store, &prepared.request())?;
        warnings::of_plan(planned.warnings());
        planned.check_machine(&BTreeSet::new())?;
        let (mut monitor, _screen) = monitor::for_stderr(planned.plan());
        let options = BuildOptions {
            keep_going: args.keep_going,
            ..wiring::options(&args.manifest.manifest, jobs, args.stage_timeout)
        };
        let built = planned.run(&options, monitor.as_mut(), interrupt)?;
        Ok(Self { built, began })
    }

    /// What to say of a build that did not come to its end.
    fn failed(&self) -> Result<ExitCode, Failure> {
        show(&printable::text(&Summary::new(self.built.plan(), &self.built.outcome, &[]).failures()));
        Ok(ExitCode::from(exit::of_build(&self.built.outcome)))
    }

    fn began(&self) -> i64 {
        let since = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// What differs.
struct Comparison {
    /// How many pipelines were compared.
    compared: usize,
    pipelines: Vec<Different>,
    /// The stages whose results are different although what they work on is the same.
    culprits: Vec<Stage>,
}

struct Different {
    name: String,
    entries: Vec<Differing>,
}

impl Comparison {
    fn new(first: &Build, second: &Build) -> Result<Self, Failure> {
        let mut pipelines = Vec::new();
        for export in &first.built.plan().exports {
            let Some(id) = export.node.and_then(|node| id(first.built.plan(), node)) else { continue };
            let entries = compare(first, second, id)?.unwrap_or_default();
            if !entries.is_empty() {
                pipelines.push(Different { name: export.name.clone(), entries });
            }
        }
        let culprits = if pipelines.is_empty() { Vec::new() } else { culprits(first, second)? };
        Ok(Self { compared: first.built.plan().exports.len(), pipelines, culprits })
    }

    fn is_equal(&self) -> bool {
        self.pipelines.is_empty()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string grows");
        for Different { name, entries } in &self.pipelines {
            line(format!("{name}: {} different", render::count(entries.len(), "entry").replace("entrys", "entries")));
            for entry in entries.iter().take(SHOWN) {
                for difference in &entry.differences {
                    line(format!("  {}  {difference}", entry.path.display()));
                }
            }
            if entries.len() > SHOWN {
                line(format!("  and {} more; --json shows all", entries.len() - SHOWN));
            }
        }
        for Stage { pipeline, module, .. } in &self.culprits {
            line(format!("the first stage that differs: {pipeline}: {module}"));
        }
        line(match self.pipelines.len() {
            0 => format!("{} built twice: all equal", render::count(self.compared, "pipeline")),
            several => format!("\n{} built twice: {several} different", render::count(self.compared, "pipeline")),
        });
        text
    }

    fn json(&self) -> Value {
        let pipelines: Vec<Value> =
            self.pipelines.iter().map(|one| json!({"name": one.name, "entries": one.entries})).collect();
        json!({
            "equal": self.is_equal(),
            "compared": self.compared,
            "different": pipelines,
            "begins_with": self.culprits,
        })
    }
}

/// The stages whose results differ although those of all that they work on do not.
fn culprits(first: &Build, second: &Build) -> Result<Vec<Stage>, Failure> {
    let graph = &first.built.plan().graph;
    let mut differs = vec![false; graph.dag.node_count()];
    let mut culprits = Vec::new();
    for node in graph.dag.node_indices() {
        let inherited = graph.needs(node).any(|(need, _)| differs[need.index()]);
        differs[node.index()] = inherited;
        let Some(id) = id(first.built.plan(), node).filter(|_| !inherited) else { continue };
        if compare(first, second, id)?.is_some_and(|entries| !entries.is_empty()) {
            differs[node.index()] = true;
            culprits.push(Stage::new(graph, node));
        }
    }
    Ok(culprits)
}

/// Returns what differs in a result; `None` if it was not kept because the next stage continued in its tree.
fn compare(first: &Build, second: &Build, id: StageId) -> Result<Option<Vec<Differing>>, Failure> {
    let open = |build: &Build| {
        let stack = build.built.lease().tree(id).map_err(Failure::environment)?;
        stack.map(|stack| overlay::open(&stack)).transpose().map_err(Failure::environment)
    };
    let (Some(one), Some(other)) = (open(first)?, open(second)?) else { return Ok(None) };
    let one = Tree { root: one.as_fd(), began: first.began() };
    let other = Tree { root: other.as_fd(), began: second.began() };
    differ(one, other).map(Some).map_err(Failure::environment)
}

fn id(plan: &Plan, node: NodeIndex) -> Option<StageId> {
    plan.graph.stage_node(node).map(|stage| stage.id)
}
