//! JSON as Python's `json.dump` writes it, plain or with sorted keys and an indentation: what some files of osbuild's are.

use osbc_ir::compat;
use osbc_module_api::Value;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The text of a value, its keys sorted, each level indented by so many spaces, letters beyond ASCII escaped.
pub(crate) fn indented(value: &Value, spaces: usize) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    let indent = vec![b' '; spaces];
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(&indent));
    sorted.serialize(&mut serializer).expect("a value can be written to memory");
    let mut ascii = String::with_capacity(text.len());
    for letter in String::from_utf8_lossy(&text).chars() {
        if letter.is_ascii() && letter != '\x7f' {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            ascii.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

/// The text of a value on one line: blanks behind `,` and `:`, the keys in their order, letters beyond ASCII escaped.
pub(crate) fn plain(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(plain).collect())),
        Value::Object(entries) => {
            let key = |key: &String| compat::dumps(&Value::String(key.clone()));
            let entry = |(name, item): (&String, &Value)| format!("{}: {}", key(name), plain(item));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
        other => compat::dumps(other),
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::json;

    use super::*;

    #[test]
    fn plain_text_keeps_the_order() {
        let value = json!({"b": [1, 1.5, true, null], "a": {"ü\n": "🦀\u{7f}\"\\"}, "c": [], "d": {}});
        let text = r#"{"b": [1, 1.5, true, null], "a": {"\u00fc\n": "\ud83e\udd80\u007f\"\\"}, "c": [], "d": {}}"#;
        assert_eq!(plain(&value), text);
    }

    #[test]
    fn keys_are_sorted_and_other_letters_escaped() {
        let value = json!({"b": [1, {"d": null, "c": "ü😀\""}], "a": {}, "e": []});
        let expected = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"\\u00fc\\ud83d\\ude00\\\"\",\n      \
                        \"d\": null\n    }\n  ],\n  \"e\": []\n}";
        assert_eq!(indented(&value, 2), expected);
    }
}
