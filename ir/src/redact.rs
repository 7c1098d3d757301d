//! Removes secrets from URLs before they are shown or kept.
//!
//! User information is dropped; the values of parameters and queries, and fragments, are hidden; scheme, host, path and
//! the names of parameters stay.
//!
//! All messages, events, records, reports and attestations show URLs in this form. Only sources and stages see them
//! whole.

use std::borrow::Cow;
use std::sync::Arc;

use crate::graph::Graph;
use crate::hex;
use crate::manifest::Manifest;
use crate::stage::Stage;
use crate::value::Value;

/// What stands for a hidden value.
const HIDDEN: &str = "***";

/// How many URLs may lie in each other's paths; of more, the rest is hidden.
const MAX_NESTED: usize = 8;

/// A piece of a URL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Shown as it is.
    Plain,
    /// User information, which is left out.
    User,
    /// A value, which is hidden.
    Value,
}

/// Returns one URL, which may hold blanks, as it is shown. What is no URL stays as it is.
pub fn url(text: &str) -> Cow<'_, str> {
    match text.find("://") {
        Some(mark) if is_scheme(&text[..mark]) => {
            let (mut shown, scheme) = (String::new(), mark + 3);
            shown.push_str(&text[..scheme]);
            take_apart(&text[scheme..], &mut |piece, part| push(&mut shown, piece, part));
            if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
        }
        _ => Cow::Borrowed(text),
    }
}

/// Returns a text for people with every URL in it as it is shown. A URL ends at a blank, a quote or `<>`.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let ends = |char: char| char.is_whitespace() || char.is_control() || "\"'`<>".contains(char);
    let shown = each_url(text, ends, push);
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// Returns the text of a manifest in which every byte of a URL that is not shown is a `*`, so that all places stay.
pub fn masked(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let shown = each_url(
        text,
        |char| matches!(char, '"' | '\n'),
        |shown, piece, part| match piece {
            Piece::Plain => shown.push_str(part),
            Piece::User | Piece::Value => shown.extend(std::iter::repeat_n('*', part.len())),
        },
    );
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

fn push(shown: &mut String, piece: Piece, part: &str) {
    match piece {
        Piece::Plain => shown.push_str(part),
        Piece::User => {}
        Piece::Value => shown.push_str(HIDDEN),
    }
}

/// A text with the pieces of its URLs, which end where `ends` says, as `push` has them.
fn each_url(text: &str, ends: impl Fn(char) -> bool, push: impl Fn(&mut String, Piece, &str)) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(mark) = text[done..].find("://").map(|at| done + at + 3) {
        let rest = &text[mark..];
        let rest = rest[..rest.find(&ends).unwrap_or(rest.len())].trim_end_matches(['.', ',', ':', ';', ')']);
        shown.push_str(&text[done..mark]);
        take_apart(rest, &mut |piece, part| push(&mut shown, piece, part));
        done = mark + rest.len();
    }
    shown.push_str(&text[done..]);
    shown
}

/// Returns a value with every URL in its strings as it is shown.
pub fn value(value: &Value) -> Value {
    let mut shown = value.clone();
    each_string(&mut shown, &mut |string| {
        if let Cow::Owned(other) = string_with_urls(string) {
            *string = other;
        }
    });
    shown
}

/// Returns a graph with every URL in its manifest as it is shown, followed by a short digest of the original wherever
/// something was left out, so that two such graphs can be compared.
///
/// Ids stay those of the original.
pub fn graph(graph: &Graph) -> Cow<'_, Graph> {
    if !values(&graph.manifest).any(holds_urls) {
        return Cow::Borrowed(graph);
    }
    let mut shown = graph.clone();
    each_value(Arc::make_mut(&mut shown.manifest), &mut |value| each_string(value, &mut mark));
    Cow::Owned(shown)
}

/// Replaces a string by what is shown of it and its digest, if the two differ.
fn mark(string: &mut String) {
    if let Cow::Owned(shown) = string_with_urls(string) {
        let digest = blake3::derive_key("osbc redacted string 1", string.as_bytes());
        *string = format!("{shown} [{}]", hex(&digest[..4]));
    }
}

/// A string of a manifest is a URL or a text that may hold some.
fn string_with_urls(string: &str) -> Cow<'_, str> {
    let is_url = string.find("://").is_some_and(|mark| is_scheme(&string[..mark]));
    if is_url && !string.contains('\n') { url(string) } else { text(string) }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
}

