//! osbuild's `LogMonitor`: what every module gets and what it writes, as text.
//!
//! Of stages that run in parallel, the one that began first is shown live; the output of the others waits until it has
//! ended, so that the output of two stages is never mixed.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::io::{Read as _, Seek as _, Write as _};

use jiff::{Timestamp, tz::TimeZone};
use osbc_ir::{StageResult, printable};
use osbc_pytext::json::to_string_indented;
use tempfile::SpooledTempFile;

use super::{Display, MonitoredBuild, Out};
use crate::dropin::serial_schedule::StageRun;
use crate::dropin::sources::SourceReport;

/// How much of a text waits in memory; more of it waits in a file.
const IN_MEMORY: usize = 1 << 20;

const BOLD: &str = "\u{1b}[0m\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// Writes the log.
pub(super) struct Log {
    out: Out,
    /// What has begun and is not all written yet. The first one is written as it comes.
    waiting: VecDeque<Block>,
    /// The pipelines whose head was written.
    headed: HashSet<usize>,
    /// Whose head was written last.
    current: Option<usize>,
}

/// What is written in one piece.
struct Block {
    of: Of,
    text: SpooledTempFile,
    is_over: bool,
}

/// What a block is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Source(usize),
    Stage {
        run: usize,
        position: usize,
    },
    /// A pipeline without stages to show.
    Empty {
        run: usize,
    },
}

impl Of {
    fn run(self) -> Option<usize> {
        match self {
            Of::Source(_) => None,
            Of::Stage { run, .. } | Of::Empty { run } => Some(run),
        }
    }
}

impl Log {
    pub(super) fn new(out: Out) -> Self {
        Self { out, waiting: VecDeque::new(), headed: HashSet::new(), current: None }
    }

    fn open(&mut self, monitored: &MonitoredBuild, of: Of, text: &str) {
        self.waiting.push_back(Block { of, text: SpooledTempFile::new(IN_MEMORY), is_over: false });
        if self.waiting.len() == 1 {
            self.head(monitored, of);
        }
        self.add(of, text);
    }

    fn add(&mut self, of: Of, text: &str) {
        let Some(position) = self.waiting.iter().position(|block| block.of == of) else { return };
        if position == 0 {
            self.out.write(text);
        } else {
            // Without room for it, part of the log is lost; the build need not be.
            self.waiting[position].text.write_all(text.as_bytes()).ok();
        }
    }

    /// Ends a block, and writes what has waited for its end.
    fn close(&mut self, monitored: &MonitoredBuild, of: Of) {
        if let Some(block) = self.waiting.iter_mut().find(|block| block.of == of) {
            block.is_over = true;
        }
        while self.waiting.front().is_some_and(|first| first.is_over) {
            self.waiting.pop_front();
            self.show_first(monitored);
        }
    }

    /// Writes what has waited of the block that is now the first.
    fn show_first(&mut self, monitored: &MonitoredBuild) {
        let Some(first) = self.waiting.front_mut() else { return };
        let mut text = Vec::new();
        first.text.rewind().and_then(|()| first.text.read_to_end(&mut text)).ok();
        let of = first.of;
        self.head(monitored, of);
        self.out.write(&String::from_utf8_lossy(&text));
    }

    /// Writes which pipeline comes, where it is another one than before.
    fn head(&mut self, monitored: &MonitoredBuild, of: Of) {
        let Some(run) = of.run() else {
            self.current = None;
            return;
        };
        if self.current == Some(run) {
            return;
        }
        self.current = Some(run);
        let pipeline = monitored.pipeline(run);
        let id = monitored.schedule.runs[run].id.map_or_else(|| "None".to_owned(), |id| id.to_string());
        let mut head = self.bold(&format!("Pipeline {}: {id}", self.fit(&pipeline.name))) + "\n";
        if self.headed.insert(run) {
            let build = pipeline.build.and_then(|build| monitored.ids().id(build));
            let build = build.map_or_else(|| "<host>".to_owned(), |id| id.to_string());
            let runner = monitored.written.manifest.runner_of(pipeline, &monitored.host);
            head += &format!("Build\n  root: {build}\n  runner: {} ({})", runner.name, runner.exec);
            if monitored.in_vm.contains(&monitored.schedule.runs[run].pipeline) {
                head += " in vm";
            }
            if let Some(epoch) = pipeline.source_epoch {
                head += &format!("\n  source-epoch: {} [{epoch}]", date(epoch));
            }
            head += "\n";
        }
        self.out.write(&head);
    }

    /// What a module wrote, as a terminal may have it; to anybody else it goes as it is.
    fn fit<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match (self.out.is_terminal, text.contains('\r')) {
            (false, _) => Cow::Borrowed(text),
            (true, false) => printable::text(text),
            (true, true) => Cow::Owned(printable::text(&text.replace("\r\n", "\n").replace('\r', "\n")).into_owned()),
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.out.is_terminal { format!("{BOLD}{text}{PLAIN}") } else { text.to_owned() }
    }
}

impl Display for Log {
    fn say(&mut self, _: &MonitoredBuild, text: &str) {
        self.out.write(text);
    }

    fn begin_source(&mut self, monitored: &MonitoredBuild, source: usize) {
        let name = &monitored.written.manifest.sources[source].module.name;
        let title = self.bold(&format!("Pipeline source {name}: {}", monitored.source_id(source)));
        self.open(monitored, Of::Source(source), &format!("{title}\nBuild\n  root: <host>\n"));
    }

    fn source_output(&mut self, _: &MonitoredBuild, source: usize, text: &str) {
        self.add(Of::Source(source), &self.fit(text));
    }

    fn finish_source(&mut self, monitored: &MonitoredBuild, source: usize, _: &SourceReport) {
        self.close(monitored, Of::Source(source));
    }

    fn begin(&mut self, monitored: &MonitoredBuild, run: usize) {
        if monitored.schedule.runs[run].stages.is_empty() {
            self.open(monitored, Of::Empty { run }, "");
        }
    }

    fn stage(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun) {
        let title = self.bold(&format!("{}: {}", monitored.module(run, stage), stage.id));
        let options =
            monitored.options(run, stage).map_or_else(|| "{}".to_owned(), |options| to_string_indented(&options, 2));
        self.open(monitored, Of::Stage { run, position: stage.position }, &format!("{title} {options}\n"));
    }

    fn output(&mut self, _: &MonitoredBuild, run: usize, stage: &StageRun, text: &str) {
        self.add(Of::Stage { run, position: stage.position }, &self.fit(text));
    }

    fn result(&mut self, monitored: &MonitoredBuild, run: usize, stage: &StageRun, result: &StageResult) {
        let of = Of::Stage { run, position: stage.position };
        self.add(of, &format!("\n⏱  Duration: {:.2}s\n", result.duration.as_secs_f64()));
        self.close(monitored, of);
    }

    fn finish(&mut self, monitored: &MonitoredBuild, run: usize) {
        self.close(monitored, Of::Empty { run });
    }
}

/// A moment in the local time, as `strftime` writes it for `%c`.
fn date(epoch: i64) -> String {
    let moment = Timestamp::from_second(epoch).map(|moment| moment.to_zoned_datetime(TimeZone::system()));
    moment.map_or_else(|_| epoch.to_string(), |moment| moment.strftime("%a %b %e %H:%M:%S %Y").to_string())
}
