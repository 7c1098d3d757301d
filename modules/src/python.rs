//! How Python writes values and cuts lines, where what a stage writes shows it.

use osbc_module_api::{Error, Value};

use crate::options::python_str;

/// A value as `str()` gives it.
///
/// # Errors
/// It is a list or an object.
pub(crate) fn scalar(value: &Value) -> Result<String, Error> {
    python_str(value).ok_or_else(|| Error::failed(format!("a list or object is no plain value: {value}")))
}

/// The texts of a list, joined as `str.join` does it.
///
/// # Errors
/// The list has something else than texts.
pub(crate) fn join(separator: &str, list: &[Value]) -> Result<String, Error> {
    let texts = list.iter().map(|item| match item {
        Value::String(text) => Ok(text.as_str()),
        other => Err(Error::failed(format!("a list of texts has {other}"))),
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join(separator))
}

/// The lines of a text with their ends, as `str.splitlines` cuts them: at the separators of Unicode too.
pub(crate) fn lines(text: &str) -> Vec<&str> {
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

/// Whether a character ends a line.
pub(crate) fn is_line_end(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use osbc_module_api::json;

    use super::*;

    #[test]
    fn values_are_spelt_as_python_spells_them() {
        for (value, text) in [(json!("x y"), "x y"), (json!(true), "True"), (json!(null), "None"), (json!(1.0), "1.0")]
        {
            assert_eq!(scalar(&value).unwrap(), text);
        }
        assert!(scalar(&json!([])).is_err());
        assert_eq!(join(", ", &[json!("a"), json!("b")]).unwrap(), "a, b");
        assert!(join(", ", &[json!("a"), json!(1)]).is_err());
    }

    #[test]
    fn lines_keep_their_ends() {
        assert_eq!(lines("a\nb\r\nc\rd\u{2028}\n\ne"), ["a\n", "b\r\n", "c\r", "d\u{2028}", "\n", "\n", "e"]);
        assert_eq!(lines(""), [""; 0]);
    }
}
