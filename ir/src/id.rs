//! Identifiers: 32 bytes each, every one its own type, hexadecimal only when printed or parsed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex::digits;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, found `{0}`")]
pub struct ParseIdError(pub String);

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 bytes of a digest.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 12 hexadecimal digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(12);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type! {
    /// What a stage's tree will hold: keyed BLAKE3 over all that went in ([`crate::identity`]).
    StageId
}
id_type! {
    /// A source item: keyed BLAKE3 over its content type and checksum.
    ItemId
}
id_type! {
    /// What came out: a digest over the content of a finished tree.
    TreeDigest
}
id_type! {
    /// What went into a stage by content: like a [`StageId`], with the digests of trees in place of their ids
    /// ([`crate::content`]).
    ContentKey
}
id_type! {
    /// What a stage is without the trees that it uses ([`crate::content`]).
    StageKey
}
id_type! {
    /// The content of a file of the host, BLAKE3.
    FileDigest
}
id_type! {
    /// osbuild's id of a stage, a pipeline, an input or a mount: SHA-256 ([`crate::compat`]).
    CompatId
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&digits(*byte));
    }
    f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse_hex(text: &str) -> Result<[u8; 32], ParseIdError> {
    let error = || ParseIdError(text.to_owned());
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(error());
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| error())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips() {
        let id = StageId::from_bytes(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(id.to_string().parse::<StageId>(), Ok(id));
        assert_eq!(id.short().len(), 12);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<StageId>(), Err(ParseIdError(text.to_owned())));
        }
    }
}
