//! Values as Python's `repr` writes them, cut where they become too long to read.

use serde_json::Value;

/// How many characters of a value are shown.
const MAX_CHARS: usize = 120;

/// Returns a value in Python's spelling, with `…` in place of what does not fit.
pub fn repr(value: &Value) -> String {
    let mut out = Cut { text: String::new(), left: MAX_CHARS };
    write(&mut out, value);
    if out.left == 0 {
        out.text.push('…');
    }
    out.text
}

/// Returns a list of such strings, joined by commas and cut as a whole.
pub fn join(items: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if out.len() > 4 * MAX_CHARS {
            out.push('…');
            break;
        }
        out.push_str(&item);
    }
    out
}

/// A string that takes so many more characters.
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
        assert_eq!(shown.chars().count(), MAX_CHARS + 1);
        assert!(shown.ends_with('…'));
    }
}
