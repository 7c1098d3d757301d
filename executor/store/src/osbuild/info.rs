//! What osbuild's store says of itself: `cache.info`.

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use osbc_ir::{Map, Value};
use rustix::fs::OFlags;
use serde_json::json;

use super::file::{self, Lock, Wait};
use super::{CACHE_INFO, is_absent};
use crate::error::StoreError;
use crate::fs::regular;

/// Of a new store.
pub(crate) const NEW: &str = r#"{"version": 1}"#;

/// The version of the layout that is known here.
const VERSION: i64 = 1;

/// How much all objects of a store may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As much as there is room for.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

/// The content of `cache.info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    version: Option<i64>,
    /// `None` if none was ever set. For osbuild that means that nothing is kept; who asks for a checkpoint in such a
    /// store wants one.
    limit: Option<Limit>,
}

impl Info {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON.
    pub(crate) fn read(store: &Path) -> Result<Self, StoreError> {
        Ok(Self::of(&document(store)?))
    }

    /// Notes a limit in the store; everything else that is said there stays.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(crate) fn set_limit(self, store: &Path, limit: Limit) -> Result<Self, StoreError> {
        let path = store.join(CACHE_INFO);
        let held =
            file::open(&path, Lock::Exclusive, Wait::Yes, OFlags::empty()).map_err(StoreError::io("lock", &path))?;
        let mut all = document(store)?;
        if let (true, Some(entries)) = (self.is_known(), all.as_object_mut()) {
            let size = match limit {
                Limit::Unlimited => json!("unlimited"),
                Limit::Bytes(bytes) => json!(bytes),
            };
            entries.insert("maximum-size".to_owned(), size);
            let text = serde_json::to_vec(&all).map_err(std::io::Error::from);
            text.and_then(|text| file::replace(store, &path, &text)).map_err(StoreError::io("write", &path))?;
        }
        drop(held);
        Ok(Self { limit: Some(limit), ..self })
    }

    /// Whether the store is laid out in a way that is known here. Of another one nothing is read or written but
    /// sources.
    pub(crate) fn is_known(self) -> bool {
        self.version == Some(VERSION)
    }

    /// The most that all objects may take together; none for as much as there is.
    pub(crate) fn most(self) -> Option<u64> {
        match self.limit {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) | None => None,
        }
    }

    pub(crate) fn of(document: &Value) -> Self {
        let empty = Map::new();
        let entries = document.as_object().unwrap_or(&empty);
        let limit = match entries.get("maximum-size") {
            Some(Value::String(text)) if text == "unlimited" => Some(Limit::Unlimited),
            Some(Value::Number(number)) => number.as_u64().map(Limit::Bytes),
            _ => None,
        };
        Self { version: entries.get("version").and_then(Value::as_i64), limit }
    }
}

/// The running system's boot as osbuild notes it: a digest of its id, in the form of a UUID; `None` if the system does
/// not report it.
pub(crate) fn boot() -> Option<String> {
    let boot = crate::objects::object::boot()?;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(boot.as_bytes()).ok()?;
    mac.update(b"osbuild");
    let digest = mac.finalize().into_bytes();
    let mut bytes: [u8; 16] = digest[..16].try_into().ok()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[6] & 0x3f) | 0x80;
    Some(uuid::Uuid::from_bytes(bytes).simple().to_string())
}

fn document(store: &Path) -> Result<Value, StoreError> {
    let path = store.join(CACHE_INFO);
    let text = match regular::read(&path) {
        Err(error) if is_absent(&error) => return Ok(Value::Null),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    serde_json::from_slice(&text).map_err(|_| StoreError::NotOsbuilds { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_osbuild_would_not_take_for_a_limit_is_none() {
        for (document, limit) in [
            (json!({"maximum-size": 5}), Some(Limit::Bytes(5))),
            (json!({"maximum-size": "unlimited"}), Some(Limit::Unlimited)),
            (json!({"maximum-size": "5 GB"}), None),
            (json!({"maximum-size": -1}), None),
            (json!([]), None),
        ] {
            assert_eq!(Info::of(&document).limit, limit, "{document}");
        }
    }

    #[test]
    fn only_the_known_version_is_used() {
        for (document, known) in
            [(json!({"version": 1}), true), (json!({"version": 2}), false), (json!({}), false), (json!(1), false)]
        {
            assert_eq!(Info::of(&document).is_known(), known, "{document}");
        }
    }
}
