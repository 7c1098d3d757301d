//! The mounts of a stage that is an on-disk module.
//!
//! Its calls of `mount(2)` are answered here, in the process that prepared it: what is allowed is done for it, in its
//! own mount namespace, root and directory, from arguments that it cannot change any more. Calls that make what no layer
//! can hold ([`calls`](super::calls)) end the stage.
//!
//! - File systems of images and in memory are mounted, and device nodes do not work in them.
//! - Whoever mounts `proc`, `sysfs` or `devtmpfs`, mostly to run programs of its tree, gets what the sandbox has at
//!   `/proc`,
//!   `/sys` or `/dev`.
//! - Nothing else is mounted: not what shows or changes the whole machine (control groups, debugfs), nor network file
//!   systems.
//! - A mount's attributes can change, but not those of a file system: it may be the host's.

use std::ffi::{CStr, CString};
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use osbc_module_api::system_calls::is_call;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};

use super::{confine, spec, sys};

/// File systems that a stage may mount: of images, in memory, of layers, and its own programs'.
const MOUNTABLE: [&str; 20] = [
    "btrfs", "devpts", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuse", "fuseblk", "iso9660", "mqueue",
    "msdos", "overlay", "ramfs", "squashfs", "tmpfs", "udf", "vfat", "xfs",
];
/// File systems in whose place a stage gets what is at this path of its sandbox.
const OWN: [(&str, &CStr); 3] = [("proc", c"/proc"), ("sysfs", c"/sys"), ("devtmpfs", c"/dev")];

/// The longest path, and the most that options of a mount can be.
const PAGE: usize = 4096;
/// The bit of `CAP_SYS_ADMIN` (<linux/capability.h>).
const SYS_ADMIN: u64 = 1 << 21;

/// Answers for the mounts of a stage.
#[derive(Debug)]
pub(crate) struct Supervisor {
    listener: OwnedFd,
    /// The stage's process, with which all that it started ends.
    stage: OwnedFd,
    /// `/proc` of the calling process's pid namespace, which the stage's processes are in too.
    processes: OwnedFd,
}

impl AsFd for Supervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It was answered, or nobody called.
    Done,
    /// It makes what no layer can hold: the stage was ended, to run again on a plain directory.
    NeedsPlainTree,
    /// Nobody is left who could make one.
    Over,
}

