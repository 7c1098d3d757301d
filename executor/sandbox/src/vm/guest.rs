//! The first process of a machine: makes the host's root its own, has the stage run, passes on its output, and switches
//! the machine off.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::MountAttrFlags;
use rustix::system::RebootCommand;

use super::{CONFIG, GuestConfig, GuestMessage, PORT, ROOT, initramfs, modprobe};
use crate::client::{LocalRunner, StageIo, StageRunner};
use crate::interrupt::Interrupt;
use crate::stage::{message, sys};

/// How long the machine's devices may take to appear.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
const DEVICE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What the first process of a machine does.
///
/// `stage_arguments` make osbc run stages, as on the host. Never returns in a machine; whoever calls it elsewhere is
/// sent away.
pub fn guest_main(stage_arguments: Vec<OsString>) -> ExitCode {
    if std::process::id() != 1 || !Path::new(CONFIG).exists() {
        return ExitCode::FAILURE;
    }
    if let Err(error) = serve(stage_arguments) {
        // It goes to the console, which the host reads.
        writeln!(io::stderr(), "osbc: {error}").ok();
    }
    rustix::system::reboot(RebootCommand::PowerOff).ok();
    ExitCode::FAILURE
}

fn serve(stage_arguments: Vec<OsString>) -> io::Result<()> {
    let config: GuestConfig = serde_json::from_slice(&std::fs::read(CONFIG)?)?;
    load_modules()?;
    enter_root().map_err(|error| doing("mount the root that the host shares", error))?;
    modprobe::install(&config.kernel).map_err(|error| doing("set up the loading of modules", error))?;
    let port = RefCell::new(open_port()?);
    let lost = RefCell::new(None);
    let send = |message: &GuestMessage| {
        if let Err(error) = message::send(&mut *port.borrow_mut(), message) {
            lost.borrow_mut().get_or_insert(error);
        }
    };
    send(&GuestMessage::Begun);
    let runner = LocalRunner::new("/proc/self/exe", stage_arguments, &config.terminal);
    let interrupt = Interrupt::new()?;
    let io = StageIo {
        output: &|text| send(&GuestMessage::Output(text.to_owned())),
        service_output: &|text| send(&GuestMessage::ServiceOutput(text.to_owned())),
        interrupt: &interrupt,
    };
    let reply = runner.run(&config.stage, &io);
    // What is only in this machine's memory is gone with it.
    rustix::fs::sync();
    send(&GuestMessage::Reply(Box::new(reply)));
    lost.into_inner().map_or(Ok(()), |error| Err(doing("talk to the host", error)))
}

fn load_modules() -> io::Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(initramfs::MODULES)? {
        files.push(entry?.path());
    }
    files.sort_unstable();
    for file in files {
        modprobe::load(&std::fs::read(&file)?)
            .map_err(|error| doing(&format!("load the kernel module {}", file.display()), error))?;
    }
    Ok(())
}

/// Makes what the host shares the root of this machine, with file systems of its own where a kernel shows itself.
fn enter_root() -> io::Result<()> {
    let shared = sys::new_mount("virtiofs", &[("source", ROOT)], MountAttrFlags::empty())?;
    // It comes to lie on the file system of the initramfs, which cannot be left by pivot_root.
    rustix::process::fchdir(&shared)?;
    sys::attach(shared, Path::new("/"))?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        let options: &[(&str, &str)] = if kind == "tmpfs" { &[("mode", "755")] } else { &[] };
        let mount = sys::new_mount(kind, options, MountAttrFlags::empty());
        mount.and_then(|mount| sys::attach(mount, Path::new(place))).map_err(|error| doing(place, error))?;
    }
    Ok(())
}

/// Opens the port that leads to the host, as soon as it is there.
fn open_port() -> io::Result<File> {
    let end = Instant::now() + DEVICE_TIMEOUT;
    loop {
        for port in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(port.path().join("name")).unwrap_or_default();
            let device = Path::new("/dev").join(port.file_name());
            if name.trim_end() == PORT && device.exists() {
                return File::options().read(true).write(true).open(device);
            }
        }
        if Instant::now() >= end {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the port that leads to the host does not appear"));
        }
        sleep(DEVICE_POLL_INTERVAL);
    }
}

fn doing(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}
