//! osbuild's ids: SHA-256 over Python's `json.dumps(part, sort_keys=True)` of one part after the other.
//!
//! A second label on a stage, for osbuild's callers and stores; nothing in osbc decides by it. What it covers is
//! osbuild's business and differs from [`crate::identity`]: no code, devices only through mounts, names of inputs but not of
//! mounts. Python's idea of "not set" counts: partition 0 and target "" are not.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use crate::id::CompatId;
use crate::identity::Facts;
use crate::manifest::Source;
use crate::stage::{Device, Input, Mount, Target};
use crate::value::{Number, Value, sorted_entries};

/// osbuild's id of a stage.
pub fn stage_id(facts: &Facts<'_, CompatId>) -> CompatId {
    let stage = facts.stage;
    let mut parts = Parts::hashed();
    parts.text(&stage.module.name);
    if facts.pipeline.empty_build {
        parts.text("");
    } else {
        parts.optional_id(facts.build());
    }
    parts.optional_id(facts.base);
    parts.value(&stage.options);
    if let Some(epoch) = facts.pipeline.source_epoch {
        parts.put(&epoch.to_string());
    }
    if !stage.inputs.is_empty() {
        let ids: BTreeMap<&str, CompatId> =
            stage.inputs.iter().map(|input| (input.name.as_str(), input_id(input, facts.trees))).collect();
        parts.object(ids, |parts, id| parts.optional_id(Some(id)));
    }
    if !stage.mounts.is_empty() {
        let devices = device_ids(&stage.devices);
        parts.list(&stage.mounts, |parts, mount| parts.optional_id(Some(mount_id(mount, &devices))));
    }
    parts.finish()
}

/// osbuild's id of an input. `trees` holds the ids of the pipelines that it can refer to, by index.
///
/// References are keyed by id: of two pipelines with the same id, the one named last counts.
pub fn input_id(input: &Input, trees: &[Option<CompatId>]) -> CompatId {
    let mut references: BTreeMap<Cow<'_, str>, &Value> = BTreeMap::new();
    for reference in &input.references.entries {
        let key = match &reference.target {
            Target::Pipeline(index) => trees[index.0].map_or(Cow::Borrowed("null"), |id| id.to_string().into()),
            Target::Item(checksum) => Cow::Borrowed(checksum.as_str()),
        };
        references.insert(key, &reference.options);
    }
    let mut parts = Parts::hashed();
    parts.text(&input.module.name);
    parts.text(input.origin.as_str());
    parts.object(references, Parts::value);
    parts.value(&input.options);
    parts.finish()
}

/// osbuild's ids of a stage's devices, in their order.
pub fn device_ids(devices: &[Device]) -> Vec<CompatId> {
    let mut ids: Vec<CompatId> = Vec::with_capacity(devices.len());
    for device in devices {
        let mut parts = Parts::hashed();
        parts.text(&device.module.name);
        if let Some(parent) = device.parent {
            parts.optional_id(Some(ids[parent]));
        }
        parts.value(&device.options);
        ids.push(parts.finish());
    }
    ids
}

/// osbuild's id of a mount. `devices` holds the ids of the stage's devices.
pub fn mount_id(mount: &Mount, devices: &[CompatId]) -> CompatId {
    let mut parts = Parts::hashed();
    parts.text(&mount.module.name);
    if let Some(source) = mount.source {
        parts.optional_id(Some(devices[source]));
    }
    if let Some(partition) = mount.partition.as_ref().filter(|number| !is_zero(number)) {
        parts.put(partition.as_str());
    }
    if let Some(target) = mount.target.as_ref().filter(|target| !target.is_empty()) {
        parts.text(target);
    }
    parts.value(&mount.options);
    parts.finish()
}

/// osbuild's id of a source.
pub fn source_id(source: &Source) -> CompatId {
    let items: BTreeMap<&str, &Value> =
        source.items.iter().map(|item| (item.key.checksum.as_str(), &item.description)).collect();
    let mut parts = Parts::hashed();
    parts.text(&source.module.name);
    parts.object(items, Parts::value);
    parts.finish()
}

