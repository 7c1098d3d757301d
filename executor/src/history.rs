//! How long stages took, in `<store>/history.jsonl`: a line for each that ran, the newest last. Many processes append
//! at the same time, each a whole line by one write; a line that cannot be read is passed over.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use osbc_ir::StageId;
use serde::{Deserialize, Serialize};

use crate::appended;

/// From this size on the older half is forgotten.
const LIMIT: u64 = 8 << 20;

/// One stage that ran.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The stage.
    pub(crate) id: StageId,
    /// Its module.
    pub(crate) module: String,
    /// How long it took, in milliseconds.
    pub(crate) ms: u64,
}

/// How long stages took.
#[derive(Debug, Default)]
pub struct Durations {
    by_id: HashMap<StageId, Duration>,
    by_module: HashMap<String, Duration>,
}

impl Durations {
    /// How long a stage takes: as it did the last time or, for one that never ran here, the median of its module.
    pub fn of(&self, id: StageId, module: &str) -> Option<Duration> {
        self.by_id.get(&id).or_else(|| self.by_module.get(module)).copied()
    }

    /// Reads a history; an absent one is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut by_id = HashMap::new();
        let mut all: HashMap<String, Vec<Duration>> = HashMap::new();
        for line in BufReader::new(file).split(b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else { continue };
            let duration = Duration::from_millis(line.ms);
            by_id.insert(line.id, duration);
            all.entry(line.module).or_default().push(duration);
        }
        let by_module = all.into_iter().map(|(module, mut durations)| {
            let middle = durations.len() / 2;
            (module, *durations.select_nth_unstable(middle).1)
        });
        Ok(Self { by_id, by_module: by_module.collect() })
    }
}

/// Adds lines to a history.
pub(crate) fn append(path: &Path, lines: &[Line]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    appended::append(path, &text, LIMIT)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn id(byte: u8) -> StageId {
        StageId::from_bytes([byte; 32])
    }

    fn line(byte: u8, module: &str, ms: u64) -> Line {
        Line { id: id(byte), module: module.to_owned(), ms }
    }

    #[test]
    fn the_last_time_counts_then_the_module_s_median() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("history.jsonl");
        assert_eq!(Durations::read(&path).expect("reads").of(id(1), "a"), None);
        append(&path, &[line(1, "a", 500), line(2, "a", 20)]).expect("appends");
        append(&path, &[line(1, "a", 10), line(3, "b", 7)]).expect("appends");
        OpenOptions::new().append(true).open(&path).expect("opens").write_all(b"{\"id\":").expect("writes");
        let durations = Durations::read(&path).expect("reads");
        assert_eq!(durations.of(id(1), "a"), Some(Duration::from_millis(10)));
        assert_eq!(durations.of(id(9), "a"), Some(Duration::from_millis(20)));
        assert_eq!(durations.of(id(9), "c"), None);
    }

    #[test]
    fn a_long_history_forgets_its_older_half() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("history.jsonl");
        let module = "m".repeat(1000);
        let lines: Vec<Line> = (0..10_000).map(|ms| line(1, &module, ms)).collect();
        append(&path, &lines).expect("appends");
        let size = std::fs::metadata(&path).expect("is there").len();
        assert!(size > LIMIT / 4 && size < LIMIT, "{size}");
        let durations = Durations::read(&path).expect("reads");
        assert_eq!(durations.of(id(1), ""), Some(Duration::from_millis(9_999)));
    }
}
