//! Data that the manifest itself holds.
//!
//! Each item is text in `base64`, or `lzma+base64` for data that was compressed before (`.xz` or `.lzma`, found out
//! from the data). What comes out must have the item's checksum.
//!
//! ```json
//! {
//!   "type": "org.osbuild.inline",
//!   "items": {
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": {
//!       "encoding": "base64",
//!       "data": "aGVsbG8K"
//!     }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::fs;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use liblzma::stream::{Action, Status, Stream};
use osbc_module_api::*;

use crate::downloads::checksum::{Checksum, PATTERN};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.inline",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || {
        Schema::same(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["items"],
            "properties": {
                "items": {
                    "description": "The data by its checksum.",
                    "type": "object",
                    "additionalProperties": false,
                    "patternProperties": {PATTERN: options_schema::<Item>()}
                }
            }
        }))
    },
    rejects: &[
        r#"{}"#,
        r#"{"items": {"crc:0": {"encoding": "base64", "data": ""}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"data": ""}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"encoding": "gzip", "data": ""}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": "text"}}"#,
        r#"{"items": {}, "options": {}}"#,
    ],
    parse: parse::<Description>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.files", size, fetch }),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(rename = "items")]
    _items: BTreeMap<String, Item>,
}

/// One item.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// How the data became text.
    encoding: Encoding,
    /// The text.
    data: String,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    #[serde(rename = "base64")]
    Base64,
    #[serde(rename = "lzma+base64")]
    LzmaBase64,
}

