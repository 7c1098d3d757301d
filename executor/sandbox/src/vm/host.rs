//! A machine as the process that prepares a stage sees it: what it shares with it, its start, what it says, its end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use osbc_store::{TreeStack, Upper};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use rustix::process::{PidfdFlags, pidfd_open};

use super::initramfs::{Archive, LIBRARIES, MODULES};
use super::kernel::Kernel;
use super::{CONFIG, GUEST_PROCESS, GuestConfig, GuestMessage, MEMORY, OWN, PORT, Programs, ROOT, processor_arguments};
use crate::request::{ReferenceFrom, StageFailure, StageMessage, StageReply, StageRequest};
use crate::stage::root::{self, make_directory};
use crate::stage::{message, sys};

/// How long a machine may take until its stage begins, and how long its replacements may take.
///
/// Without KVM it takes some seconds, on a busy machine many, and one of hundreds never gets there (QEMU 7.2).
const STARTS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(120), Duration::from_secs(300)];
/// The most processors that a machine gets.
const PROCESSORS: usize = 8;
/// The modules that a guest cannot do without before it has a root.
const NEEDED: [&str; 3] = ["virtio_pci", "virtiofs", "virtio_console"];
/// Those that make devices which programs look for before any kernel is asked for them.
const USUAL: [&str; 2] = ["loop", "dm_mod"];
/// How much of what a machine's console shows is kept, counted from its end, in bytes.
const CONSOLE: usize = 4096;
/// How many of its last lines are in a failure.
const LINES: usize = 5;

/// Files in the machine's directory, which is the working directory of its programs.
const SOCKET: &str = "files";
const FILES_LOG: &str = "files.log";
const IMAGE: &str = "kernel";
const INITRAMFS: &str = "initramfs";

/// Runs a stage in a machine of its own.
///
/// To be called by the only thread of the first process of a pid namespace, in a mount namespace of its own, which ends
/// with it.
pub(crate) fn run(request: &StageRequest, client: &UnixStream) -> StageReply {
    let ran = attempt(request, client);
    ran.unwrap_or_else(|reason| StageReply::failed(StageFailure::Environment(format!("virtual machine: {reason}"))))
}

fn attempt(request: &StageRequest, client: &UnixStream) -> Result<StageReply, String> {
    let programs = Programs::find()?;
    let place = request.scratch.join("machine");
    let stage = share(request, &place)?;
    let (root, whose) = match &stage.build_root {
        Some(_) => (place.join("build"), "the build root"),
        None => (PathBuf::from("/"), "the host"),
    };
    let running = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel = Kernel::find(&root, whose, if stage.build_root.is_none() { &running } else { "" })?;
    // Of the environment that osbc made for this process.
    let terminal = std::env::var("TERM").unwrap_or_default();
    let config = GuestConfig { stage, kernel, terminal };
    write(&config, &place)?;
    let mut last_words = String::new();
    for patience in STARTS {
        let machine = Machine::start(&programs, &place).map_err(|error| format!("cannot start it: {error}"))?;
        match machine.attend(patience, request.timeout, client)? {
            VmAttempt::Done(reply) => return Ok(*reply),
            VmAttempt::NotBegun(output) => last_words = output,
        }
    }
    Err(format!("its stage has not begun in {} machines{last_words}", STARTS.len()))
}

/// What came of a machine.
enum VmAttempt {
    Done(Box<StageReply>),
    /// It took too long until its stage began; with the end of what it said.
    NotBegun(String),
}

