//! Lists the differences between two values or two lists of facts.

use std::collections::BTreeMap;

use osbc_ir::Value;
use osbc_ir::sink::push;
use osbc_ir::value::Map;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::Change;

/// The parts of a stage that are reported as one when they come or go.
const PARTS: [&str; 4] = ["/inputs/", "/devices/", "/mounts/", "/host/"];

/// What is different, with JSON pointers from the root of the values.
pub fn changes_of_values(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    values(&mut String::new(), old, new, &mut changes);
    changes
}

/// What is different between two stages' facts. A part that comes or goes is one change with its type.
pub(super) fn changes_of_facts(old: Vec<(String, Value)>, new: Vec<(String, Value)>) -> Vec<Change> {
    let mut old: BTreeMap<String, Value> = old.into_iter().collect();
    let mut changes = Vec::new();
    let mut parts = Vec::new();
    for (mut path, is) in new {
        match old.remove(&path) {
            Some(was) => values(&mut path, &was, &is, &mut changes),
            None => one_sided(path, None, Some(is), &mut parts, &mut changes),
        }
    }
    for (path, was) in old {
        one_sided(path, Some(was), None, &mut parts, &mut changes);
    }
    changes.retain(|change| !parts.iter().any(|part| change.path.starts_with(&format!("{part}/"))));
    changes
}

/// A fact that only one has. Of a whole part its name says so, and its type stands for it.
fn one_sided(path: String, old: Option<Value>, new: Option<Value>, parts: &mut Vec<String>, all: &mut Vec<Change>) {
    let is_part =
        |part: &str| PARTS.iter().any(|parts| part.strip_prefix(parts).is_some_and(|name| !name.contains('/')));
    if let Some(part) = path.strip_suffix("/name").filter(|part| is_part(part)) {
        parts.push(part.to_owned());
        all.push(Change { path: part.to_owned(), old, new });
        return;
    }
    all.push(Change { path, old, new });
}

fn values(path: &mut String, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => objects(path, old, new, changes),
        (Value::Array(old), Value::Array(new)) => arrays(path, old, new, changes),
        _ => changes.push(Change { path: path.clone(), old: Some(old.clone()), new: Some(new.clone()) }),
    }
}

fn objects(path: &mut String, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Change>) {
    let length = path.len();
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone) {
        push(path, key);
        both_or_one(path, old.get(key), new.get(key), changes);
        path.truncate(length);
    }
}

/// Arrays item by item: where some came or went, by the places of the new array, of those that are gone by the old
/// one's.
fn arrays(path: &mut String, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let length = path.len();
    let mut at = |index: usize, old: Option<&Value>, new: Option<&Value>| {
        push(path, &index);
        both_or_one(path, old, new, changes);
        path.truncate(length);
    };
    // Values have no order of their own, so that their texts are compared.
    let texts = |values: &[Value]| -> Vec<String> { values.iter().map(Value::to_string).collect() };
    for op in capture_diff_slices(Algorithm::Myers, &texts(old), &texts(new)) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let (mut was, mut is) = (op.old_range(), op.new_range());
        loop {
            match (was.next(), is.next()) {
                (old_at, Some(new_at)) => at(new_at, old_at.map(|old_at| &old[old_at]), Some(&new[new_at])),
                (Some(old_at), None) => at(old_at, Some(&old[old_at]), None),
                (None, None) => break,
            }
        }
    }
}

fn both_or_one(path: &mut String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) => values(path, old, new, changes),
        (old, new) => changes.push(Change { path: path.clone(), old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reported(old: Value, new: Value) -> Vec<String> {
        let text = |value: Option<Value>| value.map_or("nothing".to_owned(), |value| value.to_string());
        let changes = changes_of_values(&old, &new).into_iter();
        changes.map(|change| format!("{}: {} -> {}", change.path, text(change.old), text(change.new))).collect()
    }

    #[test]
    fn only_what_differs_is_reported_by_its_place() {
        assert_eq!(
            reported(json!({"a": 1, "b": {"c": [1, 2]}}), json!({"b": {"c": [1, 2]}, "a": 1})),
            Vec::<String>::new()
        );
        assert_eq!(
            reported(json!({"a": 1, "b": {"c/d": 2}}), json!({"a": 2, "b": {"c/d": 3}})),
            ["/a: 1 -> 2", "/b/c~1d: 2 -> 3"]
        );
        assert_eq!(reported(json!({"a": 1}), json!({"b": null})), ["/b: nothing -> null", "/a: 1 -> nothing"]);
        assert_eq!(reported(json!(1), json!([1])), [": 1 -> [1]"]);
    }

    #[test]
    fn an_item_that_comes_or_goes_leaves_the_others_alone() {
        assert_eq!(reported(json!([1, 2, 3]), json!([0, 1, 2, 3])), ["/0: nothing -> 0"]);
        assert_eq!(reported(json!([1, 2, 3]), json!([1, 3])), ["/1: 2 -> nothing"]);
        assert_eq!(reported(json!([{"p": "/a", "m": 1}, 2]), json!([{"p": "/a", "m": 2}, 2])), ["/0/m: 1 -> 2"]);
    }

    #[test]
    fn a_part_that_comes_is_one_change() {
        let fact = |path: &str, value: Value| (path.to_owned(), value);
        let new = vec![
            fact("/options", json!({})),
            fact("/inputs/tree/name", json!("tree")),
            fact("/inputs/tree/type", json!("org.osbuild.tree")),
            fact("/inputs/tree/references/0/id", json!("os")),
        ];
        let changes = changes_of_facts(vec![fact("/options", json!({}))], new);
        assert_eq!(changes, [Change { path: "/inputs/tree".into(), old: None, new: Some(json!("tree")) }]);
    }
}
