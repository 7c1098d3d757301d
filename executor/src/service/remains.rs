//! What a service that is no stage's leaves running: told by the mount namespace that it was started in, which is its
//! own and held open meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long processes may take to be gone after they were killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two looks at them.
const BLINK: Duration = Duration::from_millis(2);

/// The mount namespace of a service.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
}

impl Namespace {
    /// That of a process; none if it is ours too, as it is where nobody may make one.
    pub(super) fn of(process: Pid) -> io::Result<Option<Self>> {
        let file = File::open(format!("/proc/{}/ns/mnt", process.as_raw_nonzero()))?;
        let ours = fs::metadata("/proc/self/ns/mnt")?;
        Ok((file.metadata()?.ino() != ours.ino()).then_some(Self { file }))
    }

    /// Ends all processes in it, also those that they start meanwhile.
    pub(super) fn end_all(&self) {
        let Ok(namespace) = self.file.metadata() else { return };
        let start = Instant::now();
        loop {
            let left: Vec<Pid> =
                processes().filter(|process| namespace_of(*process) == Some(namespace.ino())).collect();
            if left.is_empty() || start.elapsed() > PATIENCE {
                return;
            }
            for process in left {
                // One that ended by itself is as good.
                kill_process(process, Signal::KILL).ok();
            }
            thread::sleep(BLINK);
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// None of a process that has ended.
fn namespace_of(process: Pid) -> Option<u64> {
    let link = format!("/proc/{}/ns/mnt", process.as_raw_nonzero());
    Some(fs::metadata(Path::new(&link)).ok()?.ino())
}
