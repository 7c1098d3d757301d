//! A stage in a virtual machine: qemu runs a kernel of the stage's build tree, or of the host where there is none, and
//! in it osbc runs the stage as it does on the host.
//!
//! The process that prepares a stage ([`crate::server`]) mounts the stage's trees, makes all else that it sees
//! read-only, and shares its root with the machine by virtiofs ([`host`]). The machine's first process is osbc, from an
//! initramfs ([`initramfs`]) with the few modules that this takes ([`kernel`]); it mounts that root and has the stage
//! run there by a helper of its own ([`guest`]), which finds everything at the path that it has on the host. Modules
//! that the kernel asks for later are loaded by osbc too ([`modprobe`]).
//!
//! A machine is a stage's own. It ends with the process that prepared the stage, however that ends.

mod guest;
mod host;
mod initramfs;
pub(crate) mod kernel;
mod modprobe;

use std::fs::File;
use std::path::{Path, PathBuf};

use osbc_module_api::{TOOL_DIRECTORIES, packages_of};
use serde::{Deserialize, Serialize};

use crate::request::{StageReply, StageRequest};
use kernel::Kernel;

pub use guest::guest_main;
pub use modprobe::{NAME as MODPROBE, modprobe_main};

pub(crate) use host::run;

/// What a machine may have of the host's memory, in bytes.
pub const MEMORY: u64 = 3 << 30;

/// The word that makes the first process of a machine, which is osbc, do what it is for.
pub const GUEST_PROCESS: &str = "osbc-guest";

/// The tag of the shared root.
const ROOT: &str = "root";
/// The name of the port that the guest talks by.
const PORT: &str = "osbc";
/// Where the initramfs has the guest's configuration.
const CONFIG: &str = "/config";
/// What has a file system of the guest's own: nothing of the host's can be reached there.
const OWN: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

/// What a guest gets with its initramfs.
#[derive(Debug, Serialize, Deserialize)]
struct GuestConfig {
    stage: StageRequest,
    kernel: Kernel,
    /// What stages get as `TERM`.
    terminal: String,
}

/// What a guest says.
#[derive(Debug, Serialize, Deserialize)]
enum GuestMessage {
    /// The machine is up, and the stage begins.
    Begun,
    /// The stage wrote something.
    Output(String),
    /// A service of the stage wrote a line.
    ServiceOutput(String),
    /// All is over, and nothing is left to be written.
    Reply(Box<StageReply>),
}

/// The programs that a machine takes.
#[derive(Debug)]
pub struct Programs {
    qemu: PathBuf,
    virtiofsd: PathBuf,
}

impl Programs {
    /// Looks for them on this machine.
    ///
    /// # Errors
    /// What is missing, and the packages that have it.
    pub fn find() -> Result<Self, String> {
        if std::env::consts::ARCH != "x86_64" {
            let architecture = std::env::consts::ARCH;
            return Err(format!("stages run in a virtual machine on x86_64 only, and this machine is {architecture}"));
        }
        let find = |more: &[&str], names: &[&str]| {
            let directories = TOOL_DIRECTORIES.iter().chain(more);
            let mut places = directories.flat_map(|directory| names.iter().map(|name| Path::new(directory).join(name)));
            let missing = || format!("there is no {} on the host; {} has it", names[0], packages_of(names[0]));
            places.find(|place| place.is_file()).ok_or_else(missing)
        };
        Ok(Self {
            qemu: find(&["/usr/local/bin", "/usr/libexec"], &["qemu-system-x86_64", "qemu-kvm"])?,
            virtiofsd: find(&["/usr/local/bin", "/usr/libexec", "/usr/lib/qemu", "/usr/lib"], &["virtiofsd"])?,
        })
    }
}

/// Returns QEMU's arguments for the fastest processor that this machine can give a guest.
///
/// QEMU's translator damages the processor's flags at `cmpxchg16b` now and then (seen with 7.2: the guest's kernel
/// panics), so guests do not get to see that instruction.
pub fn processor_arguments() -> [&'static str; 4] {
    if has_kvm() { ["-accel", "kvm", "-cpu", "host"] } else { ["-accel", "tcg", "-cpu", "max,-cx16"] }
}

/// Whether the processor itself runs guests: that `/dev/kvm` opens says nothing where it is made up in software.
fn has_kvm() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    able && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}
