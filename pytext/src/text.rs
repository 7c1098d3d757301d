//! Values as `str()` gives them and lines as `str.splitlines()` cuts them.

use serde_json::Value;

/// Returns a value as Python's `str()` gives it; `None` for lists and objects.
pub fn str(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null => Some("None".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the lines of a string with their ends, as `str.splitlines(keepends=True)` cuts them.
///
/// Unicode's line separators end a line too.
pub fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_line_end) {
        let length =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(0, char::len_utf8) };
        let (line, after) = rest.split_at(at + length);
        lines.push(line);
        rest = after;
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Returns whether a character ends a line for `str.splitlines()`.
pub fn is_line_end(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_spelt_as_python_spells_them() {
        for (value, text) in
            [(json!("x y"), "x y"), (json!(1), "1"), (json!(1.0), "1.0"), (json!(true), "True"), (json!(null), "None")]
        {
            assert_eq!(str(&value).as_deref(), Some(text));
        }
        assert_eq!(str(&json!([])), None);
    }

    #[test]
    fn lines_keep_their_ends() {
        assert_eq!(lines("a\nb\r\nc\rd\u{2028}\n\ne"), ["a\n", "b\r\n", "c\r", "d\u{2028}", "\n", "\n", "e"]);
        assert_eq!(lines(""), [""; 0]);
    }
}
