//! One sealed object: its description, and whether it can be trusted. Reads only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use osbc_ir::{StageId, Value};
use serde::{Deserialize, Serialize};

use super::layout::{ALIAS, DURABLE, LAYER, Layout, META, TREE};
use crate::request::TreeStack;

/// The format of [`ObjectMeta`]; an object of another one counts as absent.
pub(crate) const FORMAT: u32 = 1;

/// What an object says about itself, in `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// The format of this description.
    pub format: u32,
    /// The id, which is also the object's name.
    pub id: StageId,
    /// The running system's boot in which it was sealed: proof enough that its data can be read as long as that lasts.
    /// None where the system does not tell.
    pub boot: Option<String>,
    /// The result that it continues; none for one from an empty tree.
    pub base: Option<StageId>,
    /// Tells it from any other object that is or was made for the same id.
    pub instance: String,
    /// The objects whose layers lie below its own, lowest first; none when it holds a whole tree.
    pub lowers: Vec<Lower>,
    /// When its tree was begun, in seconds and nanoseconds since 1970: what is not older was written by its stages.
    #[serde(default)]
    pub created: Option<(i64, i64)>,
    /// The epoch that its times are clamped to.
    pub source_epoch: Option<i64>,
    /// The stages that made it from its base, the last one being its own.
    pub steps: Vec<StepRecord>,
}

/// An object that others lie on or stand for. A layer only makes sense on the very one that it was made on: a stage that runs again
/// need not write the same again, and then the layer would show a mixture that no stage has ever seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lower {
    /// Its id.
    pub id: StageId,
    /// Its [`ObjectMeta::instance`].
    pub instance: String,
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
    pub(crate) fn as_lower(&self) -> Lower {
        Lower { id: self.id, instance: self.instance.clone() }
    }

    /// The metadata of the object's own stage; `null` when it wrote none.
    pub fn metadata(&self) -> &Value {
        self.steps.last().map_or(&Value::Null, |step| &step.metadata)
    }

    /// The folder of the object that holds its tree or layer.
    fn content(&self) -> &'static str {
        if self.lowers.is_empty() { TREE } else { LAYER }
    }

    /// The object's folders as a tree to read; `place` tells where an object lies.
    pub(crate) fn stack(&self, place: impl Fn(StageId) -> PathBuf) -> TreeStack {
        let below = self
            .lowers
            .iter()
            .enumerate()
            .map(|(index, lower)| place(lower.id).join(if index == 0 { TREE } else { LAYER }));
        let own = place(self.id).join(self.content());
        TreeStack { lower: below.chain([own]).collect(), upper: None }
    }
}

/// The id of the running system's boot; none where it does not tell.
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
}

impl<'a> Reader<'a> {
    pub(crate) fn new(layout: &'a Layout, boot: Option<&'a str>) -> Self {
        Self { layout, boot, known: HashMap::new() }
    }

    /// The description of an object, for an alias that of the one that it stands for; none if it is absent, damaged,
    /// stacked on one that is, or may have lost data in a crash of the system.
    pub(crate) fn read(&mut self, id: StageId) -> Option<Arc<ObjectMeta>> {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        // A damaged object that leads back to itself finds itself absent.
        self.known.insert(id, None);
        let meta = self.read_alone(id).filter(|meta| {
            let below = meta.lowers.split_last();
            // A layer names all that lie below it, so the one just below names the same but itself.
            below.is_none_or(|(last, rest)| {
                self.read(last.id).is_some_and(|lower| lower.instance == last.instance && lower.lowers == rest)
            })
        });
        let meta = meta.map(Arc::new).or_else(|| self.read_alias(id));
        self.known.insert(id, meta.clone());
        meta
    }

    /// The object that an alias stands for.
    fn read_alias(&mut self, id: StageId) -> Option<Arc<ObjectMeta>> {
        let text = std::fs::read(self.layout.object(id).join(ALIAS)).ok()?;
        let target: Lower = serde_json::from_slice(&text).ok()?;
        self.read(target.id).filter(|meta| meta.instance == target.instance)
    }

    fn read_alone(&self, id: StageId) -> Option<ObjectMeta> {
        let folder = self.layout.object(id);
        let text = std::fs::read(folder.join(META)).ok()?;
        let meta: ObjectMeta = serde_json::from_slice(&text).ok()?;
        let whole = meta.format == FORMAT && meta.id == id && is_folder(folder.join(meta.content()));
        let safe = (self.boot.is_some() && meta.boot.as_deref() == self.boot) || folder.join(DURABLE).exists();
        (whole && safe).then_some(meta)
    }
}

fn is_folder(path: PathBuf) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}
