//! Words in files of systemd whose lines are lists of them (tmpfiles, sysusers, `Environment=`): between double quotes
//! where they need it.
//!
//! Escapes of C beyond `\"` and `\\` are read by units alone. A `%` stays a specifier, as the value's author means it.

/// Returns a value between double quotes.
pub(crate) fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() && c != '\t' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns a value as one word of a line.
pub(crate) fn word(value: &str) -> String {
    let special = |c: char| c.is_ascii_whitespace() || c.is_ascii_control() || matches!(c, '"' | '\'' | '\\');
    if value.is_empty() || value.contains(special) { quoted(value) } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_need_it() {
        assert_eq!(word("/var/lib/é-%m#$"), "/var/lib/é-%m#$");
        assert_eq!(word("/srv/my data"), "\"/srv/my data\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(quoted("a\"b\\c\n\t\u{1}"), "\"a\\\"b\\\\c\\n\t\\x01\"");
    }
}
