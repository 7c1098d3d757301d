//! The key of a source item, which manifests write as the key of an object in `sources`.

use std::fmt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Names a source item: what kind of content it is, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemKey {
    /// The kind of content, which is also the directory below `sources/`, e.g. `org.osbuild.files`.
    pub content_type: String,
    /// `ALGORITHM:HEX` over the content; for some source types an id of another form.
    pub checksum: String,
}

impl ItemKey {
    /// Returns the key of an item.
    pub fn new(content_type: impl Into<String>, checksum: impl Into<String>) -> Self {
        Self { content_type: content_type.into(), checksum: checksum.into() }
    }

    /// Returns whether both parts can be names of files, as they are in a store.
    pub fn is_storable(&self) -> bool {
        is_file_name(&self.content_type) && is_file_name(&self.checksum)
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.content_type, self.checksum)
    }
}

/// Returns whether `name` is one ordinary component of a path.
pub fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    !name.contains('\0')
        && matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storable_key_leads_nowhere_else() {
        assert!(ItemKey::new("a.b", "sha256:1").is_storable());
        for name in ["", ".", "..", "/", "/etc", "a/b", "a/", "a\0"] {
            assert!(!ItemKey::new("a", name).is_storable(), "{name:?}");
            assert!(!ItemKey::new(name, "a").is_storable(), "{name:?}");
        }
    }
}
