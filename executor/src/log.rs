//! The output of every stage that ran, as files in the directory of the build's record:
//! `<store>/logs/<build>/<NNN>-<pipeline>-<module>.log`.
//!
//! Knows names and bytes; nothing of what a build is.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::OFlags;

use osbc_store::fs::regular;

/// The logs of one build.
#[derive(Debug)]
pub(crate) struct BuildLogs {
    directory: Option<PathBuf>,
    next: AtomicUsize,
}

/// The log of one stage.
#[derive(Debug)]
pub(crate) struct StageLog {
    file: Option<(File, PathBuf)>,
}

impl BuildLogs {
    /// Logs in this directory; without one, none.
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        Self { directory: directory.map(ToOwned::to_owned), next: AtomicUsize::new(1) }
    }

    /// Begins the log of a stage. Where it cannot be written the stage runs all the same, and has none.
    pub(crate) fn stage(&self, pipeline: &str, module: &str) -> StageLog {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(directory) = &self.directory else { return StageLog { file: None } };
        let module = module.strip_prefix("org.osbuild.").unwrap_or(module);
        let path = directory.join(format!("{number:03}-{}-{}.log", plain(pipeline), plain(module)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        StageLog { file: regular::open(&path, flags, regular::PRIVATE).ok().map(|file| (file, path)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_s_log_is_named_after_it_and_has_all_that_it_wrote() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let logs = BuildLogs::new(Some(directory.path()));
        let mut log = logs.stage("my os/x", "org.osbuild.mkfs.ext4");
        log.write("hello ");
        log.write("world\n");
        let path = log.path().expect("is written").to_owned();
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("001-my_os_x-mkfs.ext4.log"));
        assert_eq!(std::fs::read_to_string(path).expect("reads"), "hello world\n");
    }
}
