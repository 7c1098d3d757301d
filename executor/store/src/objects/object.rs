//! One committed object: its description, and whether it can be trusted. Reads only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use osbc_ir::{StageId, TreeDigest, Value};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Naming;
use crate::fs::overlay::LONGEST_REDIRECT;
use crate::fs::regular;
use crate::objects::layout;
use crate::objects::layout::{ALIAS, DURABLE, Layout, META};

/// The format of [`ObjectMeta`]; an object of another one but [`WITHOUT_PLACEHOLDERS`] counts as absent.
pub(crate) const FORMAT: u32 = 3;
/// The format of objects whose layers have the data of all their files.
pub(crate) const WITHOUT_PLACEHOLDERS: u32 = 2;

/// What an object says about itself, in `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// The format of this description.
    pub format: u32,
    /// The id, which is also the object's name.
    pub id: StageId,
    /// The running system's boot in which it was committed: proof enough that its data can be read as long as that
    /// lasts.
    ///
    /// `None` if the system does not report it.
    pub boot: Option<String>,
    /// The result that it continues; none for one from an empty tree.
    pub base: Option<StageId>,
    /// A random name that no other object of the same id has or had.
    pub instance: String,
    /// The objects whose layers lie below its own, lowest first; `None` if it holds a whole tree.
    pub lowers: Vec<ObjectRef>,
    /// When its tree was begun, in seconds and nanoseconds since 1970: what is not older was written by its stages.
    pub created: Option<(i64, i64)>,
    /// The digest of its own directory as it was written ([`crate::digest::written`]): of what its stages changed, or
    /// of the whole tree when nothing lies below it.
    ///
    /// Not known of a checkpoint of osbuild's.
    pub digest: Option<TreeDigest>,
    /// The stamp of its own directory when it was committed ([`crate::digest::stamp`]); where a file `stamp` lies
    /// beside, that one counts.
    #[serde(default)]
    pub stamp: Option<String>,
    /// Whether its tree, if it is a whole one, holds what overlayfs takes for its own notes ([`crate::objects::marks`]);
    /// then nothing is laid on it. `None` if nobody has looked.
    #[serde(default)]
    pub marks: Option<bool>,
    /// What its own directory takes on disk, but for what it shares.
    pub bytes: u64,
    /// What it has in common with the tree that it is a copy of, by reflinks.
    #[serde(default)]
    pub shared: Option<InCommon>,
    /// How long the path of a file in its whole tree is at most; `None` if that is not known.
    #[serde(default)]
    pub longest_path: Option<u64>,
    /// Whether its layer, or one below, has files whose data lies in the layers below them.
    #[serde(default)]
    pub has_placeholders: bool,
    /// The large files of its tree of which a layer has the changed blocks alone.
    #[serde(default)]
    pub deltas: Vec<Delta>,
    /// The epoch that its times are clamped to.
    pub source_epoch: Option<i64>,
    /// The stages that made it from its base, the last one being its own.
    pub steps: Vec<StepRecord>,
}

/// An object that others lie on or stand for.
///
/// A layer only makes sense on the very one that it was made on: a stage that runs again need not write the same again,
/// and then the layer would show a mixture that no stage has ever seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its id.
    pub id: StageId,
    /// Its [`ObjectMeta::instance`].
    pub instance: String,
}

/// Blocks of the disk that an object has in common with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InCommon {
    /// The other one.
    pub with: ObjectRef,
    /// How much.
    pub bytes: u64,
}

/// A large file of a layer, of which that has only what differs from another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The object in whose layer it is.
    pub layer: ObjectRef,
    /// Its path below the root of that layer.
    #[serde(with = "crate::fs::paths")]
    pub path: PathBuf,
    /// The object below which has all of the file, in its layer under the same path, as it was before.
    pub on: ObjectRef,
    /// What differs: first bytes and lengths, ascending.
    pub changed: Vec<(u64, u64)>,
}

/// What is kept of a stage that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The stage.
    pub id: StageId,
    /// Its module.
    pub module: String,
    /// The metadata that it wrote; `null` when none.
    pub metadata: Value,
    /// How long it took.
    pub duration: Duration,
}