impl Supervisor {
    /// Takes the stage's listener, and a handle on its process. The calling process, which has a single thread, makes its children in the stage's
    /// pid namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(listener: OwnedFd, stage: OwnedFd) -> io::Result<Self> {
        Ok(Self { listener, stage, processes: sys::new_mount("proc", &[], sys::PLAIN)? })
    }

    /// Answers one call, for which the listener is readable.
    pub(crate) fn answer(&self) -> Answered {
        // Before Linux 6.11 the kernel waits for a call also where nobody is left to make one.
        match self.state() {
            State::Called => {}
            State::Waiting => return Answered::Done,
            State::Over => return Answered::Over,
        }
        let mut call = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        };
        match self.request(libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) {
            // Whoever called was ended meanwhile, or all have ended.
            Err(Errno::NOENT | Errno::INTR) if self.state() != State::Over => return Answered::Done,
            Err(_) => return Answered::Over,
            Ok(()) => {}
        }
        if !is_call(&call.data, "mount") {
            // It may have ended by itself.
            pidfd_send_signal(&self.stage, Signal::KILL).ok();
            return Answered::NeedsPlainTree;
        }
        let error = match self.mount(&call) {
            Ok(()) => 0,
            Err(error) => -error.raw_os_error(),
        };
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags: 0 };
        // It may have been ended meanwhile.
        self.request(libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer).ok();
        Answered::Done
    }

    fn state(&self) -> State {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut polled, Some(&now)).map(|_| polled[0].revents()) {
            Ok(events) if events.contains(PollFlags::IN) => State::Called,
            Ok(events) if events.contains(PollFlags::HUP) => State::Over,
            Ok(_) | Err(Errno::INTR) => State::Waiting,
            Err(_) => State::Over,
        }
    }

    fn request<T>(&self, request: libc::Ioctl, argument: *mut T) -> Result<(), Errno> {
        #[expect(unsafe_code, reason = "no dependency wraps listeners")]
        // SAFETY: each request gets the structure that belongs to it, which outlives the call.
        let result = unsafe { libc::ioctl(self.listener.as_raw_fd(), request, argument) };
        if result == 0 { Ok(()) } else { Err(last_error()) }
    }

    /// Mounts what a call asks for.
    fn mount(&self, call: &libc::seccomp_notif) -> Result<(), Errno> {
        let thread = Pid::from_raw(call.pid.cast_signed());
        let [source, target, kind, flags, data, _] = call.data.args;
        let text = |address| read_text(thread, address);
        let mut asked =
            Asked { source: text(source)?, target: text(target)?, kind: text(kind)?, flags, data: text(data)? };
        let place = self.place(thread)?;
        let act = asked.act()?;
        let kept = asked.take_descriptor(thread)?;
        // Until here the number may have become another thread's.
        let mut id = call.id;
        self.request(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw mut id)?;
        in_child(|| place.perform(act, &asked, kept.as_ref()))
    }

    /// Where a thread is, which must have the right to mount.
    fn place(&self, thread: Pid) -> Result<Place, Errno> {
        let open = |name: &str, flags: OFlags| {
            openat(&self.processes, format!("{thread}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
        };
        let mut status = String::new();
        std::fs::File::from(open("status", OFlags::RDONLY)?).read_to_string(&mut status).map_err(|_| Errno::SRCH)?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
        if effective & SYS_ADMIN == 0 {
            return Err(Errno::PERM);
        }
        let mounts = open("ns/mnt", OFlags::RDONLY)?;
        Ok(Place { mounts, root: open("root", OFlags::PATH)?, directory: open("cwd", OFlags::PATH)? })
    }
}

/// What a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A call to answer.
    Called,
    /// No call now.
    Waiting,
    /// Nobody left who could make one.
    Over,
}

/// Where paths of a call begin.
struct Place {
    mounts: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

/// The arguments of `mount(2)`; a text is `None` for a null pointer.
struct Asked {
    source: Option<CString>,
    target: Option<CString>,
    kind: Option<CString>,
    flags: libc::c_ulong,
    data: Option<CString>,
}

/// What is done for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The call as it is, with these flags.
    Call(libc::c_ulong),
    /// A bind mount, with all below it where the kernel does not let it be without.
    Bind(libc::c_ulong),
    /// A change of a mount's attributes, which keeps those that take rights away.
    Change(libc::c_ulong),
    /// What is at a path of the sandbox appears at the target.
    Show(&'static CStr),
}

/// Attributes of mounts that a change keeps.
const KEPT: [(StatVfsMountFlags, libc::c_ulong); 5] = [
    (StatVfsMountFlags::NOSUID, libc::MS_NOSUID),
    (StatVfsMountFlags::NOEXEC, libc::MS_NOEXEC),
    (StatVfsMountFlags::NOATIME, libc::MS_NOATIME),
    (StatVfsMountFlags::NODIRATIME, libc::MS_NODIRATIME),
    (StatVfsMountFlags::RELATIME, libc::MS_RELATIME),
];

impl Asked {
    /// Decides, in the order in which the kernel looks at the flags.
    fn act(&self) -> Result<Act, Errno> {
        const PROPAGATION: libc::c_ulong = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;
        let has = |flag| self.flags & flag != 0;
        if has(libc::MS_REMOUNT) {
            return if has(libc::MS_BIND) { Ok(Act::Change(self.flags | libc::MS_NODEV)) } else { Err(Errno::PERM) };
        }
        if has(libc::MS_BIND) {
            return Ok(if has(libc::MS_REC) { Act::Call(self.flags) } else { Act::Bind(self.flags) });
        }
        if has(PROPAGATION | libc::MS_MOVE) {
            return Ok(Act::Call(self.flags));
        }
        let kind = self.kind.as_deref().ok_or(Errno::INVAL)?.to_str().map_err(|_| Errno::NODEV)?;
        if let Some((_, path)) = OWN.iter().find(|(name, _)| *name == kind) {
            return Ok(Act::Show(path));
        }
        match MOUNTABLE.contains(&kind) {
            // Its nodes are terminals and nothing else.
            true if kind == "devpts" => Ok(Act::Call(self.flags)),
            true => Ok(Act::Call(self.flags | libc::MS_NODEV)),
            false => Err(Errno::PERM),
        }
    }