/// Mounts the stage's trees at directories below `place`, and makes everything read-only that is neither the stage's
/// tree nor its scratch directory.
///
/// Returns the stage as its helper in the machine is to have it.
fn share(request: &StageRequest, place: &Path) -> Result<StageRequest, String> {
    let own = OWN.iter().find(|own| request.scratch.starts_with(own));
    if let Some(own) = own {
        return Err(format!("the store lies in {own}, which in a machine is its own; use a store elsewhere"));
    }
    let mut stage = StageRequest { in_vm: false, timeout: None, ..request.clone() };
    let mut mounts = Vec::new();
    flatten(&mut stage.tree, place.join("tree"), &mut mounts)?;
    if let Some(build) = &mut stage.build_root {
        flatten(build, place.join("build"), &mut mounts)?;
    }
    for (input, number) in stage.inputs.iter_mut().zip(0..) {
        for (reference, index) in input.references.iter_mut().zip(0..) {
            if let ReferenceFrom::Tree(stack) = &mut reference.from {
                flatten(stack, place.join(format!("trees/{number}/{index}")), &mut mounts)?;
            }
        }
    }
    let arranged = || {
        let top = Path::new("/");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(root::cannot("make the mounts private below", top))?;
        make_directory(place, 0o755)?;
        let scratch =
            sys::copy_mount(root::open(&request.scratch)?).map_err(root::cannot("share", &request.scratch))?;
        sys::set_attributes(root::open(top)?, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(root::cannot("make read-only what is below", top))?;
        sys::attach(scratch, &request.scratch).map_err(root::cannot("mount", &request.scratch))?;
        root::new_mount(place, "tmpfs", &[("mode", "755")], sys::PLAIN)?;
        for (mount, at) in mounts {
            make_directory(&at, 0o755)?;
            sys::attach(mount, &at).map_err(root::cannot("mount", &at))?;
        }
        Ok(())
    };
    arranged().map_err(|error: root::RootError| error.to_string())?;
    Ok(stage)
}

/// Mounts a stack, to appear at `at`, and makes it that one directory. One without layers stays what it is.
fn flatten(stack: &mut TreeStack, at: PathBuf, mounts: &mut Vec<(OwnedFd, PathBuf)>) -> Result<(), String> {
    if stack.lower.is_empty() && stack.upper.is_none() {
        return Ok(());
    }
    let mount = root::stack_mount(stack).map_err(|error| format!("cannot open a tree: {error}"))?;
    *stack = match stack.upper.take() {
        Some(upper) => TreeStack { lower: Vec::new(), upper: Some(Upper { dir: at.clone(), ..upper }) },
        None => TreeStack { lower: vec![at.clone()], upper: None },
    };
    mounts.push((mount, at));
    Ok(())
}

/// Writes what the machine boots with.
fn write(config: &GuestConfig, place: &Path) -> Result<(), String> {
    let kernel = &config.kernel;
    let image = kernel.image().map_err(|error| error.to_string())?;
    let mut modules = Vec::new();
    for name in NEEDED {
        let found = kernel.modules(name)?.ok_or_else(|| {
            format!(
                "the kernel {} has no module `{name}`; the package `linux-modules-extra-{}` (Ubuntu) or \
                 `kernel-modules-core` (Fedora) may have it",
                kernel.release, kernel.release
            )
        })?;
        modules.extend(found);
    }
    for name in USUAL {
        modules.extend(kernel.modules(name)?.unwrap_or_default());
    }
    let written = || {
        std::fs::write(place.join(IMAGE), image)?;
        let mut archive = Archive::new(BufWriter::new(File::create(place.join(INITRAMFS))?));
        archive.add_this_program()?;
        for (number, module) in modules.iter().enumerate() {
            archive.add(&Path::new(MODULES).join(format!("{number:03}-{}", module.name)), &module.image)?;
        }
        archive.add(Path::new(CONFIG), &serde_json::to_vec(config)?)?;
        archive.finish()
    };
    written().map_err(|error: io::Error| format!("cannot write what it boots with: {error}"))
}

/// A machine that runs.
struct Machine {
    qemu: Child,
    virtiofsd: Child,
    /// What the guest says.
    port: UnixStream,
    console: File,
    /// The end of what the console showed.
    shown: VecDeque<u8>,
    place: PathBuf,
}

impl Machine {
    fn start(programs: &Programs, place: &Path) -> io::Result<Self> {
        let virtiofsd = serve_files(&programs.virtiofsd, place)?;
        let (port, theirs) = UnixStream::pair()?;
        port.set_nonblocking(true)?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(PROCESSORS);
        let mut command = Command::new(&programs.qemu);
        command.current_dir(place).args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-machine", "q35"]).args(processor_arguments()).args(["-smp", &processors.to_string()]);
        // What virtiofs passes lies in memory that the other process has too.
        command.args(["-m", &format!("{}M", MEMORY >> 20)]).args(["-numa", "node,memdev=memory"]);
        command.args(["-object", &format!("memory-backend-memfd,id=memory,size={MEMORY},share=on")]);
        command.args(["-chardev", &format!("socket,id=files,path={SOCKET}")]);
        command.args(["-device", &format!("vhost-user-fs-pci,chardev=files,tag={ROOT}")]);
        command.args(["-chardev", &format!("socket,id=port,fd={}", theirs.as_raw_fd())]);
        command.args(["-device", "virtio-serial-pci", "-device", &format!("virtserialport,chardev=port,name={PORT}")]);
        command.args(["-serial", "stdio", "-kernel", IMAGE, "-initrd", INITRAMFS]);
        // SELinux and its kind have no rules here; a machine that panics ends.
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 selinux=0 apparmor=0 rdinit=/init LD_LIBRARY_PATH={LIBRARIES} -- {GUEST_PROCESS}"
        ));
        let (console, shown) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(shown.try_clone()?).stderr(shown);
        let qemu = command.spawn()?;
        // The command has the other ends still.
        drop((command, theirs));
        let console = File::from(OwnedFd::from(console));
        rustix::io::ioctl_fionbio(&console, true)?;
        Ok(Self { qemu, virtiofsd, port, console, shown: VecDeque::new(), place: place.to_owned() })
    }

    /// Passes on what the guest says until it has the reply or cannot come to one. Its stage must begin within
    /// `patience` and be done within `timeout`.
    fn attend(
        mut self,
        patience: Duration,
        timeout: Option<Duration>,
        client: &UnixStream,
    ) -> Result<VmAttempt, String> {
        let (mut deadline, mut begun) = (Instant::now().checked_add(patience), false);
        let (mut received, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let alive = self.wait(deadline).map_err(|error| error.to_string())?;
            self.read_console();
            let open = loop {
                match self.port.read(&mut chunk) {
                    Ok(0) => break false,
                    Ok(length) => received.extend_from_slice(&chunk[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break false,
                }
            };
            while let Some((word, length)) = message::decode(&received).map_err(|error| error.to_string())? {
                received.drain(..length);
                let passed = match word {
                    GuestMessage::Begun => {
                        begun = true;
                        deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                        Ok(())
                    }
                    GuestMessage::Output(text) => {
                        io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush())
                    }
                    GuestMessage::ServiceOutput(text) => message::send(client, &StageMessage::ServiceOutput(text)),
                    GuestMessage::Reply(reply) => return Ok(VmAttempt::Done(reply)),
                };
                passed.map_err(|error| format!("nobody hears what its stage says: {error}"))?;
            }
            if !alive || !open {
                return Err(self.obituary(begun));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(match timeout.filter(|_| begun) {
                    Some(timeout) => VmAttempt::Done(Box::new(StageReply::failed(StageFailure::TimedOut(timeout)))),
                    None => {
                        // Nothing that it still says may be lost: a stage that has begun is not begun again.
                        self.qemu.kill().and_then(|()| self.qemu.wait()).map_err(|error| error.to_string())?;
                        if matches!(self.port.read(&mut chunk), Ok(1..)) {
                            return Err("its stage began when it was given up".to_owned());
                        }
                        VmAttempt::NotBegun(self.last_words())
                    }
                });
            }
        }
    }

    /// Waits until something happens, or until `deadline`; says whether both programs are alive.
    fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let handle = |child: &Child| pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty());
        let (qemu, virtiofsd) = (handle(&self.qemu)?, handle(&self.virtiofsd)?);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        let mut polled = [
            PollFd::new(&qemu, PollFlags::IN),
            PollFd::new(&virtiofsd, PollFlags::IN),
            PollFd::new(&self.port, PollFlags::IN),
            PollFd::new(&self.console, PollFlags::IN),
        ];
        match poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => Ok(true),
            result => {
                result?;
                Ok(polled[..2].iter().all(|program| program.revents().is_empty()))
            }
        }
    }

    fn read_console(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = self.console.read(&mut chunk) {
            self.shown.extend(&chunk[..length]);
            self.shown.drain(..self.shown.len().saturating_sub(CONSOLE));
        }
    }

    /// Why a machine that is over has not brought its stage to an end.
    fn obituary(&mut self, begun: bool) -> String {
        if let Ok(Some(status)) = self.virtiofsd.try_wait() {
            let log = std::fs::read(self.place.join(FILES_LOG)).unwrap_or_default();
            return format!("virtiofsd ended ({status}){}", last_lines(&log));
        }
        self.read_console();
        let when = if begun { "before its stage was done" } else { "before its stage began" };
        format!("it ended {when}{}", self.last_words())
    }

    fn last_words(&self) -> String {
        last_lines(&self.shown.iter().copied().collect::<Vec<u8>>())
    }
}

