//! Parses JSON into values that keep every key, string and number, with serde_json's parser. Knows nothing of
//! manifests.
//!
//! `serde_json::Value` gives objects with certain private keys a meaning of their own; the reader here does not.

use std::cell::Cell;
use std::fmt;

use osbc_ir::value::canonical_number;
use osbc_ir::{Map, Number, Value};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::place::Place;
use crate::problem::{Anchor, Code, Phase, Problem};

/// How many digits a number may have; Python's limit too.
const MAX_DIGITS: usize = 4300;

/// How many values a text may have: a million stages have a dozen million.
///
/// Kept in memory, a value takes some thirty times the room of the shortest text for it.
const MAX_VALUES: usize = 20_000_000;

/// Parses one JSON document. Of repeated keys the last value counts, at the first one's place, as in Python.
///
/// # Errors
/// The first fault of the text: syntax, nesting deeper than 127 levels, lone surrogates, numbers that overflow, more
/// values than any manifest has.
pub fn parse(text: &str) -> Result<Value, Box<Problem>> {
    // What is no object is no manifest: a list of a hundred million numbers need not be kept to say so.
    let parsed = if text.trim_ascii_start().starts_with('[') {
        serde_json::from_str::<IgnoredAny>(text).map(|_| Value::Array(Vec::new()))
    } else {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let room = Cell::new(MAX_VALUES);
        let parsed = Exact(&room).deserialize(&mut deserializer);
        parsed.and_then(|value| deserializer.end().map(|()| value))
    };
    parsed.map_err(|error| Box::new(problem(text, &error)))
}

/// Reads a value without special keys, its numbers canonical, while there is room for it.
#[derive(Clone, Copy)]
struct Exact<'r>(&'r Cell<usize>);

