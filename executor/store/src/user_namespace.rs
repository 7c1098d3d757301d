//! Building without root: a user namespace in which an ordinary user is root, with the ids that the system's
//! administrator has given them as subordinate ids (subuid(5), subgid(5)).
//!
//! Knows ids and namespaces, and nothing of builds.
//!
//! The process that enters is the same one before and after: its number, descriptors and threads of execution stay, and
//! what it starts is in there too. Two things stay out of reach, which those who make stages go around: the namespaces
//! that it was in before, and devices.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, User, fork, getppid};

/// The inode of the first user namespace's file, which no other one has (<linux/proc_ns.h>).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The files with the subordinate ids of users, and the tools that map them.
const USERS: (&str, &str) = ("/etc/subuid", "newuidmap");
const GROUPS: (&str, &str) = ("/etc/subgid", "newgidmap");

/// Where those tools may be.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin", "/usr/sbin"];

/// Switches that keep users from having namespaces: the file, the value that does, and what undoes it.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// Why a user cannot be root in a namespace of their own.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The user has no subordinate ids.
    #[error("{file} has no ids for the user {user}")]
    NoIds {
        /// The file that should have them.
        file: &'static str,
        /// The user's name, or number where they have none.
        user: String,
        /// The first id behind all that are taken.
        free: u32,
    },
    /// A tool is missing.
    #[error("there is no `{0}`")]
    NoTool(&'static str),
    /// The system does not let users have namespaces.
    #[error("{file} is {value}, so that users can have no namespaces of their own")]
    SwitchedOff {
        /// The switch.
        file: &'static str,
        /// What it says.
        value: &'static str,
        /// What makes it say otherwise.
        undo: &'static str,
    },
    /// The kernel refuses.
    #[error("the kernel refuses a user namespace: {0}")]
    Refused(#[source] io::Error),
    /// The ids could not be mapped.
    #[error("cannot map the subordinate ids: {0}")]
    Unmapped(String),
}

impl Obstacle {
    /// What takes it out of the way.
    pub fn remedy(&self) -> String {
        match self {
            Obstacle::NoIds { user, free, .. } => {
                let range = format!("{free}-{}", free.saturating_add(0xFFFF));
                format!("`usermod --add-subuids {range} --add-subgids {range} {user}`, as root")
            }
            Obstacle::NoTool(_) => {
                "install the package `uidmap` (Debian, Ubuntu) or `shadow-utils` (Fedora)".to_owned()
            }
            Obstacle::SwitchedOff { undo, .. } => format!("`{undo}`, as root"),
            Obstacle::Refused(_) => "in a container, start it with --privileged".to_owned(),
            Obstacle::Unmapped(_) => {
                "`newuidmap` and `newgidmap` must be allowed to: setuid, and the ids in the files nobody else's"
                    .to_owned()
            }
        }
    }
}

/// Ids as the process sees them and as they are outside: the rows of user_namespaces(7), which differ only with what
/// the namespace was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    users: Vec<Row>,
    groups: Vec<Row>,
}

/// As many ids from `inside` on as there are from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    inside: u32,
    outside: u32,
    count: u32,
}

impl Ids {
    /// Those of this process.
    pub fn current() -> Self {
        let rows = |file| std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(Row::parse).collect();
        Self { users: rows("/proc/self/uid_map"), groups: rows("/proc/self/gid_map") }
    }

    /// Root for a user and their group, and behind it their subordinate ids.
    fn of(user: Uid, group: Gid) -> Result<Self, Obstacle> {
        let name = User::from_uid(user).ok().flatten().map(|user| user.name);
        let name = name.unwrap_or_else(|| user.to_string());
        let [(users, free_users), (groups, free_groups)] = [USERS, GROUPS].map(|(file, _)| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            ranges(&text, &name, user)
        });
        for ((file, _), own) in [(USERS, &users), (GROUPS, &groups)] {
            if own.is_empty() {
                return Err(Obstacle::NoIds { file, user: name, free: free_users.max(free_groups) });
            }
        }
        Ok(Self { users: rows(user.as_raw(), users), groups: rows(group.as_raw(), groups) })
    }

    /// Whether they are the same inside and outside.
    pub fn are_the_machines(&self) -> bool {
        [&self.users, &self.groups].into_iter().flatten().all(|row| row.inside == row.outside)
    }

    /// How many users there are.
    pub fn users(&self) -> u64 {
        self.users.iter().map(|row| u64::from(row.count)).sum()
    }

    /// Maps them for the process `process`.
    fn map(&self, process: Pid) -> Result<(), String> {
        for ((_, tool), rows) in [(USERS, &self.users), (GROUPS, &self.groups)] {
            let numbers = rows.iter().flat_map(|row| [row.inside, row.outside, row.count]);
            let path = find(tool).ok_or_else(|| format!("there is no `{tool}`"))?;
            let mut command = Command::new(path);
            command.arg(process.to_string()).args(numbers.map(|number| number.to_string()));
            let output = command.output().map_err(|error| format!("{tool}: {error}"))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
        }
        Ok(())
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |rows: &[Row]| rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        write!(f, "users {} groups {}", text(&self.users), text(&self.groups))
    }
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        Some(Self { inside: numbers.next()?, outside: numbers.next()?, count: numbers.next()? })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// Whether this process is in another user namespace than the machine's first one: then there is no right to devices,
/// nor to attributes that are root's alone.
pub fn in_namespace() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    // A process that can enter one asks only when it has.
    *KNOWN.get_or_init(|| std::fs::metadata("/proc/self/ns/user").is_ok_and(|file| file.ino() != FIRST_NAMESPACE))
}

