//! Where everything in a store lies.

use std::path::{Path, PathBuf};

use osbc_ir::{ItemKey, StageId};

/// The file in an object that describes it.
pub(crate) const META: &str = "meta.json";
/// The file in an object that says that all of it has reached the disk.
pub(crate) const DURABLE: &str = "durable";
/// The file in an object that has no tree of its own but stands for another one.
pub(crate) const ALIAS: &str = "alias.json";
/// The file in an object with the digest of its tree, where that was needed.
pub(crate) const DIGEST: &str = "digest";

/// The file in an object with a stamp of its tree that is newer than that in its description.
pub(crate) const STAMP: &str = "stamp";

/// The directory of an object that holds its tree, or its changes to the layers below it.
///
/// It is named after this one object, so that who lies on it finds out with one look whether it is still the same. A
/// checkpoint of osbuild's has no name.
pub(crate) fn content(instance: &str) -> String {
    if instance.is_empty() { "tree".to_owned() } else { format!("tree-{instance}") }
}

/// The directory in a store of osbuild's that holds what osbc adds to it.
const WITHIN_OSBUILDS: &str = "osbc";

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The store itself.
    pub(crate) root: PathBuf,
    /// The fetched items.
    sources: PathBuf,
}

impl Layout {
    /// A store of osbc's own.
    pub(crate) fn new(root: PathBuf) -> Self {
        let sources = root.join("sources");
        Self { root, sources }
    }

    /// osbc's part of a store of osbuild's, with which it has the fetched items in common.
    pub(crate) fn within_osbuilds(store: &Path) -> Self {
        Self { root: store.join(WITHIN_OSBUILDS), sources: store.join("sources") }
    }

    /// The file with the number of the format.
    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    /// The lock between those who lease and those who evict.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn object(&self, id: StageId) -> PathBuf {
        self.objects().join(id.to_string())
    }

    pub(crate) fn prepared(&self) -> PathBuf {
        self.root.join("prepared")
    }

    /// What is known of items.
    pub(crate) fn stamps(&self) -> PathBuf {
        self.root.join("stamps")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    pub(crate) fn sources(&self) -> PathBuf {
        self.sources.clone()
    }

    /// The fetched items that nobody else's store has a part in.
    pub(crate) fn own_sources(&self) -> Option<&Path> {
        self.sources.starts_with(&self.root).then_some(&self.sources)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What results came of which content.
    pub(crate) fn contents(&self) -> PathBuf {
        self.root.join("contents")
    }

    /// What an object was found to be damaged, under a name of its own.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// The file with the number of bytes that the store takes.
    pub(crate) fn usage(&self) -> PathBuf {
        self.root.join("usage")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }

    /// A source item; `None` if its name would lead elsewhere.
    pub(crate) fn item(&self, key: &ItemKey) -> Option<PathBuf> {
        key.is_storable().then(|| self.sources().join(&key.content_type).join(&key.checksum))
    }
}