/// Emits the pieces of what follows the `://` of a URL, in order.
fn take_apart(mut rest: &str, emit: &mut impl FnMut(Piece, &str)) {
    for _ in 0..MAX_NESTED {
        match take_apart_once(rest, emit) {
            Some(nested) => rest = nested,
            None => return,
        }
    }
    emit_value(rest, emit);
}

/// Does the same up to the `://` of a URL in the path, and returns what follows that.
fn take_apart_once<'a>(rest: &'a str, emit: &mut impl FnMut(Piece, &str)) -> Option<&'a str> {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // A password may hold one of the marks: what precedes it is no host and port then, and the last `@` ends it.
    let user = authority.rfind('@').map_or(0, |at| at + 1);
    let user = if is_place(&authority[user..]) { user } else { rest.rfind('@').map_or(user, |at| at + 1) };
    let (user, whole) = rest.split_at(user);
    emit(Piece::User, user);
    let (rest, fragment) = whole.split_at(whole.find('#').unwrap_or(whole.len()));
    let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    if let Some(nested) = path.find("://").map(|at| at + 3) {
        emit(Piece::Plain, &path[..nested]);
        return Some(&whole[nested..]);
    }
    for segment in path.split_inclusive('/') {
        let (name, parameters) = segment.split_at(segment.find(';').unwrap_or(segment.len()));
        emit(Piece::Plain, name);
        let (parameters, slash) = parameters.split_at(parameters.find('/').unwrap_or(parameters.len()));
        emit_pairs(parameters, ';', emit);
        emit(Piece::Plain, slash);
    }
    if let Some(query) = query.strip_prefix('?') {
        emit(Piece::Plain, "?");
        emit_pairs(query, '&', emit);
    }
    if let Some(fragment) = fragment.strip_prefix('#') {
        emit(Piece::Plain, "#");
        emit_value(fragment, emit);
    }
    None
}

/// Emits `name=value` pairs. What has no name is a value in a query, and a name among the parameters of a path.
fn emit_pairs(pairs: &str, separator: char, emit: &mut impl FnMut(Piece, &str)) {
    for pair in pairs.split_inclusive(separator) {
        let (pair, end) = pair.split_at(pair.len() - usize::from(pair.ends_with(separator)));
        match pair.find('=').map(|equals| pair.split_at(equals + 1)) {
            Some((name, value)) => {
                emit(Piece::Plain, name);
                emit_value(value, emit);
            }
            None if separator == ';' => emit(Piece::Plain, pair),
            None => emit_value(pair, emit),
        }
        emit(Piece::Plain, end);
    }
}

/// Emits a value; of nothing there is nothing to hide.
fn emit_value(value: &str, emit: &mut impl FnMut(Piece, &str)) {
    if !value.is_empty() {
        emit(Piece::Value, value);
    }
}

/// Whether an authority without `@` is a host with a port, or without one.
fn is_place(authority: &str) -> bool {
    let after_address = authority.rfind(']').map_or(authority, |end| &authority[end + 1..]);
    after_address.split_once(':').is_none_or(|(_, port)| port.chars().all(|char| char.is_ascii_digit()))
}