/// Makes this process root in user and mount namespaces of its own, which only the process itself and what it starts
/// are in.
///
/// To be called by the only thread of a process, before it has asked whether it is [`in_namespace`].
///
/// # Errors
/// What is in the way. After [`Obstacle::Unmapped`] the process is nobody, and good for nothing but saying so.
pub fn enter() -> Result<(), Obstacle> {
    let ids = available()?;
    let (mut ours, theirs) = UnixStream::pair().map_err(Obstacle::Refused)?;
    #[expect(unsafe_code, reason = "only who stays outside may map the ids")]
    // SAFETY: this process has a single thread, so the child's memory is consistent.
    let forked = unsafe { fork() }.map_err(|error| Obstacle::Refused(error.into()))?;
    let ForkResult::Parent { child } = forked else {
        drop(ours);
        map_when_asked(&ids, theirs);
        std::process::exit(0);
    };
    drop(theirs);
    let unshared = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    let mut problem = String::new();
    let mapped = match unshared {
        Ok(()) => ours.write_all(b"!").and_then(|()| ours.read_to_string(&mut problem)).map(drop),
        Err(_) => ours.shutdown(Shutdown::Both),
    };
    waitpid(child, None).ok();
    unshared.map_err(|error| switched_off().unwrap_or_else(|| Obstacle::Refused(error.into())))?;
    match mapped {
        Ok(()) if problem.is_empty() => Ok(()),
        Ok(()) => Err(Obstacle::Unmapped(problem)),
        Err(error) => Err(Obstacle::Unmapped(error.to_string())),
    }
}

/// Returns the ids that [`enter`] would give, as far as that is known without trying.
///
/// # Errors
/// What is in the way.
pub fn available() -> Result<Ids, Obstacle> {
    for (_, tool) in [USERS, GROUPS] {
        find(tool).ok_or(Obstacle::NoTool(tool))?;
    }
    let ids = Ids::of(Uid::current(), Gid::current())?;
    match switched_off() {
        Some(off) => Err(off),
        None => Ok(ids),
    }
}

/// In the child that stays outside: maps the ids for its parent once that is ready, and reports what went wrong.
fn map_when_asked(ids: &Ids, mut parent: UnixStream) {
    if parent.read_exact(&mut [0]).is_ok()
        && let Err(problem) = ids.map(getppid())
    {
        // Without a reader nobody needs it.
        parent.write_all(problem.as_bytes()).ok();
    }
}

fn find(tool: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(tool)).find(|path| path.is_file())
}

fn switched_off() -> Option<Obstacle> {
    let is_off = |(file, off, _): &&(&'static str, &'static str, &'static str)| {
        std::fs::read_to_string(file).is_ok_and(|text| text.trim() == *off)
    };
    SWITCHES.iter().find(is_off).map(|&(file, value, undo)| Obstacle::SwitchedOff { file, value, undo })
}

/// A user's ranges in the text of a file of subordinate ids, by name or number; and the first id behind all ranges of
/// the text.
pub(crate) fn ranges(text: &str, name: &str, user: Uid) -> (Vec<(u32, u32)>, u32) {
    let number = user.to_string();
    let (mut own, mut free) = (Vec::new(), 100_000);
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [of, start, count] = fields[..] else { continue };
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        free = free.max(start.saturating_add(count));
        if (of == name || of == number) && count > 0 {
            own.push((start, count));
        }
    }
    (own, free)
}

/// Rows with `root` as 0 and the ids of all ranges behind it.
fn rows(root: u32, ranges: Vec<(u32, u32)>) -> Vec<Row> {
    let mut rows = vec![Row { inside: 0, outside: root, count: 1 }];
    let mut inside = 1;
    for (outside, count) in ranges {
        rows.push(Row { inside, outside, count });
        inside = u32::saturating_add(inside, count);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_ranges_are_found_by_name_and_by_number() {
        let text = "# none\nann:100000:65536\nbob:165536:1000\n1001:300000:10\nbob:x:1\nbob:1:0\nbroken\n";
        assert_eq!(ranges(text, "bob", Uid::from_raw(1001)), (vec![(165_536, 1000), (300_000, 10)], 300_010));
        assert_eq!(ranges(text, "eve", Uid::from_raw(1002)), (vec![], 300_010));
        assert_eq!(ranges("", "eve", Uid::from_raw(1002)), (vec![], 100_000));
    }

    #[test]
    fn the_user_becomes_root_and_the_ranges_follow() {
        let rows = rows(1001, vec![(165_536, 1000), (300_000, 10)]);
        let ids = Ids { users: rows.clone(), groups: rows };
        let text = "0:1001:1,1:165536:1000,1001:300000:10";
        assert_eq!(ids.to_string(), format!("users {text} groups {text}"));
        assert_eq!(ids.users(), 1011);
        assert!(!ids.are_the_machines());
    }

    #[test]
    fn advice_names_ids_that_are_free() {
        let obstacle = Obstacle::NoIds { file: USERS.0, user: "eve".to_owned(), free: 300_010 };
        assert_eq!(obstacle.to_string(), "/etc/subuid has no ids for the user eve");
        let advice = "`usermod --add-subuids 300010-365545 --add-subgids 300010-365545 eve`, as root";
        assert_eq!(obstacle.remedy(), advice);
    }
}
