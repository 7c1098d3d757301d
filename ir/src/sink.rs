//! Receives the facts that an id covers: for a hash, or for a list that people can compare.
//!
//! [`crate::identity`] walks the facts once, in one order, and writes them to a [`Sink`]; a sink knows nothing about
//! stages. The encoding of [`HashSink`] is our own and self-delimiting: every fact starts with a tag byte, strings and
//! lists have their length before their content, object keys are sorted by code point, and numbers are encoded as their
//! canonical string ([`crate::value`]). So two different sequences of facts never give the same bytes.

use std::fmt::{Display, Write};

use crate::value::{Value, sorted_entries};

/// Takes the facts of a node one by one. The order of calls is part of the digest.
pub trait Sink {
    /// A part named `name` begins; what follows belongs to it until [`Sink::close`].
    fn open(&mut self, name: &dyn Display);
    /// The part that was opened last ends.
    fn close(&mut self);
    /// A list of `len` parts follows.
    fn list(&mut self, len: usize);
    /// The fact `name` is not given.
    fn absent(&mut self, name: &dyn Display);
    /// One of a numbered set of variants.
    fn variant(&mut self, name: &dyn Display, number: u8, text: &str);
    /// A text.
    fn text(&mut self, name: &dyn Display, text: &str);
    /// A whole number.
    fn number(&mut self, name: &dyn Display, number: i64);
    /// A digest.
    fn digest(&mut self, name: &dyn Display, digest: &[u8; 32]);
    /// A JSON value with canonical numbers.
    fn value(&mut self, name: &dyn Display, value: &Value);
}

/// The tag bytes of the encoding. Never renumber: every id depends on them.
mod tag {
    pub(super) const ABSENT: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const VARIANT: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const NUMBER: u8 = 4;
    pub(super) const DIGEST: u8 = 5;
    pub(super) const NULL: u8 = 16;
    pub(super) const FALSE: u8 = 17;
    pub(super) const TRUE: u8 = 18;
    pub(super) const DECIMAL: u8 = 19;
    pub(super) const STRING: u8 = 20;
    pub(super) const ARRAY: u8 = 21;
    pub(super) const OBJECT: u8 = 22;
}

/// How many bytes are encoded before they are hashed, and how long a text is no longer copied for it.
const BATCH: usize = 512;

/// Encodes facts and hashes them with BLAKE3, keyed by a context string.
#[derive(Debug)]
pub struct HashSink {
    hasher: blake3::Hasher,
    /// Encoded, not yet hashed.
    bytes: Vec<u8>,
}

impl HashSink {
    /// Returns a sink without any facts. The same facts in another context have another digest.
    pub fn new(context: &str) -> Self {
        Self { hasher: blake3::Hasher::new_derive_key(context), bytes: Vec::with_capacity(2 * BATCH) }
    }

    /// Returns the digest of all facts.
    pub fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.bytes);
        self.hasher.finalize().into()
    }

    fn sized(&mut self, tag: u8, content: &str) {
        self.tagged_len(tag, content.len());
        if content.len() < BATCH / 2 {
            self.bytes.extend_from_slice(content.as_bytes());
        } else {
            self.flush();
            self.hasher.update(content.as_bytes());
        }
    }

    fn tagged_len(&mut self, tag: u8, len: usize) {
        if self.bytes.len() >= BATCH {
            self.flush();
        }
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(len as u64).to_le_bytes());
    }

    fn flush(&mut self) {
        self.hasher.update(&self.bytes);
        self.bytes.clear();
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes.push(tag::NULL),
            Value::Bool(false) => self.bytes.push(tag::FALSE),
            Value::Bool(true) => self.bytes.push(tag::TRUE),
            Value::Number(number) => self.sized(tag::DECIMAL, number.as_str()),
            Value::String(text) => self.sized(tag::STRING, text),
            Value::Array(items) => {
                self.tagged_len(tag::ARRAY, items.len());
                for item in items {
                    self.json(item);
                }
            }
            Value::Object(entries) => {
                self.tagged_len(tag::OBJECT, entries.len());
                for (key, item) in sorted_entries(entries) {
                    self.sized(tag::STRING, key);
                    self.json(item);
                }
            }
        }
    }
}

impl Sink for HashSink {
    fn open(&mut self, _name: &dyn Display) {}

    fn close(&mut self) {}

    fn list(&mut self, len: usize) {
        self.tagged_len(tag::LIST, len);
    }

    fn absent(&mut self, _name: &dyn Display) {
        self.bytes.push(tag::ABSENT);
    }

    fn variant(&mut self, _name: &dyn Display, number: u8, _text: &str) {
        self.bytes.extend_from_slice(&[tag::VARIANT, number]);
    }

    fn text(&mut self, _name: &dyn Display, text: &str) {
        self.sized(tag::TEXT, text);
    }

