//! The text of a manifest: read once, with a name for messages, and shared by all problems that point into it. Knows no
//! JSON.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// What a manifest on standard input is called.
const STDIN: &str = "<stdin>";

/// The largest text that is read, in bytes: a million stages have a tenth of it.
const LARGEST: u64 = 1 << 30;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the manifest {name}: {source}")]
    Unreadable {
        /// The file, or `<stdin>`.
        name: String,
        /// The OS error.
        source: io::Error,
    },
    /// The bytes are no UTF-8.
    #[error("{name} is not UTF-8: invalid byte at offset {offset} (line {line}); save the manifest as UTF-8")]
    NotUtf8 {
        /// The file, or `<stdin>`.
        name: String,
        /// Of the first byte that is wrong.
        offset: usize,
        /// The line that it is on, counted from one.
        line: usize,
    },
    /// It is too large.
    #[error("{name} has more than {LARGEST} bytes, which no manifest has")]
    TooLarge {
        /// The file, or `<stdin>`.
        name: String,
    },
    /// It has only white space.
    #[error("{name} is empty; a manifest is a JSON object")]
    Empty {
        /// The file, or `<stdin>`.
        name: String,
    },
}

/// A manifest as text.
#[derive(Debug, Clone)]
pub struct SourceText {
    name: Arc<str>,
    text: Arc<String>,
}

impl SourceText {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// The file cannot be read, is too large, not UTF-8, or empty.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let (name, result) = if path == Path::new("-") {
            (STDIN.to_owned(), read_within(io::stdin().lock()))
        } else {
            (path.display().to_string(), File::open(path).and_then(read_within))
        };
        match result {
            Ok(bytes) if bytes.len() as u64 > LARGEST => Err(ReadError::TooLarge { name }),
            Ok(bytes) => Self::from_bytes(name, bytes),
            Err(source) => Err(ReadError::Unreadable { name, source }),
        }
    }

    /// Takes bytes that are there already, under a name for people.
    ///
    /// # Errors
    /// They are not UTF-8, or there are none but white space.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, ReadError> {
        let name = name.into();
        let text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
            ReadError::NotUtf8 { name: name.clone(), offset, line }
        })?;
        if text.trim_ascii_start().is_empty() {
            return Err(ReadError::Empty { name });
        }
        Ok(Self { name: name.into(), text: Arc::new(text) })
    }

    /// The file's name as given, or `<stdin>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Line and column of each offset, counted from one, columns in characters. The offsets must ascend; the text is
    /// walked once for all of them.
    pub(crate) fn positions(&self, offsets: impl IntoIterator<Item = usize>) -> Vec<(usize, usize)> {
        let (mut line, mut column) = (1, 1);
        let mut chars = self.text.char_indices().peekable();
        let mut position = |offset| {
            while let Some((_, char)) = chars.next_if(|(at, _)| *at < offset) {
                (line, column) = if char == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            (line, column)
        };
        offsets.into_iter().map(&mut position).collect()
    }
}

/// Reads all, or a byte more than is read of a manifest.
fn read_within(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        let error = SourceText::from_bytes("m.json", b"{\n\"a\": \xff}".to_vec()).expect_err("no UTF-8");
        assert_eq!(
            error.to_string(),
            "m.json is not UTF-8: invalid byte at offset 7 (line 2); save the manifest as UTF-8"
        );
        let error = SourceText::from_bytes("m.json", b" \n".to_vec()).expect_err("nothing in it");
        assert_eq!(error.to_string(), "m.json is empty; a manifest is a JSON object");
    }

    #[test]
    fn a_file_without_end_is_no_manifest() {
        let error = SourceText::read(Path::new("/dev/zero")).expect_err("it has no end").to_string();
        assert_eq!(error, "/dev/zero has more than 1073741824 bytes, which no manifest has");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = SourceText::read(Path::new("no-such-manifest.json")).expect_err("not there");
        assert!(error.to_string().starts_with("cannot read the manifest no-such-manifest.json: "), "{error}");
    }

    #[test]
    fn positions_count_lines_and_characters() {
        let text = SourceText::from_bytes("m", "{\n \"ä\": 1}".into()).expect("text");
        assert_eq!(text.positions([0, 3, 4, 8]), [(1, 1), (2, 2), (2, 3), (2, 6)]);
    }
}
