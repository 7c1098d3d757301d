//! What is kept of the last builds beside their stages' logs, to be listed, reported on and compared with:
//!
//! ```text
//! <store>/logs/<build>/build.json      the header: which manifest, what was asked for, how it ended
//! <store>/logs/<build>/graph.json      the graph without secrets of URLs; a hard link where an earlier build has it too
//! <store>/logs/<build>/events.jsonl    what happened, without output (crate::event::line)
//! <store>/logs/<build>/NNN-….log       the output of each stage that ran (crate::log)
//! ```
//!
//! Command lines, options and output may hold what not everybody may read, as trees do: all files are their owner's
//! alone. Who builds holds a lock on the directory until the end, so a build that runs differs from one that died. A
//! build whose record cannot be written is as good without; a record that cannot be read is passed over.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use osbc_ir::{Graph, NodeOutcome, Outcome, Plan, redact};
use osbc_store::Store;
use osbc_store::fs::{lock, regular};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::event::line::{self, EventLine, JsonLines, micros, micros_since_1970};
use crate::event::writer::Writer;
use crate::event::{Event, Monitor};

/// How many builds are kept of those that did something, and of those that had nothing to do.
const KEPT: usize = 20;
/// The version of [`Header`] and of what lies beside it.
const VERSION: u32 = 3;

const HEADER: &str = "build.json";
const GRAPH: &str = "graph.json";
const EVENTS: &str = "events.jsonl";

/// How a manifest is recognised from one build to the next: a file by its place, whatever it says now; what came
/// through a pipe by the names of its pipelines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestName {
    /// The file, absolute and without links, or `-`.
    pub path: String,
    /// For `-`: a digest of the pipelines' names.
    pub pipelines: Option<String>,
}

impl ManifestName {
    /// The name of the manifest that was read from `path` and became `graph`.
    pub fn new(path: &Path, graph: &Graph) -> Self {
        let file = path.canonicalize().ok().filter(|path| path.is_file());
        match file {
            Some(file) => Self { path: file.to_string_lossy().into_owned(), pipelines: None },
            None => {
                let mut digest = blake3::Hasher::new();
                for pipeline in &graph.manifest.pipelines {
                    digest.update(pipeline.name.as_bytes()).update(&[0]);
                }
                Self { path: "-".to_owned(), pipelines: Some(digest.finalize().to_hex().to_string()) }
            }
        }
    }
}

/// What a build says about itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The manifest.
    pub manifest: ManifestName,
    /// The command line, program first.
    pub arguments: Vec<String>,
}

/// The header of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of this header.
    version: u32,
    /// The build's name, which is that of its directory; names sort by time.
    pub build: String,
    /// The manifest.
    pub manifest: ManifestName,
    /// What was asked for, as the user named it.
    pub exports: Vec<String>,
    /// The command line, program first.
    pub arguments: Vec<String>,
    /// The version of the osbc that built.
    pub osbc: String,
    /// Microseconds since 1970 at the start.
    pub started: u64,
    /// Equal for equal graphs.
    graph: String,
    /// The hash of the file with the graph; none of a record that was written before there was one.
    #[serde(default)]
    graph_file: Option<String>,
    /// Whether there was nothing to do.
    pub idle: bool,
    /// How it ended; none while it runs, and for one that died.
    pub end: Option<End>,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether all that was wanted was done.
    pub success: bool,
    /// Whether the user ended it.
    pub interrupted: bool,
    /// From start to end, in microseconds.
    pub duration: u64,
    /// How many stages ran well.
    pub ran: usize,
    /// How many stages or fetches failed.
    pub failed: usize,
    /// How many results and items were used from the store.
    pub cached: usize,
    /// How many items were fetched.
    pub fetched: usize,
}