impl ObjectMeta {
    /// The object as something to lie on or to stand for.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef { id: self.id, instance: self.instance.clone() }
    }

    /// The metadata of the object's own stage; `null` when it wrote none.
    pub fn metadata(&self) -> &Value {
        self.steps.last().map_or(&Value::Null, |step| &step.metadata)
    }

    /// How long its stages took.
    pub fn duration(&self) -> Duration {
        self.steps.iter().map(|step| step.duration).sum()
    }

    /// The id of an object that was made of this very one, in the way that `context` names.
    pub(crate) fn derived_id(&self, context: &str) -> StageId {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.id.as_bytes()).update(self.instance.as_bytes());
        StageId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Whether a layer on it may have files whose data lies below: not where overlayfs could not note where that is.
    pub(crate) fn takes_placeholders(&self) -> bool {
        self.longest_path.is_some_and(|longest| longest <= LONGEST_REDIRECT)
    }

    /// How the digest of its own directory names directories.
    pub(crate) fn naming(&self) -> Naming {
        if self.format == WITHOUT_PLACEHOLDERS { Naming::Paths } else { Naming::Bounded }
    }

    /// The object's own directory, with its tree or layer.
    pub(crate) fn content(&self, layout: &Layout) -> PathBuf {
        layout.object(self.id).join(layout::content(&self.instance))
    }

    /// The object's layers, lowest first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = ObjectRef> {
        self.lowers.iter().cloned().chain([self.reference()])
    }
}

impl ObjectRef {
    /// The directory with its tree or layer.
    pub(crate) fn content(&self, layout: &Layout) -> PathBuf {
        layout.object(self.id).join(layout::content(&self.instance))
    }
}

/// A description as it is written: behind its hash, so that a changed bit shows.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    blake3: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The text of a description.
pub(crate) fn encode(meta: &ObjectMeta) -> serde_json::Result<Vec<u8>> {
    let object = serde_json::value::to_raw_value(meta)?;
    let blake3 = blake3::hash(object.get().as_bytes()).to_hex().to_string();
    serde_json::to_vec(&Written { blake3, object: &object })
}

/// The description in a text; `None` if it is not what was written.
pub(crate) fn decode(text: &[u8]) -> Option<ObjectMeta> {
    let written: Written<'_> = serde_json::from_slice(text).ok()?;
    let object = written.object.get();
    let whole = blake3::hash(object.as_bytes()).to_hex().as_str() == written.blake3;
    let meta: ObjectMeta = whole.then(|| serde_json::from_str(object).ok())??;
    matches!(meta.format, FORMAT | WITHOUT_PLACEHOLDERS).then_some(meta)
}

/// Returns the id of the running system's boot; `None` if it does not report it.
pub(crate) fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads objects, each once.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    layout: &'a Layout,
    boot: Option<&'a str>,
    known: HashMap<StageId, Option<Arc<ObjectMeta>>>,
    /// The lower objects that were looked for, and whether they are there.
    lowers: HashMap<ObjectRef, bool>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(layout: &'a Layout, boot: Option<&'a str>) -> Self {
        Self { layout, boot, known: HashMap::new(), lowers: HashMap::new() }
    }

    /// The description of an object, for an alias that of the one that it stands for; `None` if it is absent, damaged,
    /// stacked on one that is not there, or may have lost data in a crash of the system.
    ///
    /// Those below it are not read: a directory's name says which object it belongs to, and what the upper one can be
    /// trusted for was true of them before.
    pub(crate) fn read(&mut self, id: StageId) -> Option<Arc<ObjectMeta>> {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        // A damaged alias that leads back to itself finds itself absent.
        self.known.insert(id, None);
        let meta = self.read_alone(id).filter(|meta| meta.lowers.iter().all(|lower| self.is_there(lower)));
        let meta = meta.map(Arc::new).or_else(|| self.read_alias(id));
        self.known.insert(id, meta.clone());
        meta
    }

    /// The object that an alias stands for.
    fn read_alias(&mut self, id: StageId) -> Option<Arc<ObjectMeta>> {
        let target = self.alias(id)?;
        self.read(target.id).filter(|meta| meta.instance == target.instance)
    }

    /// What an alias names.
    pub(crate) fn alias(&self, id: StageId) -> Option<ObjectRef> {
        let text = regular::read(&self.layout.object(id).join(ALIAS)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(crate) fn read_alone(&self, id: StageId) -> Option<ObjectMeta> {
        let directory = self.layout.object(id);
        let text = regular::read(&directory.join(META)).ok()?;
        let meta = decode(&text)?;
        let whole = meta.id == id && is_directory(&meta.content(self.layout));
        let safe = (self.boot.is_some() && meta.boot.as_deref() == self.boot) || directory.join(DURABLE).exists();
        (whole && safe).then_some(meta)
    }

    fn is_there(&mut self, lower: &ObjectRef) -> bool {
        if let Some(known) = self.lowers.get(lower) {
            return *known;
        }
        let there = is_directory(&lower.content(self.layout));
        self.lowers.insert(lower.clone(), there);
        there
    }
}

pub(crate) fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}
