//! What the machine has to give: memory, disk, loop devices.
//!
//! Asked before a stage begins beside others, and when one has failed, to distinguish a stage that could not work from
//! a machine that did not let it. Knows neither stages nor the store.

use std::fs;
use std::path::PathBuf;

/// Below so much free memory no stage begins beside others, in bytes.
const MEMORY_FLOOR: u64 = 256 << 20;
/// Below so much free disk no stage begins beside others, in bytes.
const DISK_FLOOR: u64 = 64 << 20;

/// What is free at the moment; `None` if there is no limit, or none that can be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// Bytes of memory that can be had without swapping.
    pub memory: Option<u64>,
    /// Bytes on the store's file system.
    pub disk: Option<u64>,
}

/// A machine, as far as stages compete for it.
pub trait Machine: Send + Sync {
    /// What is free of memory and disk.
    fn free(&self) -> Free;
    /// How many loop devices are free; `None` if the kernel makes as many as are wanted.
    fn loop_devices(&self) -> Option<u64>;
    /// How many processes the kernel has killed because memory ran out since it started.
    fn out_of_memory_kills(&self) -> u64;
}

/// This machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// A directory on the file system that the results go to.
    pub disk: PathBuf,
}

impl Machine for Host {
    fn free(&self) -> Free {
        Free {
            memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_available(&text)),
            disk: rustix::fs::statvfs(&self.disk).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)),
        }
    }

    fn loop_devices(&self) -> Option<u64> {
        // How many the kernel is configured to have.
        let most: u64 = fs::read_to_string("/sys/module/loop/parameters/max_loop").ok()?.trim().parse().ok()?;
        let devices = fs::read_dir("/sys/block").ok()?.flatten();
        let used = devices.filter(|device| device.path().join("loop/backing_file").exists()).count() as u64;
        (most > 0).then(|| most.saturating_sub(used))
    }

    fn out_of_memory_kills(&self) -> u64 {
        fs::read_to_string("/proc/vmstat").ok().and_then(|text| field(&text, "oom_kill ")).unwrap_or(0)
    }
}

/// `MemAvailable:    1234 kB` of `/proc/meminfo`.
fn memory_available(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemAvailable:")?.checked_mul(1024)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().split(' ').next()?.parse().ok())
}

/// What a stage takes of the machine while it runs, as far as known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResourceNeed {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Loop devices.
    pub(crate) loop_devices: u64,
}

impl ResourceNeed {
    /// Whether what is free does for this beside stages that take `running`, of which some may be in use already.
    pub(crate) fn fits(self, running: ResourceNeed, free: Free, loop_devices: Option<u64>) -> bool {
        let does = |free: Option<u64>, needed: u64| free.is_none_or(|free| free >= needed);
        does(free.memory, MEMORY_FLOOR.saturating_add(running.memory).saturating_add(self.memory))
            && does(free.disk, DISK_FLOOR)
            && (self.loop_devices == 0 || does(loop_devices, running.loop_devices.saturating_add(self.loop_devices)))
    }

    /// Both together.
    pub(crate) fn plus(self, other: ResourceNeed) -> ResourceNeed {
        ResourceNeed {
            memory: self.memory.saturating_add(other.memory),
            loop_devices: self.loop_devices.saturating_add(other.loop_devices),
        }
    }

    /// This without a part of it.
    pub(crate) fn minus(self, part: ResourceNeed) -> ResourceNeed {
        ResourceNeed {
            memory: self.memory.saturating_sub(part.memory),
            loop_devices: self.loop_devices.saturating_sub(part.loop_devices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn a_stage_fits_when_floors_and_all_that_run_are_provided_for() {
        let need = |memory, loop_devices| ResourceNeed { memory: memory * MB, loop_devices };
        let running = need(100, 1);
        let fits = |what: ResourceNeed, memory, disk, loop_devices| {
            what.fits(running, Free { memory: Some(memory * MB), disk: Some(disk * MB) }, Some(loop_devices))
        };
        assert!(need(0, 0).fits(ResourceNeed::default(), Free::default(), None));
        assert!(fits(need(100, 1), 456, 64, 2));
        assert!(!fits(need(100, 1), 455, 64, 2), "memory");
        assert!(!fits(need(100, 1), 456, 63, 2), "disk");
        assert!(!fits(need(100, 1), 456, 64, 1), "loop devices");
        assert!(fits(need(100, 0), 456, 64, 0), "it needs none");
        assert_eq!(need(3, 2).plus(need(1, 1)).minus(need(3, 2)), need(1, 1));
    }

    #[test]
    fn the_kernel_s_files_are_read() {
        let text = "MemTotal:       24689764 kB\nMemFree:         1 kB\nMemAvailable:   21000000 kB\n";
        assert_eq!(memory_available(text), Some(21_000_000 * 1024));
        assert_eq!(memory_available("MemFree: 1 kB\n"), None);
        assert_eq!(field("oom_kill_x 3\noom_kill 7\n", "oom_kill "), Some(7));
        let free = Host { disk: std::env::temp_dir() }.free();
        assert!(free.memory.is_some_and(|memory| memory > MB) && free.disk.is_some(), "{free:?}");
    }
}
