//! Text files of a tree as Python's text mode reads them.

use osbc_ir::compat;
use osbc_module_api::*;

/// What is in the text file `path`, with `\n` at the end of each line whatever the file has there.
///
/// # Errors
/// It cannot be read or is not UTF-8.
pub(crate) fn read(tree: &Tree, path: &str) -> Result<String, Error> {
    let text = tree.read_to_string(path)?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

/// As [`read`]; none if there is no such file.
///
/// # Errors
/// It is there and cannot be read or is not UTF-8.
pub(crate) fn read_if_there(tree: &Tree, path: &str) -> Result<Option<String>, Error> {
    if tree.exists(path)? { read(tree, path).map(Some) } else { Ok(None) }
}

/// A value as Python's `json.dump` writes it: ASCII alone, blanks behind `,` and `:`, the keys in their order.
pub(crate) fn python_json(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(python_json).collect())),
        Value::Object(entries) => {
            let entry = |(key, item): (&String, &Value)| format!("{}: {}", ascii(key), python_json(item));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
        Value::String(text) => ascii(text),
        other => other.to_string(),
    }
}

fn ascii(text: &str) -> String {
    compat::dumps(&Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spelt_as_by_python() {
        let value = json!({"b": [1, 1.5, true, null], "a": {"ü\n": "🦀\u{7f}\"\\"}, "c": [], "d": {}});
        let text = r#"{"b": [1, 1.5, true, null], "a": {"\u00fc\n": "\ud83e\udd80\u007f\"\\"}, "c": [], "d": {}}"#;
        assert_eq!(python_json(&value), text);
    }

    #[test]
    fn lines_end_alike() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("a", "1\r\n2\r3\n").unwrap();
        assert_eq!(read(&tree, "a").unwrap(), "1\n2\n3\n");
        assert_eq!(read_if_there(&tree, "b").unwrap(), None);
    }
}