    /// Names in the options the caller's descriptor, which file systems in user space have there, by one of our own.
    fn take_descriptor(&mut self, caller: Pid) -> Result<Option<OwnedFd>, Errno> {
        let (Some(kind), Some(data)) = (&self.kind, &self.data) else { return Ok(None) };
        if !matches!(kind.to_bytes(), b"fuse" | b"fuseblk") {
            return Ok(None);
        }
        let data = data.to_str().map_err(|_| Errno::INVAL)?;
        let (before, number) = data.split_once("fd=").ok_or(Errno::INVAL)?;
        let (number, after) = number.split_at(number.find(',').unwrap_or(number.len()));
        let number = number.parse().map_err(|_| Errno::INVAL)?;
        let process = rustix::process::Pid::from_raw(caller.as_raw()).ok_or(Errno::SRCH)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let taken = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
        let data = format!("{before}fd={}{after}", taken.as_raw_fd());
        self.data = Some(CString::new(data).map_err(|_| Errno::INVAL)?);
        Ok(Some(taken))
    }

    /// The call, with these flags.
    fn call(&self, flags: libc::c_ulong) -> Result<(), Errno> {
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let (source, target) = (pointer(&self.source), pointer(&self.target));
        #[expect(unsafe_code, reason = "the arguments are passed on as they are")]
        // SAFETY: all pointers are null or to terminated texts that outlive the call.
        let result = unsafe { libc::mount(source, target, pointer(&self.kind), flags, pointer(&self.data).cast()) };
        if result == 0 { Ok(()) } else { Err(last_error()) }
    }
}

impl Place {
    /// Enters it for good and does there what is to be done, with the rights of a stage: what the paths of the call
    /// lead through is the stage's.
    fn perform(&self, act: Act, asked: &Asked, kept: Option<&OwnedFd>) -> Result<(), Errno> {
        let target = asked.target.as_deref().ok_or(Errno::FAULT)?;
        enter_mounts(&self.mounts)?;
        // Here the root is that of the sandbox.
        let shown = match act {
            Act::Show(path) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let copied = sys::copy_mount(rustix::fs::open(path, flags, Mode::empty())?);
                Some(copied.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?)
            }
            _ => None,
        };
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        rustix::process::fchdir(&self.directory)?;
        // The paths may lead through `/proc/self/fd`.
        let open: Vec<_> = shown.iter().chain(kept).map(AsFd::as_fd).collect();
        sys::close_descriptors(&open).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        confine::keep_capabilities(&spec::CAPABILITIES.into()).map_err(|_| Errno::PERM)?;
        match act {
            Act::Call(flags) => asked.call(flags),
            Act::Bind(flags) => match asked.call(flags) {
                Err(Errno::INVAL) => asked.call(flags | libc::MS_REC),
                result => result,
            },
            Act::Change(flags) => {
                let now = statvfs(target)?.f_flag;
                let kept = KEPT.iter().filter(|(has, _)| now.contains(*has)).fold(0, |flags, (_, flag)| flags | flag);
                asked.call(flags | kept)
            }
            Act::Show(_) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                move_mount(shown.ok_or(Errno::INVAL)?, "", CWD, target, flags)
            }
        }
    }
}

/// Enters the mount namespace that a handle is on, or that of the process that it is on.
pub(crate) fn enter_mounts(of: impl AsFd) -> Result<(), Errno> {
    setns(of, CloneFlags::CLONE_NEWNS).map_err(|error| Errno::from_raw_os_error(error as i32))
}

