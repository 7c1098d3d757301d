//! Values as Python's `repr` writes them, which osbuild's messages do, cut where they become too long to read.

use osbc_ir::Value;

/// How many characters of a value a message shows.
const LIMIT: usize = 120;

/// A value in Python's spelling, with `…` for what does not fit.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = Cut { text: String::new(), left: LIMIT };
    write(&mut out, value);
    if out.left == 0 {
        out.text.push('…');
    }
    out.text
}

/// A list of such texts, cut as a whole.
pub(crate) fn join(items: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if out.len() > 4 * LIMIT {
            out.push('…');
            break;
        }
        out.push_str(&item);
    }
    out
}

/// A text that takes no more than so many characters.
struct Cut {
    text: String,
    left: usize,
}

impl Cut {
    fn push(&mut self, text: &str) {
        for char in text.chars() {
            if self.left == 0 {
                return;
            }
            self.text.push(char);
            self.left -= 1;
        }
    }
}

fn write(out: &mut Cut, value: &Value) {
    match value {
        Value::Null => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Number(number) => out.push(number.as_str()),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push("[");
            for (index, item) in items.iter().enumerate() {
                if out.left == 0 {
                    return;
                }
                out.push(if index == 0 { "" } else { ", " });
                write(out, item);
            }
            out.push("]");
        }
        Value::Object(entries) => {
            out.push("{");
            for (index, (key, item)) in entries.iter().enumerate() {
                if out.left == 0 {
                    return;
                }
                out.push(if index == 0 { "" } else { ", " });
                write_text(out, key);
                out.push(": ");
                write(out, item);
            }
            out.push("}");
        }
    }
}

fn write_text(out: &mut Cut, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let quoted = quote.to_string();
    out.push(&quoted);
    for char in text.chars() {
        if out.left == 0 {
            return;
        }
        match char {
            '\\' => out.push("\\\\"),
            '\n' => out.push("\\n"),
            '\r' => out.push("\\r"),
            '\t' => out.push("\\t"),
            _ if char == quote => out.push(&format!("\\{char}")),
            _ if char.is_control() => out.push(&format!("\\x{:02x}", u32::from(char))),
            _ => out.push(char.encode_utf8(&mut [0; 4])),
        }
    }
    out.push(&quoted);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_spelt_as_python_spells_them() {
        let value = json!({"a": [1, null, true], "it's": "b\n\"", "c": "'"});
        assert_eq!(repr(&value), r#"{'a': [1, None, True], "it's": 'b\n"', 'c': "'"}"#);
    }

    #[test]
    fn long_values_are_cut() {
        let shown = repr(&json!(vec!["é"; 1_000_000]));
        assert_eq!(shown.chars().count(), LIMIT + 1);
        assert!(shown.ends_with('…'));
    }
}
