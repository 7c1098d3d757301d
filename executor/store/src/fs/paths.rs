//! Paths in messages between processes of osbc.
//!
//! Formats of text have no paths that are not UTF-8; such a path is written as its bytes in hexadecimal digits behind a
//! NUL, which no path begins with.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use osbc_ir::hex;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

/// What is made of paths.
pub trait Paths: Sized {
    /// The same made of texts.
    type Texts: Serialize + DeserializeOwned;

    /// Returns what stands for it in a message.
    fn to_texts(&self) -> Self::Texts;

    /// Returns what the texts stand for; `None` if they stand for nothing.
    fn from_texts(texts: Self::Texts) -> Option<Self>;
}

impl Paths for PathBuf {
    type Texts = String;

    fn to_texts(&self) -> String {
        to_text(self)
    }

    fn from_texts(text: String) -> Option<Self> {
        from_text(text)
    }
}

impl Paths for Option<PathBuf> {
    type Texts = Option<String>;

    fn to_texts(&self) -> Option<String> {
        self.as_deref().map(to_text)
    }

    fn from_texts(text: Option<String>) -> Option<Self> {
        text.map(from_text).map_or(Some(None), |path| path.map(Some))
    }
}

impl Paths for Vec<PathBuf> {
    type Texts = Vec<String>;

    fn to_texts(&self) -> Vec<String> {
        self.iter().map(|path| to_text(path)).collect()
    }

    fn from_texts(texts: Vec<String>) -> Option<Self> {
        texts.into_iter().map(from_text).collect()
    }
}

/// Writes paths: for `#[serde(with = "crate::fs::paths")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<P: Paths, S: Serializer>(paths: &P, serializer: S) -> Result<S::Ok, S::Error> {
    paths.to_texts().serialize(serializer)
}

/// Reads paths that [`serialize`] wrote.
///
/// # Errors
/// Those of the deserializer, or a text is not a path.
pub fn deserialize<'de, P: Paths, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    P::from_texts(P::Texts::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("it is no path"))
}

fn to_text(path: &Path) -> String {
    let in_digits = || format!("\0{}", hex(path.as_os_str().as_bytes()));
    path.to_str().map_or_else(in_digits, str::to_owned)
}

fn from_text(text: String) -> Option<PathBuf> {
    let Some(digits) = text.strip_prefix('\0') else { return Some(text.into()) };
    let pairs = digits.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    Some(OsString::from_vec(bytes.collect::<Option<Vec<u8>>>()?).into())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        #[serde(with = "super")]
        one: PathBuf,
        #[serde(with = "super")]
        perhaps: Option<PathBuf>,
        #[serde(with = "super")]
        many: Vec<PathBuf>,
    }

    #[test]
    fn every_path_is_read_as_it_was_written() {
        let odd = PathBuf::from(OsString::from_vec(b"/st\xff\xfe/x".to_vec()));
        for one in ["", "/", "/störe", "relative"].map(PathBuf::from).into_iter().chain([odd.clone()]) {
            for perhaps in [None, Some(odd.clone())] {
                let all = All { one: one.clone(), perhaps, many: vec![odd.clone(), one.clone()] };
                let text = serde_json::to_string(&all).expect("is text");
                assert_eq!(serde_json::from_str::<All>(&text).expect("is read"), all);
            }
        }
        let text = r#"{"one":"\u0000f","perhaps":null,"many":["\u0000zz"]}"#;
        assert!(serde_json::from_str::<All>(text).unwrap_err().to_string().contains("no path"));
    }
}