/// Does something in a child, in the pid namespace of the stage, and waits for it.
pub(crate) fn in_child(act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "whoever enters a mount namespace cannot come back")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() }.map_err(|error| Errno::from_raw_os_error(error as i32))?;
    match forked {
        ForkResult::Child => {
            let error = act().err().map_or(0, Errno::raw_os_error);
            #[expect(unsafe_code, reason = "what this process has open is its parent's to close")]
            // SAFETY: it ends here.
            unsafe {
                libc::_exit(error)
            }
        }
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, error)) => Err(Errno::from_raw_os_error(error)),
            // The stage, whose processes see the child, has ended it.
            _ => Err(Errno::INTR),
        },
    }
}

/// Reads a terminated text of a thread's memory; `None` for a null pointer.
fn read_text(thread: Pid, address: u64) -> Result<Option<CString>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let mut text = Vec::new();
    while text.len() < PAGE {
        let base = usize::try_from(address).map_err(|_| Errno::FAULT)?.checked_add(text.len()).ok_or(Errno::FAULT)?;
        // What is behind the end of a page may not be there.
        let mut piece = [0; PAGE];
        let length = PAGE - base % PAGE;
        let remote = [RemoteIoVec { base, len: length }];
        let read = process_vm_readv(thread, &mut [IoSliceMut::new(&mut piece[..length])], &remote);
        let read = read.map_err(|error| Errno::from_raw_os_error(error as i32))?;
        text.extend_from_slice(&piece[..read]);
        if let Ok(text) = CStr::from_bytes_until_nul(&text) {
            return Ok(Some(text.to_owned()));
        }
    }
    Err(Errno::NAMETOOLONG)
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(kind: Option<&CStr>, flags: libc::c_ulong) -> Result<Act, Errno> {
        Asked { source: None, target: None, kind: kind.map(CStr::to_owned), flags, data: None }.act()
    }

    #[test]
    fn only_file_systems_of_images_and_in_memory_are_mounted_and_without_devices() {
        assert_eq!(act(Some(c"ext4"), libc::MS_RDONLY), Ok(Act::Call(libc::MS_RDONLY | libc::MS_NODEV)));
        assert_eq!(act(Some(c"tmpfs"), 0), Ok(Act::Call(libc::MS_NODEV)));
        assert_eq!(act(Some(c"devpts"), 0), Ok(Act::Call(0)));
        for kind in [c"cgroup", c"cgroup2", c"debugfs", c"tracefs", c"nfs", c"9p", c"securityfs", c"bpf", c"efivarfs"] {
            assert_eq!(act(Some(kind), 0), Err(Errno::PERM), "{kind:?}");
        }
        assert_eq!(act(Some(c"devtmpfs"), 0), Ok(Act::Show(c"/dev")));
        assert_eq!(act(Some(c"proc"), libc::MS_NOSUID), Ok(Act::Show(c"/proc")));
        assert_eq!(act(None, 0), Err(Errno::INVAL));
    }

    #[test]
    fn file_systems_are_not_reconfigured_and_attributes_only_tightened() {
        assert_eq!(act(None, libc::MS_REMOUNT | libc::MS_RDONLY), Err(Errno::PERM));
        let change = libc::MS_REMOUNT | libc::MS_BIND;
        assert_eq!(act(None, change), Ok(Act::Change(change | libc::MS_NODEV)));
        assert_eq!(act(None, libc::MS_BIND), Ok(Act::Bind(libc::MS_BIND)));
        let recursive = libc::MS_BIND | libc::MS_REC;
        assert_eq!(act(Some(c"cgroup"), recursive), Ok(Act::Call(recursive)));
        assert_eq!(act(Some(c"cgroup"), libc::MS_PRIVATE), Ok(Act::Call(libc::MS_PRIVATE)));
    }

    #[test]
    fn texts_are_read_across_pages_and_only_whole() {
        let own = Pid::this();
        let long = CString::new(vec![b'x'; 4000]).expect("no zero");
        assert_eq!(read_text(own, long.as_ptr() as u64), Ok(Some(long)));
        let endless = vec![b'x'; 3 * PAGE];
        assert_eq!(read_text(own, endless.as_ptr() as u64), Err(Errno::NAMETOOLONG));
        assert_eq!((read_text(own, 0), read_text(own, 8)), (Ok(None), Err(Errno::FAULT)));
    }
}
