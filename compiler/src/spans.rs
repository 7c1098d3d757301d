//! Finds the byte ranges of places: in one walk over the text for all of them, and only if there is a problem to show.
//!
//! It knows valid JSON and nothing else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::place::{Key, Place};

/// Where a value and the key that leads to it stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spans {
    /// The value.
    pub(crate) value: Range<usize>,
    /// Its key, with quotes; none in arrays and at the root.
    pub(crate) key: Option<Range<usize>>,
}

/// Finds each place in `text`, which is valid JSON.
///
/// A place that is not there is found at its closest ancestor; of repeated keys the last counts, as it does for the
/// values.
pub(crate) fn locate(text: &str, places: &[&Place]) -> Vec<Spans> {
    let mut tree = Tree::default();
    let nodes: Vec<usize> = places.iter().map(|place| tree.add(place)).collect();
    Scanner { text, at: 0 }.walk(&mut tree);
    nodes.into_iter().map(|node| tree.found(node)).collect()
}

/// The places that are asked for, as a tree of keys.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    children: HashMap<Key, usize>,
    spans: Option<Spans>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    fn add(&mut self, place: &Place) -> usize {
        let mut node = 0;
        for key in place.keys() {
            let next = self.nodes.len();
            let child = *self.nodes[node].children.entry(key.clone()).or_insert(next);
            if child == next {
                self.nodes.push(Node { parent: node, ..Node::default() });
            }
            node = child;
        }
        node
    }

    fn child(&self, node: usize, key: &Key) -> Option<usize> {
        self.nodes[node].children.get(key).copied()
    }

    /// Notes where a node begins, and forgets what an earlier value of the same key had below it.
    fn begin(&mut self, node: Option<usize>, start: usize, key: Option<Range<usize>>) {
        let Some(node) = node else { return };
        if self.nodes[node].spans.is_some() {
            let mut below: Vec<usize> = self.nodes[node].children.values().copied().collect();
            while let Some(node) = below.pop() {
                self.nodes[node].spans = None;
                below.extend(self.nodes[node].children.values());
            }
        }
        self.nodes[node].spans = Some(Spans { value: start..start, key });
    }

    fn end(&mut self, node: Option<usize>, end: usize) {
        if let Some(node) = node
            && let Some(spans) = &mut self.nodes[node].spans
        {
            spans.value.end = end;
        }
    }

    fn found(&self, mut node: usize) -> Spans {
        loop {
            match &self.nodes[node].spans {
                Some(spans) => return spans.clone(),
                None if node == 0 => return Spans::default(),
                None => node = self.nodes[node].parent,
            }
        }
    }
}

/// A container that the walk is in.
struct Open {
    /// Its node, if anything in it is asked for.
    node: Option<usize>,
    /// How many items of an array were begun; none in an object.
    index: Option<usize>,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn walk(mut self, tree: &mut Tree) {
        let mut open: Vec<Open> = Vec::new();
        let mut node = Some(0);
        let mut key: Option<Range<usize>> = None;
        while let Some(byte) = self.next_token() {
            match byte {
                b'}' | b']' => {
                    self.at += 1;
                    if let Some(closed) = open.pop() {
                        tree.end(closed.node, self.at);
                    }
                    continue;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            match open.last_mut() {
                Some(Open { node: parent, index: Some(index) }) => {
                    node = parent.and_then(|parent| tree.child(parent, &Key::Index(*index)));
                    *index += 1;
                }
                Some(Open { node: parent, index: None }) if key.is_none() => {
                    let range = self.string();
                    node = parent.and_then(|parent| tree.child(parent, &Key::Name(decoded(&self.text[range.clone()]))));
                    key = Some(range);
                    continue;
                }
                _ => {}
            }
            tree.begin(node, self.at, key.take());
            match byte {
                b'{' | b'[' => {
                    self.at += 1;
                    open.push(Open { node, index: (byte == b'[').then_some(0) });
                }
                b'"' => {
                    self.string();
                    tree.end(node, self.at);
                }
                _ => {
                    self.scalar();
                    tree.end(node, self.at);
                }
            }
        }
    }

    /// The first byte that is no white space.
    fn next_token(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over a string, quotes included.
    fn string(&mut self) -> Range<usize> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                break;
            }
        }
        self.at = self.at.min(bytes.len());
        start..self.at
    }

    /// Steps over a number, `true`, `false` or `null`.
    fn scalar(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let end =
            |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':' | b']' | b'}' | b'[' | b'{' | b'"');
        self.at += rest.iter().position(end).unwrap_or(rest.len()).max(1);
    }
}

/// The content of a string with its quotes.
fn decoded(quoted: &str) -> Cow<'static, str> {
    if quoted.contains('\\') {
        return Cow::Owned(serde_json::from_str(quoted).unwrap_or_default());
    }
    Cow::Owned(quoted.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(text: &'a str, keys: &[Key]) -> (&'a str, Option<&'a str>) {
        let spans = locate(text, &[&Place::from(keys.to_vec())]).remove(0);
        (&text[spans.value], spans.key.map(|key| &text[key]))
    }

    #[test]
    fn values_and_keys_are_found() {
        let text = r#" { "a" : [1, {"b/~": "x\"y]"}, [ ] ] , "c": -1.5e3 } "#;
        let name = |name: &'static str| Key::from(name);
        assert_eq!(found(text, &[]).0, text.trim());
        assert_eq!(found(text, &[name("c")]), ("-1.5e3", Some("\"c\"")));
        assert_eq!(found(text, &[name("a"), Key::Index(0)]), ("1", None));
        assert_eq!(found(text, &[name("a"), Key::Index(1), name("b/~")]), (r#""x\"y]""#, Some("\"b/~\"")));
        assert_eq!(found(text, &[name("a"), Key::Index(2)]), ("[ ]", None));
    }

    #[test]
    fn what_is_not_there_is_found_at_its_closest_ancestor() {
        assert_eq!(
            found(r#"{"a": {"b": 1}}"#, &["a".into(), "c".into(), Key::Index(3)]),
            (r#"{"b": 1}"#, Some("\"a\""))
        );
    }

    #[test]
    fn of_repeated_keys_the_last_counts_with_all_below_it() {
        let text = r#"{"a": {"b": 1}, "a": {"c": 2}}"#;
        assert_eq!(found(text, &["a".into(), "c".into()]).0, "2");
        assert_eq!(found(text, &["a".into(), "b".into()]).0, r#"{"c": 2}"#);
    }

    #[test]
    fn escaped_keys_are_the_keys_that_they_mean() {
        assert_eq!(found(r#"{"\u0061\n": true}"#, &["a\n".into()]), ("true", Some(r#""\u0061\n""#)));
    }
}
