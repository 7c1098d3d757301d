//! Programs of a tree, run with the tree for their root and as a container runtime runs them.
//!
//! A program has the capabilities, the devices, the `/proc` and `/sys` and the system calls that podman gives by
//! default ([`osbc_module_api::container`]), and besides the tree nothing that it could write to: its mount namespace
//! has no other mounts. What it starts ends with it, since it runs in a pid namespace of its own. A module that needs
//! more for a program says so with [`Program::may`] or [`Program::shares`].
//!
//! All of it is done by a thread of its own in a mount namespace of its own, which nothing outlives: however a program
//! or the stage ends, nothing stays mounted, and no mount is ever seen by anybody else. What stays, as with osbuild,
//! are the directories of the mounts that the tree did not have.

pub(crate) mod architecture;
mod attend;
mod contain;
mod image;
mod root;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::{self, ScopedJoinHandle};

use osbc_module_api::*;
use rustix::mount::mount_bind;
pub(crate) use rustix::thread::CapabilitySet;

pub(crate) use attend::Limit;
use attend::Limits;
use contain::Rights;
use image::Image;

/// Where programs are looked for, as a path of the tree.
const DIRECTORIES: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// A program of a tree, and the arguments that it will get. What it prints goes to the stage's log.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    tree: &'a Tree,
    path: PathBuf,
    /// What it is called as, which is what it gets to see.
    name: String,
    arguments: Vec<OsString>,
    covers: Vec<(PathBuf, PathBuf)>,
    shared: &'static [&'static str],
    /// Its capabilities beyond those of a container.
    more: CapabilitySet,
    /// All that its environment has; that of the sandbox unless given.
    environment: Option<Vec<(String, String)>>,
    limits: Limits,
}

