//! JSON as Python's `json` module writes it: nothing but ASCII, a space after `,` and `:`, or indented.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter, Serializer};

/// Returns a value as `json.dumps(value)` writes it, keys in their order.
///
/// A value that JSON cannot hold, such as a map whose keys are not strings, gives an empty string.
pub fn to_string(value: &impl Serialize) -> String {
    write(value, Spaced)
}

/// Returns a value as `json.dumps(value, indent=spaces)` writes it, keys in their order.
pub fn to_string_indented(value: &Value, spaces: usize) -> String {
    let indent = vec![b' '; spaces];
    write(value, PrettyFormatter::with_indent(&indent))
}

/// Returns a value as `json.dumps(value, indent=spaces, sort_keys=True)` writes it.
pub fn to_string_sorted(value: &Value, spaces: usize) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    to_string_indented(&sorted, spaces)
}

fn write(value: &impl Serialize, layout: impl Formatter) -> String {
    let mut out = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, Ascii(layout)));
    written.ok().and_then(|()| String::from_utf8(out).ok()).unwrap_or_default()
}

/// Python's default separators, `", "` and `": "`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// A layout whose strings are escaped as with `ensure_ascii=True`.
struct Ascii<L>(L);

impl<L: Formatter> Formatter for Ascii<L> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|byte| !byte.is_ascii() || byte == 0x7f) {
            let (ascii, other) = rest.split_at(at);
            out.write_all(ascii.as_bytes())?;
            let mut chars = other.chars();
            for unit in chars.next().unwrap_or_default().encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus | CharEscape::Solidus => out.write_all(b"\\\\"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_ascii_and_separators_have_a_space() {
        let value = json!({"b": [1, 2.5, true, null, {}], "a": {"é😀\n": "\u{1}\u{7f}\"\\/"}, "c": []});
        let python = r#"{"b": [1, 2.5, true, null, {}], "a": {"\u00e9\ud83d\ude00\n": "\u0001\u007f\"\\/"}, "c": []}"#;
        assert_eq!(to_string(&value), python);
    }

    #[test]
    fn indented_text_keeps_or_sorts_the_keys() {
        let value = json!({"b": [1, {"d": null, "c": "ü😀\""}], "a": {}, "e": []});
        let kept = "{\n  \"b\": [\n    1,\n    {\n      \"d\": null,\n      \"c\": \"\\u00fc\\ud83d\\ude00\\\"\"\n    }\n  ],\n  \
                    \"a\": {},\n  \"e\": []\n}";
        assert_eq!(to_string_indented(&value, 2), kept);
        let sorted = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"\\u00fc\\ud83d\\ude00\\\"\",\n      \
                      \"d\": null\n    }\n  ],\n  \"e\": []\n}";
        assert_eq!(to_string_sorted(&value, 2), sorted);
    }
}