impl End {
    fn new(outcome: &Outcome, duration: Duration) -> Self {
        let count = |wanted: fn(&NodeOutcome) -> bool| outcome.nodes.values().filter(|node| wanted(node)).count();
        Self {
            success: outcome.success(),
            interrupted: outcome.interrupted,
            duration: micros(duration),
            ran: count(|node| matches!(node, NodeOutcome::Ran(result) if result.success)),
            failed: count(NodeOutcome::is_failure),
            cached: count(|node| matches!(node, NodeOutcome::Cached { .. } | NodeOutcome::Equal { .. })),
            fetched: count(|node| matches!(node, NodeOutcome::Fetched { .. })),
        }
    }
}

/// The record of a build that is kept.
#[derive(Debug, Clone)]
pub struct BuildRecord {
    /// Where it lies. Others may keep files of their own there.
    pub directory: PathBuf,
    /// Its header.
    pub header: Header,
}

impl BuildRecord {
    /// The records of a store, the newest first.
    ///
    /// # Errors
    /// The directory of all records cannot be read.
    pub fn all(store: &Store) -> io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(store.logs()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut records: Vec<Self> = entries.filter_map(|entry| Self::read(entry.ok()?.path())).collect();
        records.sort_by(|one, other| {
            (other.header.started, &other.header.build).cmp(&(one.header.started, &one.header.build))
        });
        Ok(records)
    }

    /// The last build of a manifest that has ended, however it did.
    ///
    /// # Errors
    /// The directory of all records cannot be read.
    pub fn last_of(store: &Store, manifest: &ManifestName) -> io::Result<Option<Self>> {
        let all = Self::all(store)?;
        Ok(all.into_iter().find(|record| record.header.manifest == *manifest && record.header.end.is_some()))
    }

    /// The graph that was built, URLs in it as [`redact::graph`] shows them. Its ids are those of then.
    ///
    /// # Errors
    /// It cannot be read: who may not read the trees may not read this either.
    pub fn graph(&self) -> io::Result<Graph> {
        Ok(serde_json::from_slice(&regular::read(&self.directory.join(GRAPH))?)?)
    }

    /// Whether the file with the graph is as it was written.
    fn has_its_graph(&self) -> bool {
        let file = regular::read(&self.directory.join(GRAPH)).ok().map(|text| hash(&text));
        file.is_some() && file == self.header.graph_file
    }

    /// What happened, without the stages' output.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn events(&self) -> io::Result<Vec<EventLine>> {
        line::read(BufReader::new(regular::open(&self.directory.join(EVENTS), OFlags::RDONLY, regular::PRIVATE)?))
    }

    /// Whether the build still runs.
    pub fn is_running(&self) -> bool {
        self.header.end.is_none() && lock::own_existing(&self.directory).is_ok_and(|owned| owned.is_none())
    }

    fn read(directory: PathBuf) -> Option<Self> {
        let header: Header = serde_json::from_slice(&regular::read(&directory.join(HEADER)).ok()?).ok()?;
        let whole = header.version == VERSION && Path::new(&header.build) == directory.file_name()?;
        whole.then_some(Self { directory, header })
    }
}

/// The record of a build that goes on: a monitor of it.
pub(crate) struct Recording<'a> {
    header: Header,
    open: Option<Open<'a>>,
}

struct Open<'a> {
    directory: PathBuf,
    /// Holds the lock on the directory.
    _owner: OwnedFd,
    lines: Writer<&'a Plan, File, JsonLines>,
}

impl<'a> Recording<'a> {
    /// Begins the record of a build by this plan, and forgets the oldest ones.
    pub(crate) fn begin(store: &Store, plan: &'a Plan, about: &About) -> Self {
        let now = SystemTime::now();
        let mut unique = uuid::Uuid::new_v4().simple().to_string();
        unique.truncate(6);
        let mut header = Header {
            version: VERSION,
            build: format!("{}-{unique}", timestamp(now)),
            manifest: about.manifest.clone(),
            exports: plan.exports.iter().map(|export| export.name.clone()).collect(),
            arguments: about.arguments.iter().map(|argument| redact::text(argument).into_owned()).collect(),
            osbc: env!("CARGO_PKG_VERSION").to_owned(),
            started: micros_since_1970(now),
            graph: digest(&plan.graph),
            graph_file: None,
            idle: plan.is_empty(),
            end: None,
        };
        let open = Self::open(store, plan, &mut header).ok().flatten();
        Self { header, open }
    }