impl<'de> DeserializeSeed<'de> for Exact<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let room = self.0.get().checked_sub(1);
        self.0.set(room.ok_or_else(|| D::Error::custom(format_args!("there are more than {MAX_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Exact<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        list.shrink_to_fit();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all: Vec<(String, Value)> = Vec::new();
        while let Some(key) = entries.next_key()? {
            match key {
                Key::Name(name) => all.push((name, entries.next_value_seed(self)?)),
                Key::Number => return number(entries.next_value()?).map(Value::Number),
            }
        }
        // An object that grows as it is read takes three times the room of the few entries that most have.
        let mut object = Map::with_capacity(all.len());
        object.extend(all);
        Ok(Value::Object(object))
    }
}

fn number<E: serde::de::Error>(text: String) -> Result<Number, E> {
    if text.len() > MAX_DIGITS {
        return Err(E::custom(format_args!("this number has more than {MAX_DIGITS} digits")));
    }
    let number: Number = text.parse().map_err(E::custom)?;
    canonical_number(&number).map_err(E::custom)
}

/// The key of an object, or the mark of a number: with arbitrary precision, serde_json hands numbers that are no 64-bit
/// integers over as maps of one entry.
///
/// Only a true key is offered as an option.
enum Key {
    Name(String),
    Number,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        String::deserialize(deserializer).map(Key::Name)
    }

    fn visit_str<E>(self, _mark: &str) -> Result<Key, E> {
        Ok(Key::Number)
    }
}

/// A fault of the text, with its place and what to do.
fn problem(text: &str, error: &serde_json::Error) -> Problem {
    let line_start = match error.line().saturating_sub(2) {
        _ if error.line() < 2 => 0,
        newline => text.match_indices('\n').nth(newline).map_or(text.len(), |(at, _)| at + 1),
    };
    let start = text.floor_char_boundary((line_start + error.column().saturating_sub(1)).min(text.len()));
    let end = text[start..].chars().next().map_or(start, |char| start + char.len_utf8());
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let rest = &text[start..];
    let starts = |words: &[&str]| words.iter().any(|word| rest.starts_with(word));
    let (message, help) = if text.starts_with('\u{feff}') {
        ("the text begins with a byte order mark".to_owned(), Some("save the manifest as UTF-8 without one"))
    } else if error.is_eof() {
        (format!("the text ends too early: {message}"), Some("the file may be truncated"))
    } else if message.contains("recursion limit") {
        ("the JSON is nested deeper than 127 levels".to_owned(), None)
    } else if starts(&["NaN", "Infinity", "-Infinity", "nfinity"]) {
        let help = "JSON has neither NaN nor Infinity; write a finite number or a string";
        (format!("invalid JSON: {message}"), Some(help))
    } else if message.contains("surrogate") || message.contains("hex escape") {
        let help = "characters outside the BMP are two `\\u` escapes, a high and then a low surrogate";
        (format!("invalid JSON: {message}"), Some(help))
    } else if ["the number ", "this number ", "there are more "].iter().any(|start| message.starts_with(start)) {
        (message.to_owned(), None)
    } else {
        (format!("invalid JSON: {message}"), None)
    };
    Problem::new(Code::Syntax, Phase::Parse, Place::root(), message)
        .at(Anchor::Bytes(start..end))
        .label("here")
        .help(help.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let problem = parse(text).expect_err(text);
        let Anchor::Bytes(range) = problem.anchor else { panic!("a fault of the text has bytes") };
        format!("{} at {:?}", problem.message, range)
    }

    #[test]
    fn every_number_string_and_key_survives() {
        for (text, canonical) in [
            (r#"{"a": 123456789012345678901234567890}"#, r#"{"a":123456789012345678901234567890}"#),
            (r#"{"a": 1E22, "b": 1.50, "c": -0, "d": 1e-7}"#, r#"{"a":1e+22,"b":1.5,"c":0,"d":1e-07}"#),
            (r#"{"é\ud83d\ude00\n": "\u0000"}"#, "{\"é😀\\n\":\"\\u0000\"}"),
            (r#"{"b": 1, "a": 2, "b": 3}"#, r#"{"b":3,"a":2}"#),
            (r#"{"": {"": [[], {}, null, true, false]}}"#, r#"{"":{"":[[],{},null,true,false]}}"#),
        ] {
            assert_eq!(parse(text).map(|value| value.to_string()).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn no_key_has_a_meaning_of_its_own() {
        for key in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
            for value in ["\"1\"", "1", "[1]"] {
                let text = format!("{{\"a\":{{\"{key}\":{value}}}}}");
                let parsed = parse(&text).expect("plain keys");
                assert!(parsed["a"].is_object(), "{text}");
                assert_eq!(parsed["a"][key], serde_json::from_str::<Value>(value).expect("a value"));
            }
        }
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        for (text, expected) in [
            ("{\"a\": NaN}", "invalid JSON: expected value at 6..7"),
            ("{\"a\": -Infinity}", "invalid JSON: invalid number at 7..8"),
            ("{\"a\": 1e400}", "the number 1e+400 is too large for a floating-point number at 10..11"),
            ("{\"a\": \"\\ud800\"}", "invalid JSON: unexpected end of hex escape at 13..14"),
            ("{\"a\":\n1", "the text ends too early: EOF while parsing an object at 6..7"),
            ("{} {}", "invalid JSON: trailing characters at 3..4"),
            ("{'a': 1}", "invalid JSON: key must be a string at 1..2"),
            ("\u{feff}{}", "the text begins with a byte order mark at 0..3"),
        ] {
            assert_eq!(message(text), expected, "{text}");
        }
        assert!(message(&format!("{{\"a\": {}}}", "9".repeat(5000))).contains("more than 4300 digits"));
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_crash() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = format!("{{\"b\":{}1{}}}", open.repeat(10_000), close.repeat(10_000));
            assert!(message(&text).starts_with("the JSON is nested deeper than 127 levels"));
        }
        // No manifest at all: read to its end, kept nowhere.
        let list = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse(&list), Ok(Value::Array(Vec::new())));
    }
}