    fn number(&mut self, _name: &dyn Display, number: i64) {
        self.bytes.push(tag::NUMBER);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn digest(&mut self, _name: &dyn Display, digest: &[u8; 32]) {
        self.bytes.push(tag::DIGEST);
        self.bytes.extend_from_slice(digest);
    }

    fn value(&mut self, _name: &dyn Display, value: &Value) {
        self.json(value);
    }
}

/// Lists facts as (JSON pointer, value), e.g. `("/mounts/root/target", "/")`, so that two lists show what differs.
/// Options are one fact.
#[derive(Debug, Default)]
pub struct ExplainSink {
    /// The pointer to the part that is open, and where those around it end in it.
    path: String,
    ends: Vec<usize>,
    facts: Vec<(String, Value)>,
}

impl ExplainSink {
    /// Returns the facts, in the order in which they were written, without absent ones.
    pub fn into_facts(self) -> Vec<(String, Value)> {
        self.facts
    }

    fn fact(&mut self, name: &dyn Display, value: Value) {
        let mut path = self.path.clone();
        push(&mut path, name);
        self.facts.push((path, value));
    }
}

/// Lengthens a JSON pointer (RFC 6901) by a name.
pub fn push(pointer: &mut String, name: &dyn Display) {
    let name = name.to_string();
    let name = if name.contains(['~', '/']) { name.replace('~', "~0").replace('/', "~1") } else { name };
    // Writing to a string cannot fail.
    let _ = write!(pointer, "/{name}");
}

impl Sink for ExplainSink {
    fn open(&mut self, name: &dyn Display) {
        self.ends.push(self.path.len());
        push(&mut self.path, name);
    }

    fn close(&mut self) {
        self.path.truncate(self.ends.pop().unwrap_or_default());
    }

    fn list(&mut self, _len: usize) {}

    fn absent(&mut self, _name: &dyn Display) {}

    fn variant(&mut self, name: &dyn Display, _number: u8, text: &str) {
        self.fact(name, Value::from(text));
    }

    fn text(&mut self, name: &dyn Display, text: &str) {
        self.fact(name, Value::from(text));
    }

    fn number(&mut self, name: &dyn Display, number: i64) {
        self.fact(name, Value::from(number));
    }

    fn digest(&mut self, name: &dyn Display, digest: &[u8; 32]) {
        self.fact(name, Value::from(blake3::Hash::from_bytes(*digest).to_hex().as_str()));
    }

    fn value(&mut self, name: &dyn Display, value: &Value) {
        self.fact(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hash(value: &Value) -> [u8; 32] {
        let mut sink = HashSink::new("test");
        sink.value(&"", value);
        sink.finish()
    }

    #[test]
    fn the_order_of_keys_is_no_fact() {
        assert_eq!(hash(&json!({"a": 1, "b": {"c": 2, "d": 3}})), hash(&json!({"b": {"d": 3, "c": 2}, "a": 1})));
    }

    #[test]
    fn values_that_look_alike_differ() {
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(0.0),
            json!("0"),
            json!(""),
            json!([]),
            json!({}),
            json!([[]]),
            json!([[], []]),
            json!([""]),
            json!({"": ""}),
            json!(["a", "b"]),
            json!(["ab"]),
            json!(["b", "a"]),
            json!({"a": "b"}),
            json!([["a"], "b"]),
            json!([["a", "b"]]),
        ];
        for (index, one) in values.iter().enumerate() {
            for other in &values[..index] {
                assert_ne!(hash(one), hash(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn a_context_separates() {
        assert_ne!(HashSink::new("one").finish(), HashSink::new("other").finish());
    }

    #[test]
    fn facts_of_any_size_are_hashed_whole() {
        let text = |len: usize| json!("x".repeat(len));
        for len in [0, 1, BATCH / 2 - 1, BATCH / 2, BATCH, 5 * BATCH] {
            let list = json!(vec!["x"; len]);
            let mut encoded = vec![tag::STRING];
            encoded.extend_from_slice(&(len as u64).to_le_bytes());
            encoded.extend_from_slice("x".repeat(len).as_bytes());
            assert_eq!(hash(&text(len)), blake3::derive_key("test", &encoded));
            let mut encoded = vec![tag::ARRAY];
            encoded.extend_from_slice(&(len as u64).to_le_bytes());
            for _ in 0..len {
                encoded.extend_from_slice(&[tag::STRING, 1, 0, 0, 0, 0, 0, 0, 0, b'x']);
            }
            assert_eq!(hash(&list), blake3::derive_key("test", &encoded));
        }
    }

    #[test]
    fn explaining_names_every_fact_by_its_pointer() {
        let mut sink = ExplainSink::default();
        sink.open(&"mounts");
        sink.open(&"a/b~");
        sink.absent(&"source");
        sink.text(&"target", "/");
        sink.close();
        sink.close();
        sink.number(&"source-epoch", -1);
        sink.value(&"options", &json!({"paths": ["/a"]}));
        let expected = [
            ("/mounts/a~1b~0/target", json!("/")),
            ("/source-epoch", json!(-1)),
            ("/options", json!({"paths": ["/a"]})),
        ];
        assert_eq!(sink.into_facts(), expected.map(|(path, value)| (path.to_owned(), value)));
    }
}