/// Whether a string in a value may be something else when shown.
fn holds_urls(value: &Value) -> bool {
    match value {
        Value::String(string) => matches!(string_with_urls(string), Cow::Owned(_)),
        Value::Array(items) => items.iter().any(holds_urls),
        Value::Object(entries) => entries.values().any(holds_urls),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn each_string(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(string) => change(string),
        Value::Array(items) => items.iter_mut().for_each(|item| each_string(item, change)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| each_string(entry, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// All that modules are given by a manifest, and its metadata.
fn values(manifest: &Manifest) -> impl Iterator<Item = &Value> {
    let sources = manifest.sources.iter();
    let sources = sources.flat_map(|source| source.items.iter().map(|item| &item.description).chain([&source.options]));
    let stages = manifest.pipelines.iter().flat_map(|pipeline| &pipeline.stages).flat_map(|stage| {
        let references = stage.inputs.iter().flat_map(|input| &input.references.entries);
        let inputs = stage.inputs.iter().map(|input| &input.options);
        let devices = stage.devices.iter().map(|device| &device.options);
        let mounts = stage.mounts.iter().map(|mount| &mount.options);
        let references = references.map(|reference| &reference.options);
        std::iter::once(&stage.options).chain(inputs).chain(references).chain(devices).chain(mounts)
    });
    manifest.metadata.values().chain(sources).chain(stages)
}

/// The same, to be changed.
fn each_value(manifest: &mut Manifest, change: &mut impl FnMut(&mut Value)) {
    let Manifest { version: _, metadata, sources, pipelines } = manifest;
    metadata.values_mut().for_each(&mut *change);
    for source in sources {
        source.items.iter_mut().for_each(|item| change(&mut item.description));
        change(&mut source.options);
    }
    for stage in pipelines.iter_mut().flat_map(|pipeline| &mut pipeline.stages) {
        let Stage { module: _, options, inputs, devices, mounts, host: _, writes_id: _ } = stage;
        change(options);
        for input in inputs {
            change(&mut input.options);
            input.references.entries.iter_mut().for_each(|reference| change(&mut reference.options));
        }
        devices.iter_mut().for_each(|device| change(&mut device.options));
        mounts.iter_mut().for_each(|mount| change(&mut mount.options));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scheme_host_path_and_names_of_parameters_stay() {
        for (whole, shown) in [
            ("http://h:80/a/b c.rpm", "http://h:80/a/b c.rpm"),
            ("https://[::1]:8080/@scope/a", "https://[::1]:8080/@scope/a"),
            ("https://me:pass@h/a", "https://h/a"),
            ("https://token@h", "https://h"),
            ("https://h/a?X-Sig=s/3+c==&b=&flag", "https://h/a?X-Sig=***&b=&***"),
            ("https://h?secret", "https://h?***"),
            ("https://h/a b?x=two words", "https://h/a b?x=***"),
            ("https://h/a;jsessionid=1;v/b", "https://h/a;jsessionid=***;v/b"),
            ("https://h/a#access_token=1", "https://h/a#***"),
            ("https://me:p@ss@h/a", "https://h/a"),
            ("https://me@home:pa/ss@h/a", "https://h/a"),
            ("https://me:pa/s?s#w@h:1/a?b=c", "https://h:1/a?b=***"),
            ("https://proxy/get/http://me:pass@h/a?b=c#d", "https://proxy/get/http://h/a?b=***#***"),
            ("no URL: a?b=c", "no URL: a?b=c"),
            ("file:///a/b", "file:///a/b"),
        ] {
            assert_eq!(url(whole), shown);
            assert_eq!(url(&url(whole)), shown, "once is enough");
            assert_eq!(masked(whole).len(), whole.len());
        }
    }

    #[test]
    fn of_urls_in_urls_without_end_the_rest_is_hidden() {
        let whole = "http://h/".repeat(200_000);
        let shown = "http://h/".repeat(MAX_NESTED) + "http://***";
        assert_eq!(url(&whole), shown);
        assert_eq!(url(&shown), shown);
        assert_eq!(masked(&whole).len(), whole.len());
    }

    #[test]
    fn urls_are_found_in_texts() {
        let said = "cannot get `http://a:b@h/x?t=1` (from \"https://u@i/\"), tried http://j/?k=v twice: http://l/?m=n: no; see x://";
        let shown = "cannot get `http://h/x?t=***` (from \"https://i/\"), tried http://j/?k=*** twice: http://l/?m=***: no; see x://";
        assert_eq!(text(said), shown);
        assert!(matches!(text("a/b?c=d"), Cow::Borrowed(_)));
    }

    #[test]
    fn in_the_text_of_a_manifest_all_keeps_its_place() {
        let text = "{\"a\": \"http://u:é@h/x y?t=1 2\", \"b\": 1}";
        assert_eq!(masked(text), "{\"a\": \"http://*****h/x y?t=***\", \"b\": 1}");
    }

    #[test]
    fn all_strings_of_a_value_are_looked_at() {
        let given = json!({"a": ["http://u:p@h/"], "b": {"c": "baseurl=http://h/?t=1\nx=2"}, "d": 1});
        let shown = json!({"a": ["http://h/"], "b": {"c": "baseurl=http://h/?t=***\nx=2"}, "d": 1});
        assert_eq!(value(&given), shown);
    }
}