impl Drop for Machine {
    /// The machine has nothing left to lose; what it wrote is with virtiofsd, which has done what it was asked for.
    fn drop(&mut self) {
        for program in [&mut self.qemu, &mut self.virtiofsd] {
            // One that ended by itself is as good.
            program.kill().ok();
            program.wait().ok();
        }
    }
}

/// Starts the program that shares this process's root, as far as it may be written to with all rights.
fn serve_files(program: &Path, place: &Path) -> io::Result<Child> {
    // A socket's path has at most 108 bytes.
    rustix::process::chdir(place)?;
    // That of a machine before.
    match std::fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(SOCKET)?;
    rustix::process::chdir("/")?;
    rustix::io::fcntl_setfd(&socket, FdFlags::empty())?;
    Command::new(program)
        .arg("-f")
        .arg(format!("--fd={}", socket.as_raw_fd()))
        .arg("-o")
        // Labels and the attributes of file systems are the guest's to set; nothing else changes what is shared.
        .arg("source=/,sandbox=chroot,cache=always,xattr,posix_acl,announce_submounts,modcaps=+sys_admin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(place.join(FILES_LOG))?)
        .spawn()
}

/// The last lines of a text, as the end of a message.
fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() { String::new() } else { format!("; the last that it said is:\n{}", last.join("\n")) }
}