impl<'a> Program<'a> {
    /// Looks for a program in the tree, by its absolute path or by name in the directories that such are in.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn find(tree: &'a Tree, program: &str) -> Result<Self, Error> {
        let places = match program.strip_prefix('/') {
            Some(path) => vec![path.to_owned()],
            None => DIRECTORIES.iter().map(|directory| format!("{directory}/{program}")).collect(),
        };
        for place in places {
            if tree.is_file(&place)? {
                let path = Path::new("/").join(place);
                let name = program.to_owned();
                return Ok(Self {
                    tree,
                    path,
                    name,
                    arguments: Vec::new(),
                    covers: Vec::new(),
                    shared: &[],
                    more: CapabilitySet::empty(),
                    environment: None,
                    limits: Limits::default(),
                });
            }
        }
        Err(Error::missing_in_tree(program.rsplit('/').next().unwrap_or(program)))
    }

    /// Adds an argument.
    #[must_use]
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Lets the file `by` of the tree lie over the file `path` while the program runs.
    #[must_use]
    pub(crate) fn cover(mut self, path: impl AsRef<Path>, by: impl AsRef<Path>) -> Self {
        self.covers.push((Path::new("/").join(path), Path::new("/").join(by)));
        self
    }

    /// Gives it further capabilities of the stage. Callers say why a program needs them.
    #[must_use]
    pub(crate) fn may(mut self, capabilities: CapabilitySet) -> Self {
        self.more = capabilities;
        self
    }

    /// Shows it these directories of the build in place of the tree's, with all that is mounted in them.
    ///
    /// The tree must have directories of these names. The program keeps all rights of the stage, and gets no `/sys`,
    /// `/dev` and `/tmp` of its own. For programs that work on the stage's devices and mounts.
    #[must_use]
    pub(crate) fn shares(mut self, directories: &'static [&'static str]) -> Self {
        self.shared = directories;
        self
    }

    /// Gives it these variables for its whole environment.
    #[must_use]
    pub(crate) fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = Some(variables.iter().map(owned).collect());
        self
    }

    /// Lets it take so long and no longer, and lets it leave no process behind: either is then a failure that names
    /// what ran, and nothing does any more.
    #[must_use]
    pub(crate) fn attended(mut self, limit: Limit) -> Self {
        self.limits = Limits { own: Some(limit), each: None };
        self
    }

    /// Lets each program that it starts take so long and no longer, itself as long as it wants, and lets it leave no
    /// process behind; else as [`Program::attended`].
    #[must_use]
    pub(crate) fn attended_each(mut self, limit: Limit) -> Self {
        self.limits = Limits { own: None, each: Some(limit) };
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// The tree cannot be prepared, or the program cannot be started or does not end with 0.
    pub(crate) fn run(self) -> Result<(), Error> {
        let words = std::iter::once(self.path.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        let command = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let status = self.status()?;
        if status.success() { Ok(()) } else { Err(Error::ToolFailed { command, status }) }
    }

    /// Runs it and returns how it ended.
    ///
    /// # Errors
    /// The tree cannot be prepared, or the program cannot be started, or breaks a limit.
    pub(crate) fn status(self) -> Result<ExitStatus, Error> {
        if self.shared.is_empty() {
            ["proc", "sys", "dev"].into_iter().try_for_each(|directory| self.tree.create_dir_all(directory, 0o777))?;
        }
        let has_tmp = self.tree.is_dir("tmp")?;
        let root = self.tree.path_for_tools("/")?;
        let rights = if self.shared.is_empty() { Rights::container(self.more) } else { Rights::of_stage() };
        let inside = || -> Result<ExitStatus, Error> {
            root::enter(&root, has_tmp, self.shared)?;
            for (path, by) in &self.covers {
                mount_bind(by, path).map_err(Error::io("mount a file on", path))?;
            }
            let environment = self.environment.as_deref();
            let image = Image::new(&self.path, &self.name, &self.arguments, environment);
            let image = image.map_err(Error::io("pass arguments to", &self.path))?;
            attend::status(&self.path, image, rights, self.limits)
        };
        let joined = thread::scope(|scope| threads::spawn_scoped(scope, inside).map(ScopedJoinHandle::join));
        joined.map_err(Error::NoThread)?.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Small trees with programs that say what they see.
#[cfg(test)]
pub(crate) mod testing {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::ModuleDef;
    use osbc_module_api::testing::Case;

    /// A case whose tree has a shell and at `path` a script of it; none where such cannot run.
    pub(crate) fn with_script(def: &'static ModuleDef, path: &str, script: &str) -> Option<Case> {
        if !has_root() || !has_tool("busybox") {
            return None;
        }
        let busybox = std::fs::read("/bin/busybox").expect("it was found");
        let case = Case::new(def)
            .file("usr/bin/busybox", busybox)
            .mode("usr/bin/busybox", 0o755)
            .link("usr/bin/sh", "busybox")
            .link("bin", "usr/bin")
            .dir("etc")
            .file(path, format!("#!/bin/sh\n{script}\n"));
        Some(case.mode(path, 0o755))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_module_api::testing::{Case, Done};

    use super::testing::with_script;
    use super::*;

    static RUN: ModuleDef = ModuleDef {
        kind: Kind::Stage,
        name: "org.osbc.test-chroot",
        revision: 1,
        capabilities: &[],
        requires: &[],
        schema: || Schema::same(json!({})),
        rejects: &[],
        parse: |_| Ok(()),
        entry: Entry::Stage(|cx| Program::find(&cx.tree, "program")?.args(["a b", "c"]).run()),
    };

    fn done(script: &str, more: impl FnOnce(Case) -> Case) -> Option<Done> {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let done = more(with_script(&RUN, "usr/sbin/program", script)?).run(json!({}));
        let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = done.tree.path_for_tools("/").unwrap();
        let place = place.parent().unwrap().display().to_string();
        assert!(!after.contains(&place), "{before}\n{after}");
        Some(done)
    }

    #[test]
    fn a_program_sees_the_tree_and_what_it_needs() {
        let script =
            "{ pwd; echo \"$1|$2\"; busybox ls / /dev; busybox readlink /proc/self/exe; busybox readlink /dev/fd
            busybox ls /proc/self/fd/1 /sys/kernel >/dev/null && echo mounted; echo x >/dev/null
            busybox stat -c %a /tmp /dev/shm; } >/etc/said 2>&1";
        let Some(done) = done(script, |case| case.file("tmp/old", "")) else { return };
        let done = done.ok();
        let said = done.text("etc/said");
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(&words[..3], ["/", "a", "b|c"], "{said}");
        for word in ["null", "fd", "/usr/bin/busybox", "/proc/self/fd", "mounted", "1777"] {
            assert!(words.contains(&word), "{word}: {said}");
        }
        // The tree's own files are covered, not touched; the directories of the mounts stay.
        assert_eq!(done.tree.read_dir("tmp").unwrap(), ["old"]);
        for directory in ["proc", "sys", "dev"] {
            assert!(done.tree.read_dir(directory).unwrap().is_empty(), "{directory}");
            assert_eq!(done.mode(directory), 0o755);
        }
    }

    #[test]
    fn what_a_program_leaves_in_temporary_directories_is_gone_and_no_tmp_is_made() {
        let Some(done) = done("echo x >/tmp/new; echo x >/dev/shm/new", |case| case.dir("tmp")) else { return };
        assert!(done.ok().tree.read_dir("tmp").unwrap().is_empty());
        let Some(done) = self::done("exit 0", |case| case) else { return };
        assert!(!done.ok().tree.exists("tmp").unwrap());
    }

    #[test]
    fn nothing_stays_when_it_fails() {
        let Some(done) = done("busybox mount -t tmpfs x /etc; exit 3", |case| case.file("etc/kept", "")) else {
            return;
        };
        assert_eq!(done.err(), "`/usr/sbin/program a b c` failed: exit status: 3");
        assert_eq!(done.tree.read_dir("etc").unwrap(), ["kept"]);
        let Some(done) = self::done("busybox kill -9 $$", |case| case) else { return };
        assert!(done.err().contains("signal: 9"), "{}", done.err());
    }

    #[test]
    fn the_calling_thread_stays_where_it_is() {
        let Some(done) = done("exit 0", |case| case) else { return };
        done.ok();
        assert!(Path::new("/proc/self").exists());
        assert_eq!(fs::read_link("/proc/thread-self/root").unwrap(), Path::new("/"));
        assert!(!Path::new("/usr/sbin/program").exists());
    }

    #[test]
    fn directories_of_mounts_that_are_links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let Some(done) = done("busybox ls /real >/etc/said", |case| {
            case.dir("real").link("dev", "/real").link("sys", outside.path())
        }) else {
            return;
        };
        // A link out of the tree leads to a directory that the tree does not have.
        assert!(done.result.is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let Some(done) = self::done("busybox ls /real >/etc/said", |case| case.dir("real").link("dev", "/real")) else {
            return;
        };
        assert!(done.ok().text("etc/said").contains("null"));
    }
}