fn is_zero(number: &Number) -> bool {
    let digits = number.as_str().split(['e', 'E']).next().unwrap_or_default();
    !digits.bytes().any(|byte| byte.is_ascii_digit() && byte != b'0')
}

/// How many bytes are collected before they are hashed.
const BATCH: usize = 1024;

/// Writes parts one after the other, as Python writes JSON. Neither kind of output can fail.
struct Parts<W>(W);

/// What is hashed.
struct Hashed {
    sha: Sha256,
    /// Written, not yet hashed.
    text: String,
}

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() <= BATCH {
            self.text.push_str(text);
        } else {
            self.sha.update(&self.text);
            self.sha.update(text);
            self.text.clear();
        }
        Ok(())
    }
}

impl Parts<Hashed> {
    fn hashed() -> Self {
        Self(Hashed { sha: Sha256::new(), text: String::with_capacity(BATCH) })
    }

    fn finish(self) -> CompatId {
        let Hashed { sha, text } = self.0;
        CompatId::from_bytes(sha.chain_update(text).finalize().into())
    }
}

impl<W: Write> Parts<W> {
    fn put(&mut self, text: &str) {
        let _ = self.0.write_str(text);
    }

    fn optional_id(&mut self, id: Option<CompatId>) {
        match id {
            Some(id) => {
                let _ = write!(self.0, "\"{id}\"");
            }
            None => self.put("null"),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(true) => self.put("true"),
            Value::Bool(false) => self.put("false"),
            Value::Number(number) => self.put(number.as_str()),
            Value::String(text) => self.text(text),
            Value::Array(items) => self.list(items, Parts::value),
            Value::Object(entries) => self.object(sorted_entries(entries), Parts::value),
        }
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.put("[");
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.put(", ");
            }
            write(self, item);
        }
        self.put("]");
    }

    /// Writes entries in the order in which they come: callers sort.
    fn object<K: AsRef<str>, V>(&mut self, entries: impl IntoIterator<Item = (K, V)>, write: impl Fn(&mut Self, V)) {
        self.put("{");
        for (index, (key, item)) in entries.into_iter().enumerate() {
            if index > 0 {
                self.put(", ");
            }
            self.text(key.as_ref());
            self.put(": ");
            write(self, item);
        }
        self.put("}");
    }

    fn text(&mut self, text: &str) {
        self.put("\"");
        let is_special = |byte: u8| !matches!(byte, b' '..=b'~') || byte == b'"' || byte == b'\\';
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_special) {
            self.put(&rest[..at]);
            let mut chars = rest[at..].chars();
            match chars.next().unwrap_or_default() {
                '"' => self.put("\\\""),
                '\\' => self.put("\\\\"),
                '\n' => self.put("\\n"),
                '\r' => self.put("\\r"),
                '\t' => self.put("\\t"),
                '\u{8}' => self.put("\\b"),
                '\u{c}' => self.put("\\f"),
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0, "\\u{unit:04x}");
                    }
                }
            }
            rest = chars.as_str();
        }
        self.put(rest);
        self.put("\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        for (json, python) in [
            (
                r#"{"b":1,"a":[true,false,null,{}],"é":"\ud83d\ude00","\ud83d\ude00":1,"\uffff":2,"":[]}"#,
                r#"{"": [], "a": [true, false, null, {}], "b": 1, "\u00e9": "\ud83d\ude00", "\uffff": 2, "\ud83d\ude00": 1}"#,
            ),
            (r#""\u007f\u0000\b\f\n\r\t\u001f/<>&'""#, r#""\u007f\u0000\b\f\n\r\t\u001f/<>&'""#),
            (
                "[1.0,1e22,1e-7,-0.0,100.0,123456789012345678901234567890]",
                "[1.0, 1e+22, 1e-07, -0.0, 100.0, 123456789012345678901234567890]",
            ),
        ] {
            let mut value: Value = serde_json::from_str(json).expect("valid JSON");
            crate::value::canonicalize(&mut value).expect("finite numbers");
            let mut parts = Parts(String::new());
            parts.value(&value);
            assert_eq!(parts.0, python);
        }
    }
}
