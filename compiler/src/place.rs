//! Places in a manifest: the steps from its root to a value. [`crate::spans`] finds them in the text.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

/// One step of a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Into an array, counted from zero.
    Index(usize),
    /// Into an object.
    Name(Cow<'static, str>),
}

impl From<usize> for Key {
    fn from(index: usize) -> Self {
        Key::Index(index)
    }
}

impl From<&'static str> for Key {
    fn from(name: &'static str) -> Self {
        Key::Name(Cow::Borrowed(name))
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Key::Name(Cow::Owned(name))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Key::Index(index) => index.serialize(serializer),
            Key::Name(name) => serializer.serialize_str(name),
        }
    }
}

/// The steps from the root of a manifest to a value; empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Place(Vec<Key>);

impl Place {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// One step further.
    #[must_use]
    pub fn with(&self, key: impl Into<Key>) -> Self {
        let mut keys = Vec::with_capacity(self.0.len() + 2);
        keys.extend_from_slice(&self.0);
        keys.push(key.into());
        Self(keys)
    }

    /// All the steps of another place further.
    #[must_use]
    pub fn join(&self, rest: &Place) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The steps.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl From<Vec<Key>> for Place {
    fn from(keys: Vec<Key>) -> Self {
        Self(keys)
    }
}

/// As osbuild prints it and sorts by it: `.pipelines[0].stages[1]`, `.` for the root.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        for key in &self.0 {
            match key {
                Key::Index(index) => write!(f, "[{index}]")?,
                Key::Name(name) if name.contains(' ') => write!(f, ".'{name}'")?,
                Key::Name(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_print_as_osbuild_prints_them() {
        assert_eq!(Place::root().to_string(), ".");
        let place = Place::root().with("pipelines").with(0).with("two words".to_owned());
        assert_eq!(place.to_string(), ".pipelines[0].'two words'");
    }
}