    /// The directory of the build's logs; `None` if it could not be made.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| open.directory.as_path())
    }

    fn open(store: &Store, plan: &'a Plan, header: &mut Header) -> io::Result<Option<Open<'a>>> {
        let before = BuildRecord::all(store)?;
        let directory = store.logs().join(&header.build);
        std::fs::create_dir(&directory)?;
        let Some(owner) = lock::own_existing(&directory)? else { return Ok(None) };
        let graph = directory.join(GRAPH);
        let mut same = before.iter().filter(|record| record.header.graph == header.graph && record.has_its_graph());
        let linked = same.find(|same| std::fs::hard_link(same.directory.join(GRAPH), &graph).is_ok());
        header.graph_file = match linked {
            Some(same) => same.header.graph_file.clone(),
            None => {
                let text = serde_json::to_vec(&*redact::graph(&plan.graph))?;
                create(&graph)?.write_all(&text)?;
                Some(hash(&text))
            }
        };
        write_header(&directory, header)?;
        let lines = Writer::new(plan, create(&directory.join(EVENTS))?, JsonLines);
        forget_old(&store.logs());
        Ok(Some(Open { directory, _owner: owner, lines }))
    }
}

impl Monitor for Recording<'_> {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        let Some(open) = &mut self.open else { return };
        match event {
            // The first is in the logs, the second of use only while it goes on.
            Event::StageOutput { .. } | Event::FetchProgress { .. } => {}
            event => open.lines.event(at, event),
        }
        if let Event::Ended { outcome, duration } = event {
            self.header.end = Some(End::new(outcome, *duration));
            write_header(&open.directory, &self.header).ok();
        }
    }
}

fn write_header(directory: &Path, header: &Header) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".build-").tempfile_in(directory)?;
    file.write_all(format!("{}\n", serde_json::to_string_pretty(header)?).as_bytes())?;
    file.persist(directory.join(HEADER))?;
    Ok(())
}

/// Makes a new file of a record.
fn create(path: &Path) -> io::Result<File> {
    regular::open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, regular::PRIVATE)
}

fn hash(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

/// Distinguishes graphs by their ids, and by the names that those do not cover.
fn digest(graph: &Graph) -> String {
    let mut digest = blake3::Hasher::new();
    for (pipeline, nodes) in graph.manifest.pipelines.iter().zip(&graph.pipelines) {
        digest.update(pipeline.name.as_bytes()).update(&[0]);
        for stage in nodes.stages.iter().filter_map(|node| graph.stage_node(*node)) {
            digest.update(stage.id.as_bytes());
        }
    }
    for item in graph.dag.node_indices().filter_map(|node| graph.item_node(node)) {
        digest.update(item.id.as_bytes());
    }
    digest.finalize().to_hex().to_string()
}

/// Removes the oldest builds that nobody works on any more.
fn forget_old(all: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    let mut builds: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    builds.sort();
    let is_idle = |directory: &PathBuf| BuildRecord::read(directory.clone()).is_some_and(|record| record.header.idle);
    let (idle, busy): (Vec<_>, Vec<_>) = builds.into_iter().partition(is_idle);
    for builds in [idle, busy] {
        for build in &builds[..builds.len().saturating_sub(KEPT)] {
            // Another process may be at it too.
            if let Ok(Some(_owner)) = lock::own_existing(build) {
                std::fs::remove_dir_all(build).ok();
            }
        }
    }
}

/// Returns a moment as `20260131T235959Z`.
fn timestamp(moment: SystemTime) -> String {
    Timestamp::try_from(moment).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests;
