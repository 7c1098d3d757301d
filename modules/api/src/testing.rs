//! Running one stage on a throw-away tree, in the test's own process: no sandbox, so only for stages that keep to what
//! their context gives them.
//!
//! ```ignore
//! let done = Case::new(&MODULE).file("etc/hostname", "old\n").run(json!({"hostname": "new"})).ok();
//! assert_eq!(done.text("etc/hostname"), "new\n");
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use osbc_ir::Value;
use tempfile::TempDir;

use crate::context::{MappedInput, MountPoint, OpenDevice, StageContext, StageMeta, no_options};
use crate::def::{Entry, ModuleDef};
use crate::error::Error;
use crate::tree::Tree;

/// A stage and what it is going to be run on.
#[derive(Debug)]
pub struct Case {
    def: &'static ModuleDef,
    /// Holds the directories `tree`, `inputs/NAME` and `mounts/NAME`.
    directory: TempDir,
    context: StageContext,
}

/// What came of a run.
#[derive(Debug)]
pub struct Done {
    /// What the stage returned.
    pub result: Result<(), Error>,
    /// The tree as it is now.
    pub tree: Tree,
    /// The metadata that the stage set, or null.
    pub metadata: Value,
    directory: TempDir,
}

impl Case {
    /// A stage, with an empty tree and nothing else.
    pub fn new(def: &'static ModuleDef) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("tree");
        fs::create_dir(&path).expect("the directory is new");
        let context = StageContext {
            tree: Tree::open(path).expect("the directory is there"),
            options: no_options(),
            requires: def.requires,
            inputs: BTreeMap::new(),
            devices: BTreeMap::new(),
            mounts: BTreeMap::new(),
            meta: StageMeta { id: "0".repeat(64), source_epoch: None },
            metadata: RefCell::default(),
        };
        Self { def, directory, context }
    }

    /// The tree, for what the other methods do not offer.
    pub fn tree(&self) -> &Tree {
        &self.context.tree
    }

    /// What the stage would be handed, for helpers that modules share; without options.
    pub fn context(&self) -> &StageContext {
        &self.context
    }

    /// The directory of the tree as the host sees it.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Adds a directory, and those above it.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.tree().create_dir_all(path, 0o755).expect("the case's directory can be made");
        self
    }

    /// Adds a file, and the directories above it.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let case = self.dir(parent(path));
        case.tree().write(path, content).expect("the case's file can be written");
        case
    }

    /// Adds a symlink that says `target`, and the directories above it.
    #[must_use]
    pub fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let case = self.dir(parent(path));
        case.tree().symlink(target, path).expect("the case's link can be made");
        case
    }

    /// Sets the mode of what is in the tree.
    #[must_use]
    pub fn mode(self, path: &str, mode: u32) -> Self {
        self.tree().chmod(path, mode).expect("the case's mode can be set");
        self
    }

    /// Adds an input: what its module would say about it, and what is in its directory.
    #[must_use]
    pub fn input(mut self, name: &str, data: Value, fill: impl FnOnce(&Tree)) -> Self {
        let path = self.filled("inputs", name, fill);
        self.context.inputs.insert(name.to_owned(), MappedInput { path, data });
        self
    }

    /// Adds a mount with what is in it.
    #[must_use]
    pub fn mount(mut self, name: &str, fill: impl FnOnce(&Tree)) -> Self {
        let path = self.filled("mounts", name, fill);
        self.context.mounts.insert(name.to_owned(), MountPoint { path });
        self
    }

    /// Adds a device by its node, or by a file in its place.
    #[must_use]
    pub fn device(mut self, name: &str, path: impl Into<PathBuf>, data: Value) -> Self {
        self.context.devices.insert(name.to_owned(), OpenDevice { path: path.into(), data, keep: Vec::new() });
        self
    }

    /// Sets the seconds since 1970 that the stage takes for "now".
    #[must_use]
    pub fn source_epoch(mut self, seconds: i64) -> Self {
        self.context.meta.source_epoch = Some(seconds);
        self
    }

    /// Runs the stage with these options.
    pub fn run(mut self, options: Value) -> Done {
        let Entry::Stage(entry) = self.def.entry else { panic!("{} is not a stage", self.def.name) };
        self.context.options = options;
        let result = entry(&self.context);
        Done {
            result,
            tree: self.context.tree,
            metadata: self.context.metadata.into_inner(),
            directory: self.directory,
        }
    }

    fn filled(&self, kind: &str, name: &str, fill: impl FnOnce(&Tree)) -> PathBuf {
        let path = self.directory.path().join(kind).join(name);
        fs::create_dir_all(&path).expect("the case's directory can be made");
        fill(&Tree::open(&path).expect("the directory is there"));
        path
    }
}

impl Done {
    /// The same, having succeeded.
    ///
    /// # Panics
    /// The stage failed.
    #[track_caller]
    pub fn ok(self) -> Self {
        if let Err(error) = &self.result {
            panic!("the stage failed: {error}");
        }
        self
    }

    /// Why the stage failed.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn err(&self) -> String {
        self.result.as_ref().expect_err("the stage was to fail").to_string()
    }

    /// What is in a text file of the tree.
    ///
    /// # Panics
    /// It cannot be read.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        self.tree.read_to_string(path).expect("the file is there")
    }

    /// What a link of the tree says.
    ///
    /// # Panics
    /// It is no link.
    #[track_caller]
    pub fn link(&self, path: &str) -> String {
        self.tree.read_link(path).expect("the link is there").to_string_lossy().into_owned()
    }

    /// The permission bits of what is in the tree, a link itself.
    ///
    /// # Panics
    /// It is not there.
    #[track_caller]
    pub fn mode(&self, path: &str) -> u32 {
        self.tree.symlink_metadata(path).expect("it is there").mode() & 0o7777
    }

    /// User and group of what is in the tree, a link itself.
    ///
    /// # Panics
    /// It is not there.
    #[track_caller]
    pub fn owner(&self, path: &str) -> (u32, u32) {
        let metadata = self.tree.symlink_metadata(path).expect("it is there");
        (metadata.uid(), metadata.gid())
    }

    /// The directory of a mount, as the stage had it.
    ///
    /// # Panics
    /// The case had no such mount.
    pub fn mount(&self, name: &str) -> Tree {
        Tree::open(self.directory.path().join("mounts").join(name)).expect("the case has that mount")
    }
}

fn parent(path: &str) -> &str {
    path.trim_matches('/').rsplit_once('/').map_or("/", |(parent, _)| parent)
}