/// Known without decoding where the text holds nothing but base64 in full groups, as it mostly does.
fn size(description: &Value) -> Option<u64> {
    let item = Item::deserialize(description).ok()?;
    let text = item.data.as_bytes();
    if item.encoding != Encoding::Base64
        || text.len() % 4 != 0
        || !text.iter().all(|byte| in_alphabet(*byte) || *byte == b'=')
    {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let whole = padding <= 2 && !text[..text.len() - padding].contains(&b'=');
    whole.then_some((text.len() / 4 * 3 - padding) as u64)
}

/// The most that compressed data may come to, in bytes: it is unpacked in memory.
const MAX_DATA: usize = 1 << 30;
/// The most memory that unpacking may take besides.
const MAX_MEMORY: u64 = 1 << 30;

fn fetch(context: &SourceContext, checksum: &str, description: &Value) -> Result<(), Error> {
    let expected = Checksum::parse(checksum)?;
    let item = Item::deserialize(description).map_err(Error::Options)?;
    let mut data = from_base64(&item.data)?;
    if item.encoding == Encoding::LzmaBase64 {
        data = decompress(&data)?;
    }
    let mut hasher = expected.hasher();
    hasher.update(&data);
    if let Err(found) = expected.check(&hasher) {
        return Err(Error::failed(format!("the data has the checksum {found} instead of {expected}")));
    }
    fs::write(context.target, &data).map_err(Error::io("write", context.target))?;
    (context.progress)(data.len() as u64, Some(data.len() as u64));
    Ok(())
}

fn in_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Decodes as osbuild's Python does: what is not in the alphabet (line breaks, mostly) is skipped, what follows the
/// padding is ignored, and padding must not be missing.
fn from_base64(text: &str) -> Result<Vec<u8>, Error> {
    let mut digits = Vec::with_capacity(text.len());
    let mut padding = 0;
    for byte in text.bytes() {
        if in_alphabet(byte) {
            digits.push(byte);
            padding = 0;
        } else if byte == b'=' && digits.len() % 4 >= 2 {
            padding += 1;
            if digits.len() % 4 + padding >= 4 {
                break;
            }
        } else if !byte.is_ascii() {
            return Err(Error::failed("the data is not base64: it holds letters beyond ASCII"));
        }
    }
    if digits.len() % 4 != 0 && digits.len() % 4 + padding < 4 {
        return Err(Error::failed("the data is not base64: it ends early, or its padding is missing"));
    }
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(digits);
    decoded.map_err(|error| Error::failed(format!("the data is not base64: {error}")))
}

/// Decompresses one `.xz` or `.lzma` stream or several in a row; what follows them and is neither is ignored, as by
/// Python's `lzma.decompress`.
fn decompress(data: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |error| Error::failed(format!("the data cannot be decompressed: {error}"));
    let mut all: Vec<u8> = Vec::new();
    let mut rest = data;
    loop {
        let stream = Stream::new_auto_decoder(MAX_MEMORY, 0).map_err(broken)?;
        match decompress_one(stream, rest, MAX_DATA - all.len()) {
            Ok(Some((out, used))) => {
                all.extend(out);
                rest = &rest[used..];
            }
            Ok(None) => return Err(Error::failed("the data cannot be decompressed: it ends early")),
            Err(liblzma::stream::Error::MemLimit) => {
                return Err(Error::failed(format!("the data has more than {MAX_DATA} bytes; offer it by a URL")));
            }
            Err(_) if rest.len() < data.len() => return Ok(all),
            Err(error) => return Err(broken(error)),
        }
        if rest.is_empty() {
            return Ok(all);
        }
    }
}

/// What one stream holds and how long it is; nothing when it ends early.
fn decompress_one(
    mut stream: Stream,
    data: &[u8],
    room: usize,
) -> Result<Option<(Vec<u8>, usize)>, liblzma::stream::Error> {
    let mut out = Vec::new();
    let mut used = 0;
    loop {
        out.reserve(64 << 10);
        let (read_before, written_before) = (stream.total_in(), out.len());
        let status = stream.process_vec(&data[used..], &mut out, Action::Run)?;
        let read = usize::try_from(stream.total_in() - read_before).unwrap_or(usize::MAX);
        used += read;
        if out.len() > room {
            return Err(liblzma::stream::Error::MemLimit);
        }
        match status {
            Status::StreamEnd => return Ok(Some((out, used))),
            _ if read == 0 && out.len() == written_before => return Ok(None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use liblzma::stream::{Check, LzmaOptions};

    use super::*;

    const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    /// Fetches an item; what it is, or why not.
    fn item(checksum: &str, encoding: &str, data: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let context = SourceContext {
            options: &json!({}),
            target: &directory.path().join("item"),
            shared: directory.path(),
            progress: &|_, _| {},
            interrupted: &|| false,
            environment: &BTreeMap::new(),
        };
        let description = json!({"encoding": encoding, "data": data});
        match fetch(&context, checksum, &description) {
            Ok(()) => Ok(fs::read_to_string(context.target).unwrap()),
            Err(error) => {
                assert!(!context.target.exists(), "nothing is left of what failed");
                Err(error.to_string())
            }
        }
    }

    fn compressed(stream: Stream, data: &[u8]) -> Vec<u8> {
        use std::io::Read;
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new_stream(data, stream).read_to_end(&mut out).unwrap();
        out
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        compressed(Stream::new_easy_encoder(6, Check::Crc64).unwrap(), data)
    }

    #[test]
    fn base64_is_decoded_and_line_breaks_do_not_matter() {
        assert_eq!(item(HELLO, "base64", "aGVsbG8K").unwrap(), "hello\n");
        assert_eq!(item(HELLO, "base64", "aGVs\nbG8K\n").unwrap(), "hello\n");
    }

    #[test]
    fn base64_is_as_lenient_and_as_strict_as_pythons() {
        let decoded = |text| from_base64(text).map_err(|error| error.to_string());
        assert_eq!(decoded(""), Ok(vec![]));
        assert_eq!(decoded("aGk="), Ok(b"hi".to_vec()));
        assert_eq!(decoded("aGl="), Ok(b"hi".to_vec()), "bits that do not count are ignored");
        assert_eq!(decoded("aGk=ignored"), Ok(b"hi".to_vec()));
        assert_eq!(decoded("=aGk="), Ok(b"hi".to_vec()));
        assert_eq!(decoded("YQ=="), Ok(b"a".to_vec()));
        assert_eq!(decoded("YQ=Y"), Err("the data is not base64: it ends early, or its padding is missing".into()));
        for broken in ["aGk", "YQ=", "Y", "aGkä"] {
            assert!(decoded(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn both_containers_of_lzma_are_recognized_and_streams_in_a_row_joined() {
        let alone = compressed(Stream::new_lzma_encoder(&LzmaOptions::new_preset(6).unwrap()).unwrap(), b"hello\n");
        let two = [xz(b"hel"), xz(b"lo\n")].concat();
        let trailing = [xz(b"hello\n"), vec![0xFF; 32]].concat();
        for data in [xz(b"hello\n"), alone, two, trailing] {
            assert_eq!(item(HELLO, "lzma+base64", &BASE64_STANDARD.encode(data)).unwrap(), "hello\n");
        }
    }

    #[test]
    fn broken_data_is_refused() {
        let mut cut = xz(b"hello\n");
        cut.truncate(cut.len() - 4);
        let refused = item(HELLO, "lzma+base64", &BASE64_STANDARD.encode(cut)).unwrap_err();
        assert_eq!(refused, "the data cannot be decompressed: it ends early");
        let refused = item(HELLO, "lzma+base64", &BASE64_STANDARD.encode([0xFF; 32])).unwrap_err();
        assert!(refused.starts_with("the data cannot be decompressed: "), "{refused}");
        assert!(item(HELLO, "lzma+base64", "").is_err());
        assert!(item(HELLO, "base64", "aGVsbG8").is_err());
    }

    #[test]
    fn another_checksum_is_refused_with_both_named() {
        let found = "md5:b1946ac92492d2347c6235b4d2611184";
        let expected = "md5:00000000000000000000000000000000";
        let refused = item(expected, "base64", "aGVsbG8K").unwrap_err();
        assert_eq!(refused, format!("the data has the checksum {found} instead of {expected}"));
    }

    #[test]
    fn the_size_is_known_where_the_text_tells() {
        let size = |encoding: &str, data: &str| size(&json!({"encoding": encoding, "data": data}));
        assert_eq!(size("base64", ""), Some(0));
        assert_eq!(size("base64", "aGVsbG8K"), Some(6));
        assert_eq!(size("base64", "YQ=="), Some(1));
        assert_eq!(size("base64", "aGVs\nbG8K"), None);
        assert_eq!(size("base64", "YQ==YQ=="), None);
        assert_eq!(size("lzma+base64", "aGVsbG8K"), None);
    }
}
