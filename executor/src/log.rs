//! The output of every stage that ran, as files: `<store>/logs/<build>/<NNN>-<pipeline>-<module>.log`, for the last
//! builds. Knows names and bytes; nothing of what a build is.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The logs of how many builds are kept.
const KEPT: usize = 20;

/// The logs of one build. Their folder is made with the first of them.
#[derive(Debug)]
pub(crate) struct BuildLogs {
    all: PathBuf,
    folder: OnceLock<Option<PathBuf>>,
    next: AtomicUsize,
}

/// The log of one stage.
#[derive(Debug)]
pub(crate) struct StageLog {
    file: Option<(File, PathBuf)>,
}

impl BuildLogs {
    /// Logs below the folder of all logs, under the name of the moment.
    pub(crate) fn new(all: PathBuf) -> Self {
        Self { all, folder: OnceLock::new(), next: AtomicUsize::new(1) }
    }

    /// Begins the log of a stage. Where it cannot be written the stage runs all the same, and has none.
    pub(crate) fn stage(&self, pipeline: &str, module: &str) -> StageLog {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(folder) = self.folder.get_or_init(|| self.make_folder()) else { return StageLog { file: None } };
        let module = module.strip_prefix("org.osbuild.").unwrap_or(module);
        let path = folder.join(format!("{number:03}-{}-{}.log", plain(pipeline), plain(module)));
        StageLog { file: File::create(&path).ok().map(|file| (file, path)) }
    }

    fn make_folder(&self) -> Option<PathBuf> {
        let mut unique = uuid::Uuid::new_v4().simple().to_string();
        unique.truncate(6);
        let folder = self.all.join(format!("{}-{unique}", timestamp(SystemTime::now())));
        std::fs::create_dir(&folder).ok()?;
        self.forget_old();
        Some(folder)
    }

    /// Removes the oldest builds' logs; their names sort by time.
    fn forget_old(&self) {
        let Ok(entries) = std::fs::read_dir(&self.all) else { return };
        let mut builds: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        builds.sort();
        for build in &builds[..builds.len().saturating_sub(KEPT)] {
            // Another process may be at it too.
            std::fs::remove_dir_all(build).ok();
        }
    }
}

impl StageLog {
    /// Adds what the stage wrote. A log that cannot be gone on with is given up.
    pub(crate) fn write(&mut self, text: &str) {
        if let Some((file, path)) = &mut self.file
            && file.write_all(text.as_bytes()).is_err()
        {
            std::fs::remove_file(path).ok();
            self.file = None;
        }
    }

    /// Where the log lies, if it is whole.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(_, path)| path.as_path())
    }
}

/// A name as a part of a file's name.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().take(60).map(plain).collect()
}

/// A moment as `20260131T235959Z`.
fn timestamp(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years: Howard Hinnant, "chrono-compatible low-level date
    // algorithms".
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_dates() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_102_444_800, "21000101T000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_logs_of_the_last_builds_are_kept() {
        let all = tempfile::tempdir().expect("a temporary folder");
        for index in 0..25 {
            std::fs::create_dir(all.path().join(format!("19700101T0000{index:02}Z-abcdef"))).expect("makes");
        }
        let logs = BuildLogs::new(all.path().to_owned());
        let mut log = logs.stage("my os/x", "org.osbuild.mkfs.ext4");
        log.write("hello ");
        log.write("world\n");
        let path = log.path().expect("is written").to_owned();
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("001-my_os_x-mkfs.ext4.log"));
        assert_eq!(std::fs::read_to_string(path).expect("reads"), "hello world\n");
        let mut left: Vec<_> =
            std::fs::read_dir(all.path()).expect("reads").map(|entry| entry.expect("reads").file_name()).collect();
        left.sort();
        assert_eq!(left.len(), KEPT);
        assert_eq!(left[0], "19700101T000006Z-abcdef");
    }
}
