//! osbuild's ids: SHA-256 over Python's `json.dumps(part, sort_keys=True)` of one part after the other.
//!
//! A second label on a stage, for osbuild's callers and stores; nothing in osbc decides by it. What it covers is
//! osbuild's business and differs from [`crate::identity`]: no code, devices only through mounts, names of inputs but not of
//! mounts. Python's idea of "not set" counts: partition 0 and target "" are not.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::id::CompatId;
use crate::identity::Facts;
use crate::manifest::Source;
use crate::stage::{Device, Input, Mount, Target};
use crate::value::{Number, Value};

/// osbuild's id of a stage.
pub fn stage_id(facts: &Facts<'_, CompatId>) -> CompatId {
    let stage = facts.stage;
    let mut parts = Parts::default();
    parts.text(&stage.module.name);
    parts.optional_id(facts.build());
    parts.optional_id(facts.base);
    parts.value(&stage.options);
    if let Some(epoch) = facts.pipeline.source_epoch {
        parts.0.push_str(&epoch.to_string());
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
    let mut references: BTreeMap<String, &Value> = BTreeMap::new();
    for reference in &input.references.entries {
        let key = match &reference.target {
            Target::Pipeline(index) => trees[index.0].map_or_else(|| "null".to_owned(), |id| id.to_string()),
            Target::Item(checksum) => checksum.clone(),
        };
        references.insert(key, &reference.options);
    }
    let mut parts = Parts::default();
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
        let mut parts = Parts::default();
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
    let mut parts = Parts::default();
    parts.text(&mount.module.name);
    if let Some(source) = mount.source {
        parts.optional_id(Some(devices[source]));
    }
    if let Some(partition) = mount.partition.as_ref().filter(|number| !is_zero(number)) {
        parts.0.push_str(partition.as_str());
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
        source.items.iter().map(|item| (item.checksum.as_str(), &item.description)).collect();
    let mut parts = Parts::default();
    parts.text(&source.module.name);
    parts.object(items, Parts::value);
    parts.finish()
}

/// A value as Python's `json.dumps(value, sort_keys=True)` writes it; numbers must be canonical
/// ([`crate::value::canonicalize`]).
pub fn dumps(value: &Value) -> String {
    let mut parts = Parts::default();
    parts.value(value);
    parts.0
}

fn is_zero(number: &Number) -> bool {
    let digits = number.as_str().split(['e', 'E']).next().unwrap_or_default();
    !digits.bytes().any(|byte| byte.is_ascii_digit() && byte != b'0')
}

/// The text that is hashed.
#[derive(Default)]
struct Parts(String);

impl Parts {
    fn finish(self) -> CompatId {
        CompatId::from_bytes(Sha256::digest(self.0.as_bytes()).into())
    }

    fn optional_id(&mut self, id: Option<CompatId>) {
        match id {
            Some(id) => {
                self.0.push('"');
                self.0.push_str(&id.to_string());
                self.0.push('"');
            }
            None => self.0.push_str("null"),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.push_str("null"),
            Value::Bool(true) => self.0.push_str("true"),
            Value::Bool(false) => self.0.push_str("false"),
            Value::Number(number) => self.0.push_str(number.as_str()),
            Value::String(text) => self.text(text),
            Value::Array(items) => self.list(items, Parts::value),
            Value::Object(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                self.object(sorted, Parts::value);
            }
        }
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.0.push('[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.0.push_str(", ");
            }
            write(self, item);
        }
        self.0.push(']');
    }

    /// Writes entries in the order in which they come: callers sort.
    fn object<K: AsRef<str>, V>(&mut self, entries: impl IntoIterator<Item = (K, V)>, write: impl Fn(&mut Self, V)) {
        self.0.push('{');
        for (index, (key, item)) in entries.into_iter().enumerate() {
            if index > 0 {
                self.0.push_str(", ");
            }
            self.text(key.as_ref());
            self.0.push_str(": ");
            write(self, item);
        }
        self.0.push('}');
    }

    fn text(&mut self, text: &str) {
        self.0.push('"');
        let mut plain = 0;
        for (at, char) in text.char_indices() {
            if matches!(char, ' '..='~') && char != '"' && char != '\\' {
                continue;
            }
            self.0.push_str(&text[plain..at]);
            plain = at + char.len_utf8();
            match char {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                '\u{8}' => self.0.push_str("\\b"),
                '\u{c}' => self.0.push_str("\\f"),
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        self.0.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.0.push_str(&text[plain..]);
        self.0.push('"');
    }
}
