//! From a graph back to a manifest, ids included: what `inspect` prints. In osbuild's ids it equals what osbuild prints.

use std::borrow::Cow;
use std::io;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{CompatId, FormatVersion, Graph, PipelineIndex, StageId, Value};
use serde::{Serialize, Serializer};
use serde_json::ser::{CharEscape, Formatter};

mod v1;
mod v2;

/// Which ids to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdScheme {
    /// osbuild's, SHA-256.
    Osbuild,
    /// Those that osbc caches and shares by, BLAKE3.
    Blake3,
}

/// A graph as a manifest; what it holds is borrowed and becomes JSON when it is serialized.
#[derive(Debug)]
pub struct Described<'a>(Shape<'a>);

#[derive(Debug)]
enum Shape<'a> {
    V1(v1::Manifest<'a>),
    V2(v2::Manifest<'a>),
}

impl Serialize for Described<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Shape::V1(manifest) => manifest.serialize(serializer),
            Shape::V2(manifest) => manifest.serialize(serializer),
        }
    }
}

/// Describes a graph in the format that its manifest was written in, with an id on every stage.
pub fn describe(graph: &Graph, ids: IdScheme) -> Described<'_> {
    let view = View { graph, ids };
    Described(match graph.manifest.version {
        FormatVersion::V1 => Shape::V1(v1::describe(&view)),
        FormatVersion::V2 => Shape::V2(v2::describe(&view)),
    })
}

/// A graph with ids of one kind.
struct View<'a> {
    graph: &'a Graph,
    ids: IdScheme,
}

/// An id of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Osbuild(CompatId),
    Blake3(StageId),
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Id::Osbuild(id) => id.serialize(serializer),
            Id::Blake3(id) => id.serialize(serializer),
        }
    }
}

impl View<'_> {
    /// The id of a stage's node.
    fn id(&self, node: NodeIndex) -> Option<Id> {
        let stage = self.graph.stage_node(node)?;
        Some(match self.ids {
            IdScheme::Osbuild => Id::Osbuild(stage.compat),
            IdScheme::Blake3 => Id::Blake3(stage.id),
        })
    }

    /// The id of a pipeline's last stage.
    fn pipeline_id(&self, index: PipelineIndex) -> Option<Id> {
        self.graph.pipelines[index.0].last().and_then(|node| self.id(node))
    }
}

/// The entries of an object in order, names unique.
#[derive(Debug)]
struct Named<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<T: Serialize> Serialize for Named<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'a, T> Named<'a, T> {
    /// The entries, or none if there are none.
    fn unless_empty(entries: impl Iterator<Item = (Cow<'a, str>, T)>) -> Option<Self> {
        let entries: Vec<_> = entries.collect();
        (!entries.is_empty()).then_some(Self(entries))
    }
}

/// Options, if Python would take them for set.
fn set(options: &Value) -> Option<&Value> {
    Some(options).filter(|options| options.as_object().is_none_or(|options| !options.is_empty()))
}

/// JSON as Python's `json.dumps` writes it: a space behind `,` and `:`, nothing but ASCII.
pub fn to_python_json(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormatter));
    written.ok().and_then(|()| String::from_utf8(out).ok()).unwrap_or_default()
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
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

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
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
    fn json_is_written_as_python_writes_it() {
        let value = json!({"a": [1, 2.5, null, {}], "é😀": "\n\u{1}\u{7f}\"\\/"});
        let python = r#"{"a": [1, 2.5, null, {}], "\u00e9\ud83d\ude00": "\n\u0001\u007f\"\\/"}"#;
        assert_eq!(to_python_json(&value), python);
    }
}
