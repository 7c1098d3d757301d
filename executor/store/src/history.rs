//! How long stages took, how much memory and how much of the store, in `<store>/history.jsonl`: a line for each that
//! ran, the newest last.
//!
//! Many processes append at the same time, each a whole line by one write; a line that cannot be read is passed over.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use osbc_ir::StageId;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::fs::{regular, rotating_file};

/// From this size on the older half is forgotten.
const LIMIT: u64 = 8 << 20;

/// One stage that ran.
#[derive(Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The stage.
    pub id: StageId,
    /// Its module.
    pub module: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The bytes that it read, as far as known: those of the source items among its inputs.
    #[serde(default)]
    pub size: u64,
    /// The most memory that one of its processes had, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// What its result takes in the store; `None` if it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What is known of stages that ran.
#[derive(Debug, Default)]
pub struct History {
    by_id: HashMap<StageId, Known>,
    by_module: HashMap<String, ByModule>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    duration: Duration,
    memory: u64,
    bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct ByModule {
    median: Duration,
    /// The medians of those that read about as much ([`class`]).
    by_size: HashMap<u32, Duration>,
    most_memory: u64,
    /// The median of what results take.
    bytes: Option<u64>,
}

impl History {
    /// How long a stage takes: as it did the last time or, for one that never ran here, the median of its module over
    /// those that read about as many bytes as `size` says, else over all.
    pub fn duration(&self, id: StageId, module: &str, size: impl FnOnce() -> u64) -> Option<Duration> {
        let known = self.by_id.get(&id).map(|known| known.duration);
        known.or_else(|| {
            let module = self.by_module.get(module)?;
            Some(module.by_size.get(&class(size())).copied().unwrap_or(module.median))
        })
    }

    /// How much memory a stage takes, in bytes: as it did the last time, else the most that one of its module did;
    /// nothing where nothing is known.
    pub fn memory(&self, id: StageId, module: &str) -> u64 {
        let known = self.by_id.get(&id).map(|known| known.memory);
        known.or_else(|| Some(self.by_module.get(module)?.most_memory)).unwrap_or(0)
    }

    /// How much the result of a stage takes in the store: as it did the last time, else the median of its module.
    pub fn bytes(&self, id: StageId, module: &str) -> Option<u64> {
        let known = self.by_id.get(&id).and_then(|known| known.bytes);
        known.or_else(|| self.by_module.get(module)?.bytes)
    }

    /// Reads a history; an absent one is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let file = match regular::open(path, OFlags::RDONLY, regular::FOR_ALL) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut by_id = HashMap::new();
        let mut all: HashMap<String, Vec<HistoryLine>> = HashMap::new();
        for line in BufReader::new(file).split(b'\n') {
            let Ok(line) = serde_json::from_slice::<HistoryLine>(&line?) else { continue };
            by_id.insert(
                line.id,
                Known { duration: Duration::from_millis(line.ms), memory: line.memory, bytes: line.bytes },
            );
            all.entry(line.module.clone()).or_default().push(line);
        }
        let by_module = all.into_iter().map(|(module, lines)| (module, ByModule::of(&lines)));
        Ok(Self { by_id, by_module: by_module.collect() })
    }
}

impl ByModule {
    fn of(lines: &[HistoryLine]) -> Self {
        let mut by_size: HashMap<u32, Vec<u64>> = HashMap::new();
        for line in lines {
            by_size.entry(class(line.size)).or_default().push(line.ms);
        }
        Self {
            median: milliseconds(lines.iter().map(|line| line.ms).collect()),
            by_size: by_size.into_iter().map(|(class, times)| (class, milliseconds(times))).collect(),
            bytes: median(lines.iter().filter_map(|line| line.bytes).collect()),
            most_memory: lines.iter().map(|line| line.memory).max().unwrap_or(0),
        }
    }
}

/// Sizes within a factor of four are alike.
fn class(size: u64) -> u32 {
    (u64::BITS - size.leading_zeros()).div_ceil(2)
}

/// The median of some milliseconds.
fn milliseconds(times: Vec<u64>) -> Duration {
    Duration::from_millis(median(times).unwrap_or(0))
}

/// The one in the middle.
fn median(mut numbers: Vec<u64>) -> Option<u64> {
    let middle = numbers.len() / 2;
    (!numbers.is_empty()).then(|| *numbers.select_nth_unstable(middle).1)
}

/// Adds lines to a history.
pub(crate) fn append(path: &Path, lines: &[HistoryLine]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    rotating_file::append(path, &text, LIMIT)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn id(byte: u8) -> StageId {
        StageId::from_bytes([byte; 32])
    }

    fn line(byte: u8, module: &str, ms: u64) -> HistoryLine {
        HistoryLine { id: id(byte), module: module.to_owned(), ms, size: 0, memory: 0, bytes: None }
    }

    #[test]
    fn the_last_time_counts_then_the_module_s_median() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("history.jsonl");
        assert_eq!(History::read(&path).expect("reads").duration(id(1), "a", || 0), None);
        append(&path, &[line(1, "a", 500), line(2, "a", 20)]).expect("appends");
        append(&path, &[line(1, "a", 10), line(3, "b", 7)]).expect("appends");
        OpenOptions::new().append(true).open(&path).expect("opens").write_all(b"{\"id\":").expect("writes");
        let history = History::read(&path).expect("reads");
        let of = |byte, module| history.duration(id(byte), module, || 0);
        assert_eq!(of(1, "a"), Some(Duration::from_millis(10)));
        assert_eq!(of(9, "a"), Some(Duration::from_millis(20)));
        assert_eq!(of(9, "c"), None);
    }

    #[test]
    fn what_a_result_takes_is_known_likewise() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("history.jsonl");
        let took = |byte: u8, bytes: u64| HistoryLine { bytes: Some(bytes), ..line(byte, "a", 1) };
        append(&path, &[took(1, 10), took(2, 1000), took(3, 50), line(4, "b", 1)]).expect("appends");
        let history = History::read(&path).expect("reads");
        assert_eq!((history.bytes(id(2), "a"), history.bytes(id(9), "a")), (Some(1000), Some(50)));
        assert_eq!(history.bytes(id(4), "b"), None, "it was not kept");
    }

    #[test]
    fn those_that_read_about_as_much_count_before_all_others() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("history.jsonl");
        let line = |byte, size, ms, memory| HistoryLine { size, memory, ..line(byte, "a", ms) };
        append(&path, &[line(1, 0, 1, 7), line(2, 0, 1, 9), line(3, 5000, 80, 0), line(4, 0, 1, 3)]).expect("appends");
        let history = History::read(&path).expect("reads");
        let ms = |size| history.duration(id(9), "a", || size).map(|duration| duration.as_millis());
        assert_eq!((ms(0), ms(6000), ms(1 << 40)), (Some(1), Some(80), Some(1)));
        assert_eq!((history.memory(id(4), "a"), history.memory(id(9), "a"), history.memory(id(9), "b")), (3, 9, 0));
    }

    #[test]
    fn a_long_history_forgets_its_older_half() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("history.jsonl");
        let module = "m".repeat(1000);
        let lines: Vec<HistoryLine> = (0..10_000).map(|ms| line(1, &module, ms)).collect();
        append(&path, &lines).expect("appends");
        let size = std::fs::metadata(&path).expect("is there").len();
        assert!(size > LIMIT / 4 && size < LIMIT, "{size}");
        let history = History::read(&path).expect("reads");
        assert_eq!(history.duration(id(1), "", || 0), Some(Duration::from_millis(9_999)));
    }
}
